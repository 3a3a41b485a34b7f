"""Draws made elsewhere, validated on the command line."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sample_commands import command_line, one_paragraph
from sample_draws import write_draws


@pytest.fixture
def call(capsys, monkeypatch, recwarn):
    return command_line(capsys, monkeypatch)


@pytest.fixture
def draws_file(tmp_path):
    return write_draws(tmp_path / "draws.npz")


def test_draws_from_elsewhere_are_validated(draws_file, call, tmp_path):
    record, html = tmp_path / "c.json", tmp_path / "c.html"
    code, out, err = call(
        "validate", draws_file, "--seed", 1, "-o", record, "-o", html, "--json", "--strict"
    )
    assert code == 0
    assert err == "[validate] 250 pairs with 99 draws of 1 parameter each\n"
    found = json.loads(out)
    assert found["names"] == ["m_a"]
    assert found["verdict"] in ("PASS", "MARGINAL")
    assert json.loads(record.read_text()) == found
    assert "draws.npz: PASS" in html.read_text() or "draws.npz: MARGINAL" in html.read_text()
    # The same seed gives the same record; the time it took is no part of that.
    again = json.loads(call("validate", draws_file, "--seed", 1, "--json")[1])
    assert again["pit"] == found["pit"]


def test_strict_judges_draws_from_elsewhere_too(draws_file, call, tmp_path):
    with np.load(draws_file) as file:
        wrong = {**file, "draws": file["draws"] + 1.0}
    np.savez(tmp_path / "wrong.npz", **wrong)
    code, out, _ = call("validate", tmp_path / "wrong.npz", "--strict", "--seed", 1)
    assert code == 1
    assert re.match(r"FAIL \(.*biased:m_a\)", out)
    assert call("validate", tmp_path / "wrong.npz", "--seed", 1)[0] == 0
    # Of a file, too, only the first pairs and draws may be used.
    code, out, _ = call("validate", draws_file, "--pairs", 50, "--draws", 20, "--strict")
    assert code == 1
    assert "50 of 50 pairs, 20 draws each" in out


def test_dependent_draws_are_warned_about(call, tmp_path):
    rng = np.random.default_rng(1)
    chain = np.repeat(rng.standard_normal((250, 50, 1)), 4, axis=1)
    np.savez(tmp_path / "mcmc.npz", theta=rng.standard_normal((250, 1)), draws=chain)
    with pytest.warns(UserWarning, match="Thin the chains"):
        call("validate", tmp_path / "mcmc.npz", "--seed", 1)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--simulations", "s.zarr"], "holds draws and true values already"),
        (["-o", "c.txt"], "ends in .json or .html"),
        (["-o", "nowhere/c.json"], "there is no folder 'nowhere'"),
        (["--pairs", "5"], "at least 20"),
    ],
)
def test_validating_draws_explains_what_it_cannot_do(draws_file, call, arguments, text):
    code, out, err = call("validate", draws_file, *arguments)
    assert (code, out) == (2, "")
    assert one_paragraph(err), err
    assert text in err


def test_a_malformed_file_of_draws_is_one_paragraph_and_exit_code_2(call, tmp_path):
    np.savez(tmp_path / "bad.npz", theta=np.ones((3, 1)), drawz=np.ones((3, 9, 1)))
    code, out, err = call("validate", tmp_path / "bad.npz")
    assert (code, out) == (2, "")
    assert one_paragraph(err), err
    assert "Did you mean 'draws'?" in err
