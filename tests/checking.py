"""What checks annotations in the run that CONTRIBUTING describes under "Tests"."""

import sys
from collections.abc import Callable
from typing import Any, Self

from beartype import BeartypeConf, FrozenDict, beartype


class _Open(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return True


class Anything(metaclass=_Open):
    """What everything is an instance of; beartype does not take Any as a part of a union."""


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check arguments and results of a function, all but what beartype cannot look at.

    jaxtyping hands over functions one by one, and outside its class beartype does not know `Self`.
    Protocols are for mypy, which sees the members' signatures; instances show only their names.
    """
    known = vars(sys.modules[function.__module__]).values()
    hidden = [one for one in known if _protocol(one)]
    conf = BeartypeConf(hint_overrides=FrozenDict(dict.fromkeys((Self, *hidden), Anything)))
    return beartype(conf=conf)(function)


def _protocol(value: Any) -> bool:
    declared = isinstance(value, type) and value.__dict__.get("_is_protocol", False)
    return declared and not getattr(value, "_is_runtime_protocol", False)
