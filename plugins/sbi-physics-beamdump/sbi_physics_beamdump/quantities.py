"""Options that are numbers with a unit: plain, in the unit shown, or text such as ``1mrad``."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator


def to_value(value: Any, unit: str) -> Any:
    """Value in `unit` of text with a unit; numbers and text without a unit are left as they are.

    Args:
        value: Such as ``"1mrad"``, ``"1 mrad"`` or ``0.001``.
        unit: The unit wanted.

    Raises:
        ValueError: If the text is no quantity that converts to `unit`.

    Example:
        >>> to_value("5mrad", "rad")
        0.005
    """
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        pass
    from astropy import units  # half a second: only where a unit was given

    try:
        # Rounded, so that 5 mrad and 0.005 are one number and name one simulator.
        return float(f"{units.Quantity(value).to_value(unit):.15g}")
    except (TypeError, ValueError, units.UnitConversionError) as error:
        raise ValueError(
            f"accepted is a number in {unit}, or one with a unit that converts to it, such as "
            f"'1 {unit}'"
        ) from error


Length = Annotated[float, BeforeValidator(lambda value: to_value(value, "m"))]
Angle = Annotated[float, BeforeValidator(lambda value: to_value(value, "rad"))]
Energy = Annotated[float, BeforeValidator(lambda value: to_value(value, "GeV"))]
Fraction = Annotated[float, BeforeValidator(lambda value: to_value(value, ""))]
