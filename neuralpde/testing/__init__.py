"""Checks of the contract of fields, for tests of one's own fields."""

from neuralpde.testing.contract import check_field

__all__ = ["check_field"]
