"""The record of a validation: kept whole, read again, refused when it is damaged."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sample_draws import Case, gaussian_case

from sbi_physics.coverage import Coverage
from sbi_physics.errors import ValidationError
from sbi_physics.testing import known_answers
from sbi_physics.testing.known_answers import PRIOR
from sbi_physics.validate_arrays import validate_draws


def test_the_expected_coverage_is_the_same_on_either_side_of_storage(tmp_path):
    rng = np.random.default_rng(11)
    arrays = gaussian_case(300, rng).arrays(rng)
    arrays["log_prob_true"][3] = np.nan
    arrays["log_prob_true"][4] = -np.inf
    result = validate_draws(rng=rng, blocks=[("a",)], **arrays)
    result.to_json(tmp_path / "coverage.json")
    again = Coverage.from_json(tmp_path / "coverage.json")
    assert again.to_json() == result.to_json()
    assert again.summary() == result.summary()
    assert again.prior == PRIOR
    for name in result.quantities:
        assert np.array_equal(again.pit[name], result.pit[name], equal_nan=True)
    assert again.ecp(0.9) == result.ecp(0.9)


@pytest.mark.parametrize(("text", "message"), [("{", "not readable"), ("{}", "schema None")])
def test_a_damaged_record_is_refused(tmp_path, text, message):
    (tmp_path / "coverage.json").write_text(text)
    with pytest.raises(ValidationError, match=message):
        Coverage.from_json(tmp_path / "coverage.json")


def test_a_record_without_an_entry_is_refused(tmp_path):
    rng = np.random.default_rng(12)
    data = gaussian_case(200, rng).validate(rng, 19).to_dict()
    del data["pit"]
    with pytest.raises(ValidationError, match="lacks the entry 'pit'"):
        Coverage.from_dict(data)


def test_records_of_the_former_schema_are_read():
    rng = np.random.default_rng(40)
    result = gaussian_case(200, rng).validate(rng, 19)
    data = result.to_dict()
    assert data["schema"] == 3
    old = {k: v for k, v in data.items() if k not in ("require", "local")} | {"schema": 1}
    assert Coverage.from_dict(old).to_dict() == {**data, "local": None}
    second = {k: v for k, v in data.items() if k != "local"} | {"schema": 2}
    assert Coverage.from_dict(second).to_dict() == {**data, "local": None}
    with pytest.raises(ValidationError, match="schema 4.*reads schemas 1, 2, 3"):
        Coverage.from_dict({**data, "schema": 4})


def test_the_local_map_travels_with_the_record_and_says_where_widths_are_wrong():
    rng = np.random.default_rng(44)
    case = Case(known_answers.known_case("xscale", 1000, rng))
    result = case.validate(rng, 99)
    found = result.local
    assert found.quantities == result.quantities
    assert found.features == ("feature_1", "feature_2")
    ends = [found.select("sbc:a", "feature_1")[k].width[0] for k in (0, -1)]
    # 0.75 and 1.33 times the width by the sign of x_1, which the first component follows.
    assert min(ends) < 0.85
    assert max(ends) > 1.15
    assert found.deviating()
    again = Coverage.from_dict(result.to_dict())
    assert again.local.to_dict() == found.to_dict()
    assert case.validate(rng, 9, x=None).local is None
    assert case.validate(rng, 9, x=np.ones(1000)).local is None
