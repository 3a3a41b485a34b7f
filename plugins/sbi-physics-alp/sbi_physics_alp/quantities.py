"""Options that are quantities with a unit, such as ``"50 h"``."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator


def to_value(text: str, unit: str) -> float:
    """Value of a quantity such as ``"50 h"`` in ``unit``.

    Args:
        text: A number and a unit that astropy parses.
        unit: The unit wanted.

    Raises:
        ValueError: If it is no such quantity.

    Example:
        >>> to_value("50 h", "s")
        180000.0
    """
    from astropy import units

    try:
        return float(units.Quantity(text).to_value(unit))
    except (TypeError, ValueError, units.UnitConversionError) as error:
        raise ValueError(
            f"{text!r} is not a number with a unit that converts to {unit}, such as '1 {unit}'"
        ) from error


def _quantity(low: str, high: str, unit: str) -> AfterValidator:
    """Pydantic check that a string is a quantity between ``low`` and ``high``."""

    def check(text: str) -> str:
        if not to_value(low, unit) <= to_value(text, unit) <= to_value(high, unit):
            raise ValueError(f"accepted is {low} to {high}")
        return text

    return AfterValidator(check)


Exposure = Annotated[str, _quantity("1 min", "10000 h", "h")]
Energy = Annotated[str, _quantity("5 GeV", "200 TeV", "GeV")]
OnRadius = Annotated[str, _quantity("0.01 deg", "1 deg", "deg")]
Offset = Annotated[str, _quantity("0 deg", "10 deg", "deg")]
