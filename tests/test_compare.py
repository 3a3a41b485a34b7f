"""Posteriors side by side, on closed-form Gaussians whose NLL differences are known.

Model: theta ~ N(0, 1), x = theta + N(0, 0.5^2); the exact posterior is N(0.8 x, 0.2). A posterior
whose width is w times the exact one has an excess NLL of ln w + (w^-2 - 1)/2 in one dimension.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import sbi_physics as sp
from sbi_physics.compare import compare, gather
from sbi_physics.comparison import Comparison, benjamini_hochberg, paired
from sbi_physics.coverage import Coverage
from sbi_physics.distributions import Normal
from sbi_physics.errors import ConfigError, UnknownNameError, ValidationError
from sbi_physics.parameters import Parameter
from sbi_physics.priors import Prior
from sbi_physics.progress import SILENT
from sbi_physics.validate_arrays import validate_draws

PRIOR = Prior([Parameter("a", Normal(0.0, 1.0))])
N = 2000


def made(
    width: float = 1.0, *, seed: int = 1, n: int = N, prior: Prior | None = PRIOR
) -> Coverage:
    rng = np.random.default_rng(seed)
    theta = rng.standard_normal((n, 1))
    mean = 0.8 * (theta + 0.5 * rng.standard_normal((n, 1)))
    sd = width * np.sqrt(0.2)
    draws = mean[:, None] + sd * rng.standard_normal((n, 99, 1))

    def density(points):
        z = (points - mean[:, None]) / sd
        return (-0.5 * z**2 - np.log(sd) - 0.5 * np.log(2 * np.pi))[..., 0]

    return validate_draws(
        theta, draws, x=mean, log_prob_true=density(theta[:, None])[:, 0],
        log_prob_draws=density(draws), normalized=True, prior=prior, rng=rng,
    )  # fmt: skip


@pytest.fixture(scope="module")
def exact() -> Coverage:
    return made()


@pytest.fixture(scope="module")
def wide() -> Coverage:
    return made(1.5)


def with_pairs(coverage: Coverage, digest: str) -> Coverage:
    """As if validated on simulated pairs with this content hash."""
    return replace(coverage, provenance={**coverage.provenance, "pairs": {"digest": digest}})


def test_the_paired_difference_is_the_closed_form_excess(exact, wide):
    result = compare({"exact": exact, "wide": wide})
    (found,) = result.differences
    excess = np.log(1.5) + (1.5**-2 - 1) / 2
    assert found.difference.mean == pytest.approx(-excess, abs=4 * found.difference.standard_error)
    # Per pair it is excess + (1 - w^-2)/2 (z^2 - 1), z standard normal.
    error = (1 - 1.5**-2) / np.sqrt(2 * N)
    assert found.difference.standard_error == pytest.approx(error, rel=0.15)
    assert found.better == "exact"
    turned = result.difference("wide", "exact")
    assert turned.difference.mean == -found.difference.mean
    assert turned.better == "exact"
    low, high = found.difference.interval
    assert turned.difference.interval == pytest.approx((-high, -low))
    assert turned.difference.lower_99 < turned.difference.mean


def test_pairing_is_far_sharper_than_comparing_means(exact, wide):
    (found,) = compare({"exact": exact, "wide": wide}).differences
    unpaired = np.hypot(exact.nll.standard_error, wide.nll.standard_error)
    assert found.difference.standard_error < 0.7 * unpaired


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda: made(seed=2), "the true parameters differ"),
        (lambda: replace(made(), log_q=None), "no normalised density"),
        (lambda: with_pairs(made(), "ab"), "the pairs differ"),
        (lambda: made(prior=Prior([Parameter("a", Normal(0.0, 2.0))])), "the priors differ"),
        (lambda: replace(made(), names=("b",)), "densities of a and of b"),
    ],
)
def test_what_is_not_about_the_same_pairs_is_not_compared(exact, change, reason):
    found = paired("one", exact, "two", change())
    assert found.difference is None
    assert found.better == ""
    assert reason in found.reason
    assert found.reason.startswith("not paired")


def test_equal_digests_pair_and_differing_ones_do_not(exact, wide):
    a, b = with_pairs(exact, "ab" * 32), with_pairs(wide, "ab" * 32)
    assert paired("a", a, "b", b).reason == "same pairs"
    assert paired("a", a, "b", with_pairs(wide, "cd" * 32)).difference is None
    # Without a hash of the data the page must say so.
    assert "nothing is recorded about the data" in paired("a", exact, "b", wide).reason


def test_runs_that_used_only_the_first_pairs_are_compared_on_those(exact, wide):
    digest = "ab" * 32
    short = replace(wide, log_q=wide.log_q[:500], log_prior=wide.log_prior[:500])
    found = paired("a", with_pairs(exact, digest), "b", with_pairs(short, digest))
    assert found.difference.n == 500
    expected = (wide.log_q[:500] - exact.log_q[:500]).mean()
    assert found.difference.mean == pytest.approx(expected)


def test_of_several_blocks_the_largest_is_scored(exact):
    blocks = {"sbc:a": exact.u("sbc:a"), "hpd:a": exact.u("hpd"), "hpd:b,c": exact.u("hpd")}
    several = replace(exact, names=("a", "b", "c"), pit=blocks)
    found = paired("one", exact, "several", several)
    assert "densities of a and of b, c" in found.reason


def test_an_infinite_density_is_explained_not_averaged(exact):
    broken = replace(exact, log_q=np.where(np.arange(N) == 3, np.inf, exact.log_q))
    found = paired("one", exact, "two", broken)
    assert found.difference is None
    assert "+inf" in found.reason


# --- false-discovery rate ---------------------------------------------------------------------


def test_adjusted_p_values_agree_with_the_step_up_rule():
    rng = np.random.default_rng(1)
    for _ in range(200):
        n = int(rng.integers(1, 12))
        p = np.where(rng.random(n) < 0.5, rng.random(n) ** 4, rng.random(n))
        ordered = np.sort(p)
        # The rule itself: reject all up to the largest p_(k) <= q k / n.
        passing = np.flatnonzero(ordered <= 0.05 * np.arange(1, n + 1) / n)
        threshold = ordered[passing[-1]] if len(passing) else -1.0
        rejected = [adjusted <= 0.05 for adjusted in benjamini_hochberg(p.tolist())]
        assert rejected == (p <= threshold).tolist()


def test_adjusted_p_values_never_fall_below_the_raw_ones():
    p = [0.04, 0.0, 1.0, 0.01, 0.01]
    adjusted = benjamini_hochberg(p)
    assert all(a >= b for a, b in zip(adjusted, p, strict=True))
    assert max(adjusted) <= 1.0
    assert benjamini_hochberg([0.03]) == [0.03]


def test_the_rule_keeps_its_false_discovery_rate():
    # 5 true and 5 false hypotheses; FDR of the rule = 0.05 * 5/10 exactly, for independent p.
    rng = np.random.default_rng(2)
    shares = []
    for _ in range(4000):
        p = np.concatenate([rng.random(5), rng.random(5) ** 8])
        rejected = np.array(benjamini_hochberg(p.tolist())) <= 0.05
        shares.append(rejected[:5].sum() / max(1, rejected.sum()))
    error = np.std(shares) / np.sqrt(len(shares))
    assert np.mean(shares) == pytest.approx(0.025, abs=4 * error)


def test_only_the_run_that_deviates_is_accused(exact, wide):
    result = compare({"exact": exact, "wide": wide, "again": made(seed=5)})
    assert result.not_calibrated == ("wide",)
    assert result.row("wide").p_adjusted == pytest.approx(3 * wide.p_global)
    assert result.row("wide").verdict == wide.verdict == "FAIL"


# --- the record -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result(exact, wide) -> Comparison:
    third = replace(made(seed=3), log_q=None, nll=None)
    return compare({"exact": exact, "wide": wide, "third": third})


def test_the_record_survives_json(result, tmp_path):
    text = result.to_json(tmp_path / "c.json")
    assert Comparison.from_json(tmp_path / "c.json") == result
    assert json.loads(text)["not_calibrated"] == ["wide"]
    assert (tmp_path / "c.json").read_text().strip() == text


def test_the_summary_has_everything(result):
    text = result.summary()
    for expected in (
        "exact",
        "FAIL",
        "not paired",
        "exact is better",
        "Benjamini-Hochberg",
        "wide",
    ):
        assert expected in text
    assert f"{result.row('exact').nll.mean:.3f}" in text
    assert "other stages" in text
    assert max(map(len, text.splitlines())) <= 110


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "not readable as JSON"),
        ("[1]", "holds list"),
        ('{"schema": 99}', "schema 99"),
        ('{"schema": 1}', "lacks the entry"),
    ],
)
def test_damaged_records_are_refused(tmp_path, content, text):
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(ValidationError, match=text):
        Comparison.from_json(tmp_path / "c.json")


def test_unknown_runs_are_refused(result):
    with pytest.raises(UnknownNameError, match="Did you mean 'exact'"):
        result.row("exct")
    with pytest.raises(ValidationError, match="two runs"):
        result.difference("exact", "exact")


# --- what can be compared ---------------------------------------------------------------------


def test_records_are_called_by_their_engine(exact, wide):
    names = [r.name for r in gather([exact, wide])]
    assert names == ["draws", "draws (2)"]
    assert gather([exact, wide])[0].seconds["validate"] > 0


def test_files_and_folders_are_called_by_the_end_of_their_path(exact, tmp_path):
    for folder in ("one/toy", "two/toy", "two/other"):
        (tmp_path / folder).mkdir(parents=True)
        exact.to_json(tmp_path / folder / "coverage.json")
    exact.to_json(tmp_path / "third.json")
    listed = [tmp_path / p for p in ("one/toy", "two/toy", "two/other", "third.json")]
    assert [r.name for r in gather(listed)] == ["one/toy", "two/toy", "other", "third"]
    # The same folder twice is a comparison too: of a run with itself.
    assert [r.name for r in gather([listed[0], listed[0]])] == ["toy", "toy (2)"]


def test_studies_on_the_same_pairs_are_paired(tmp_path, monkeypatch):
    from sbi_physics.study import page

    def write_nothing(report, folder, progress):
        (folder / "figures").mkdir()
        (folder / "report.html").write_text("<html>")

    monkeypatch.setattr(page, "write_report", write_nothing)
    studies = [
        sp.run(
            "toy-gaussian", "exact", directory=tmp_path / name, seed=seed, simulations=100,
            pairs=220, draws=99, samples=100, progress=SILENT,
        )
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]  # fmt: skip
    result = sp.compare(studies)
    assert [r.name for r in result.table] == ["a", "b", "c"]
    assert result.difference("a", "b").reason == "same pairs"
    assert result.difference("a", "b").difference.mean == 0.0
    assert result.difference("a", "c").reason == "not paired: the pairs differ"
    assert {"simulate", "train", "validate"} <= set(result.row("a").seconds)
    # The folders say the same, without loading a posterior.
    folders = compare([s.directory for s in studies])
    assert folders.differences == result.differences


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda c, d: [c], ValidationError, "at least two runs, got 1"),
        (lambda c, d: c, ValidationError, "a list or a mapping"),
        (lambda c, d: "runs", ValidationError, "a list or a mapping"),
        (lambda c, d: [c, d / "none"], ConfigError, "no run directory or file"),
        (lambda c, d: [c, d], ConfigError, "no coverage.json"),
    ],
)
def test_what_cannot_be_compared_is_refused(exact, tmp_path, make, error, text):
    with pytest.raises(error, match=text):
        compare(make(exact, tmp_path))
