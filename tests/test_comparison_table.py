"""The table of a comparison: scores, verdicts and times in one place, in 100 columns."""

from __future__ import annotations

import html
import re
from dataclasses import replace

import numpy as np
import pytest

from sbi_physics.cli import render
from sbi_physics.compare import compare_runs, gather
from sbi_physics.comparison import Comparison, RunRow
from sbi_physics.diagnostics.information import Score
from sbi_physics.distributions import Normal
from sbi_physics.parameters import Parameter
from sbi_physics.priors import Prior
from sbi_physics.report import comparison as page
from sbi_physics.validate_arrays import validate_draws


def row(name, engine, verdict, seconds, labels=()):
    return RunRow(
        name=name,
        engine=engine,
        simulator="toy-gaussian",
        parameters=("a",),
        verdict=verdict,
        labels=labels,
        p_global=0.25,
        p_adjusted=1.2e-5,
        pairs=1000,
        n_draws=999,
        nll=Score(-11.234, 0.045, -11.4, 1000),
        gain=Score(12.345, 0.045, 12.2, 1000),
        gain_kind="information",
        seconds=seconds,
    )


COMPARISON = Comparison(
    table=(
        row(
            "bayesflow-cinn",
            "bayesflow-cinn",
            "UNINFORMATIVE",
            {"simulate": 1.0, "train": 754.0, "infer": 3.2, "validate": 30.0},
            ("prior recovered", "overconfident"),
        ),
        row("sbi-npe", "sbi-npe", "PASS", {"validate": 30.0}),
    ),
    differences=(),
)


@pytest.fixture
def printed(monkeypatch, capsys):
    def show(comparison):
        monkeypatch.setattr(render, "_WIDTH_ELSEWHERE", 100)
        render.show_comparison(comparison)
        return capsys.readouterr().out.splitlines()

    return show


def test_scores_verdicts_and_times_are_columns_of_one_table(printed):
    lines = printed(COMPARISON)
    heading = next(line for line in lines if line.split()[:1] == ["run"])
    assert heading.split() == [
        "run",
        "verdict",
        "NLL",
        "gain",
        "training",
        "sampling",
        "adj.",
        "p",
    ]
    (first,) = [line for line in lines if "UNINFORMATIVE" in line]  # nothing is broken over lines
    assert re.split(r" {2,}", first.strip()) == [
        "bayesflow-cinn",
        "UNINFORMATIVE",
        "-11.234 +- 0.045",
        "12.345 +- 0.045",
        "12 min 34 s",
        "3.2 s",
        "1.2e-05",
    ]
    (second,) = [line for line in lines if "PASS" in line]
    assert re.split(r" {2,}", second.strip())[4:6] == ["-", "-"]
    assert "bayesflow-cinn: prior recovered, overconfident" in "\n".join(lines)
    assert max(map(len, lines)) <= 100


def test_engines_are_named_where_runs_are_not_called_by_them(printed):
    first, second = COMPARISON.table
    lines = printed(replace(COMPARISON, table=(replace(first, name="a", verdict="FAIL"), second)))
    heading = next(line for line in lines if line.split()[:1] == ["run"])
    assert heading.split()[:3] == ["run", "engine", "verdict"]
    assert any(re.match(r" ?a +bayesflow-cinn +FAIL", line) for line in lines)


def test_the_summary_has_the_times_beside_the_scores():
    lines = COMPARISON.summary().splitlines()
    columns = lines[0].split()
    assert columns == ["run", "verdict", "NLL", "gain", "training", "sampling", "adjusted", "p"]
    assert re.split(r" {2,}", lines[1])[4:6] == ["754.0 s", "3.2 s"]
    assert re.split(r" {2,}", lines[2])[4:6] == ["-", "-"]
    others = lines.index(next(line for line in lines if line.startswith("other stages")))
    assert lines[others].split() == ["other", "stages", "simulate", "validate"]
    assert lines[others + 1].split() == ["bayesflow-cinn", "1.0", "s", "30.0", "s"]
    assert max(len(line) for line in lines if not line.startswith("not calibrated")) <= 100


def coverage(seed):
    rng = np.random.default_rng(seed)
    theta = rng.standard_normal((200, 1))
    mean = 0.8 * (theta + 0.5 * rng.standard_normal((200, 1)))
    draws = mean[:, None] + np.sqrt(0.2) * rng.standard_normal((200, 99, 1))
    prior = Prior([Parameter("a", Normal(0.0, 1.0))])
    return validate_draws(theta, draws, x=mean, prior=prior, rng=rng)


def test_the_page_has_them_in_the_table_of_verdicts(monkeypatch):
    # Figures take seconds and are tested elsewhere.
    monkeypatch.setattr(page, "draw_all", lambda *args, **more: {})
    coverages = {"fast": coverage(1), "slow": coverage(2)}
    fast, slow = gather(coverages)
    seconds = {"train": 754.0, "infer": 3.2, "pairs": 5.0}
    text = page.render_comparison(compare_runs([replace(fast, seconds=seconds), slow]), coverages)
    table = text.partition("<h2>Verdicts</h2>")[2].partition("</table>")[0]
    cells = [
        [html.unescape(re.sub(r"<[^>]+>|\s+", " ", cell)).strip() for cell in found]
        for line in re.findall(r"<tr.*?</tr>", table, re.DOTALL)
        if (found := re.findall(r"<t[hd].*?</t[hd]>", line, re.DOTALL))
    ]
    heading, first, second = cells
    columns = [heading.index(name) for name in ("training", "sampling")]
    assert heading.index("NLL") < columns[0]
    assert heading.index("gain over the prior") < columns[0]
    assert [first[k] for k in columns] == ["12 min 34 s", "3.2 s"]
    assert [second[k] for k in columns] == ["–", "–"]
    others = text.partition("Time of the other stages")[2].partition("</table>")[0]
    assert re.findall(r"<th(?: [^>]*)?>(.*?)</th>", others) == ["run", "pairs", "validate"]
