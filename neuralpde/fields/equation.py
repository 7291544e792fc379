"""A stochastic field as an equation: its noise checked, and the names that torchsde calls."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from solvers.noise import NoiseTerm, declared

NAMES = ("f", "g", "g_prod", "noise_type", "sde_type")
"""What torchsde looks for in an SDE."""


def equation(field: Any) -> dict[str, Any]:
    """What torchsde calls of a bound stochastic field, by its names there.

    The state is `[nodes, channels]`, torchsde's batch and channels, and so is the noise. Noise
    that acts entry by entry is its "diagonal" type. An operator couples the rows of a batch, for
    which torchsde has no type: it is called "additive" and given as the product `g_prod` alone, so
    that a Brownian motion of the shape of the state has to be passed (`bm=`).

    Args:
        field: Bound, with noise.

    >>> import torch
    >>> from neuralpde.fields import Noise
    >>> found = equation(Noise(0.5).bind(None, torch.zeros(2, 1)))
    >>> found["g"](torch.tensor(0.0), torch.zeros(2, 1)).tolist(), found["noise_type"]
    ([[0.5], [0.5]], 'diagonal')
    """
    noise = declared(field.noise)

    def g(t: Tensor, x: Tensor) -> Tensor:
        return noise.factors(t, (x,))[0].expand_as(x)

    def g_prod(t: Tensor, x: Tensor, v: Tensor) -> Tensor:
        return noise(t, (x,), (v,))[0]

    if noise.operator is None:
        return {"f": field.forward, "g": g, "noise_type": "diagonal", "sde_type": noise.convention}
    return {
        "f": field.forward,
        "g_prod": g_prod,
        "noise_type": "additive",
        "sde_type": noise.convention,
    }


def check_noise(noise: Any, x0: Any, name: str) -> None:
    """Refuse noise that does not fit the state, before any work.

    Functions are not called: only a solve knows at which times they make sense.

    Args:
        noise: What a field declares, or None.
        x0: The first state.
        name: What the field is called.

    Raises:
        TypeError: For complex states, and an operator of another dtype.
        ValueError: For shapes that do not broadcast, and other numbers of parts.

    >>> import torch
    >>> check_noise(0.3, torch.zeros(2, 1), "heat")
    """
    if noise is None:
        return
    parts = x0 if isinstance(x0, tuple) else (x0,)
    if parts[0].is_complex():
        raise TypeError(
            f"the noise of {name} is real and x0 is {parts[0].dtype}; solve for "
            "torch.view_as_real(x0), with noise for both parts"
        )
    term: NoiseTerm = declared(noise)
    if term.operator is not None:
        _check_operator(term.operator, parts[0], name)
    if not term.counted:
        term.fitted(term.values(), parts)


def _check_operator(operator: Any, x: Tensor, name: str) -> None:
    if operator.num_nodes != len(x):
        raise ValueError(
            f"the noise of {name} is an operator on {operator.num_nodes} nodes, and x0 is a state "
            f"of {len(x)}"
        )
    if operator.dtype != x.dtype:
        raise TypeError(
            f"the noise of {name} does not fit: its operator is {operator.dtype} and x0 is "
            f"{x.dtype}; use operator.to({x.dtype})"
        )
