"""What a person reads who set an option wrongly."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field

from sbi_physics.errors import OptionError
from sbi_physics.simulator import SimulatorOptions, make_options


class Options(SimulatorOptions):
    realisation: Literal["random"] | int = Field("random", union_mode="left_to_right")
    level: Literal["five", "informed", "agnostic"] = "five"
    preset: Literal["icrc2023", "tmnre2025"] | None = None
    names: Literal["all"] | tuple[int, ...] = "all"
    width: Annotated[float | Literal["auto"] | None, Field(json_schema_extra={"unit": "mm"})] = (
        None
    )
    size: float = Field(1.0, gt=0, le=5)
    order: Literal[1, 2] = 1


def message(**values):
    with pytest.raises(OptionError) as refused:
        make_options("toy", Options, None, values)
    return str(refused.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"realisation": "x"},
            "option 'realisation' of 'toy': got 'x'; accepted is 'random' or an integer.",
        ),
        (
            {"realisation": "randon"},
            "option 'realisation' of 'toy': got 'randon'; accepted is 'random' or an integer. Did "
            "you mean 'random'?",
        ),
        (
            {"names": [1, "x"]},
            "option 'names' of 'toy': got [1, 'x']; accepted is 'all' or a list.",
        ),
        (
            {"width": "wide"},
            "option 'width' of 'toy' [mm]: got 'wide'; accepted is a number or 'auto' or null.",
        ),
        (
            {"level": "informd"},
            "option 'level' of 'toy': got 'informd'; Input should be 'five', 'informed' or "
            "'agnostic'. Did you mean 'informed'?",
        ),
        (
            {"preset": "tmnre2024"},
            "option 'preset' of 'toy': got 'tmnre2024'; Input should be 'icrc2023' or "
            "'tmnre2025'. Did you mean 'tmnre2025'?",
        ),
        ({"order": "3"}, "option 'order' of 'toy': got '3'; Input should be 1 or 2."),
        (
            {"size": 7},
            "option 'size' of 'toy': got 7; Input should be less than or equal to 5 (accepted: "
            "(0, 5]).",
        ),
        (
            {"levle": "five"},
            "unknown option 'levle' of 'toy'. Did you mean 'level'? Known: realisation, level, "
            "preset, names, width, size, order.",
        ),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_one_sentence_says_what_is_accepted(values, said):
    assert message(**values) == said


def test_every_wrong_option_has_its_sentence():
    text = message(realisation="x", level="informd")
    assert text.count("option '") == 2
    assert "literal[" not in text
