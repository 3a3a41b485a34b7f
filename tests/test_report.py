from __future__ import annotations

import re
from dataclasses import dataclass, replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from sbi_physics.compare import compare
from sbi_physics.comparison import Comparison
from sbi_physics.coverage import Recovery
from sbi_physics.diagnostics.verdict import Effect, TestResult
from sbi_physics.distributions import LogUniform, Uniform
from sbi_physics.parameters import Parameter
from sbi_physics.progress import SILENT
from sbi_physics.report import (
    ReportInput,
    render_coverage,
    render_report,
    write_coverage,
    write_report,
)
from sbi_physics.report.comparison import write_comparison
from sbi_physics.report.text import duration, number, p_value, symbol, unit
from sbi_physics.simulate import simulate
from sbi_physics.testing import ToyGaussian
from sbi_physics.testing.known_answers import known_case
from sbi_physics.training import TrainingHistory
from sbi_physics.validate import validate
from sbi_physics.validate_arrays import validate_draws

VOID = {"meta", "img", "source", "br", "link"}


@dataclass(frozen=True)
class Row:
    name: str
    median: float
    interval_68: tuple[float, float]
    interval_95: tuple[float, float]
    truth: float | None
    edges: tuple[str, ...]


class Page(HTMLParser):
    """Collects what a page loads and checks that tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.alts: list[str] = []
        self.mismatched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.loads += [values[k] for k in ("src", "srcset", "href", "data") if k in values]
        if tag == "img":
            self.alts.append(values.get("alt", ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        while (
            self.open and self.open[-1] in ("tr", "td", "th", "li", "p") and self.open[-1] != tag
        ):
            self.open.pop()
        if not self.open or self.open.pop() != tag:
            self.mismatched.append(tag)


@pytest.fixture(scope="module")
def record() -> ReportInput:
    toy = ToyGaussian(kind="spectrum", noise=0.4)
    posterior = toy.reference_posterior()
    pairs = simulate(toy, 250, seed=1, purpose="pairs", progress=SILENT)
    rng = np.random.default_rng(1)
    theta = toy.theta("offset")
    x = toy.simulate(theta[None], rng)
    samples = posterior.sample(x, 1500, rng)[0]
    rows = [
        Row(
            name,
            *(float(np.median(column)),),
            tuple(np.quantile(column, (0.16, 0.84))),
            tuple(np.quantile(column, (0.025, 0.975))),
            float(value),
            ("upper",) if name == "theta_1" else (),
        )
        for name, column, value in zip(posterior.prior.names, samples.T, theta, strict=True)
    ]
    loss = tuple(float(v) for v in 2 + np.exp(-np.arange(20) / 5))
    return ReportInput(
        title="toy <study> & more",
        simulator=toy.identity,
        simulator_summary=toy.summary,
        engine="exact",
        settings={"max_epochs": 20, "max_seconds": None},
        prior=posterior.prior,
        table=rows,
        samples=samples,
        observable=toy.observable,
        observation=x[0],
        observation_source="a simulation at the fiducial point 'offset'",
        coverage=validate(posterior, pairs, n_draws=99, seed=1, progress=SILENT),
        simulation_prior=toy.prior,
        predictive=toy.simulate(samples[:50], rng),
        history=TrainingHistory(loss, loss, 19, 3.0, "max_epochs"),
        n_simulations=5000,
        n_invalid=3,
        seconds={"simulate": 12.0, "train": 75.4},
        seeds={"run": 7},
        versions={"python": "3.11"},
        hashes={"pairs": "ab" * 32},
        citations=["Someone et al., arXiv:0000.00000"],
        config="simulator: toy-gaussian\n",
        machine="2 cores",
    )


@pytest.fixture(scope="module")
def written(record, tmp_path_factory) -> Path:
    return write_report(record, tmp_path_factory.mktemp("report") / "out")


@pytest.fixture(scope="module")
def page(written) -> str:
    return written.read_text(encoding="utf-8")


def test_the_page_stands_alone_and_is_well_formed(record, written, page):
    assert written.name == "report.html"
    parsed = Page(page)
    assert parsed.mismatched == []
    assert parsed.open == []
    assert parsed.loads.pop(0) == "data:,"  # the icon that browsers would ask for
    assert all(item.startswith("data:image/png;base64,") for item in parsed.loads)
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)
    # Each figure is there for light and dark.
    assert len(parsed.loads) == 2 * (7 + len(record.coverage.quantities))
    assert all(len(alt) > 20 for alt in parsed.alts)
    names = {p.name for p in (written.parent / "figures").iterdir()}
    assert names == {
        f"{n}.png"
        for n in ("corner", "observation", "coverage", "pp", "recovery", "loss", "local")
    } | {f"ranks-{q.replace(':', '-')}.png" for q in record.coverage.quantities}


def test_the_page_says_what_was_found_and_what_was_run(record, page):
    for expected in (
        record.coverage.verdict,
        "How to read this",
        "Clopper–Pearson",
        "toy-gaussian",
        "1 min 15 s",
        "ab" * 32,
        "arXiv:0000.00000",
        "arXiv:2110.06581",
        "simulator: toy-gaussian",
        "reaches the prior's upper edge",
        "5000 valid, 3 failed",
        "max_epochs",
        "tolerance",
    ):
        assert expected in re.sub(r"\s+", " ", page) or expected in page, expected
    verdict, table = page.index('class="word"'), page.index("<h2>Posterior")
    assert verdict < table


def test_user_text_is_escaped(page):
    assert "toy &lt;study&gt; &amp; more" in page
    assert "<study>" not in page


def test_the_expected_coverage_table_holds_the_numbers_of_the_record(record, page):
    for level in (0.383, 0.683, 0.90, 0.954):
        value, low, high = record.coverage.ecp(level)
        cell = rf"{value:.3f}\s*<span class=\"soft\">\[{low:.3f}, {high:.3f}\]"
        assert re.search(cell, page)


def test_a_study_with_less_to_show_still_has_a_page(record):
    rng = np.random.default_rng(1)
    draws_only = replace(
        record,
        simulator=None,
        predictive=None,
        history=None,
        simulation_prior=None,
        seconds={},
        table=[replace(r, truth=None) for r in record.table],
        coverage=validate(
            lambda x, n: rng.uniform(-1, 1, (len(x), n, 2)),
            simulate(ToyGaussian(noise=0.4), 60, seed=3, purpose="pairs", progress=SILENT),
            n_draws=19,
            seed=1,
            progress=SILENT,
        ),
    )
    page = render_report(draws_only)
    assert "INCONCLUSIVE" in page
    assert "Training</h2>" not in page
    assert Page(page).mismatched == []


def test_quantities_tests_and_effects_of_any_kind_show_up_by_themselves(record):
    u = (np.arange(200) + 0.5) / 200
    coverage = replace(
        record.coverage,
        pit={**record.coverage.pit, "tarp_u": u**2, "tarp_x": u, "novel:theta_1": u},
        tests=(
            *record.coverage.tests,
            TestResult("moment", "moment", "swap", 3.0, 0.2, 0.4, 200, "7 features"),
        ),
        effects=(
            *record.coverage.effects,
            Effect("correlation", "moment:theta_1,theta_2", 0.2, 0.15, 0.25, (-0.1, 0.1)),
            Effect("x-slope", "moment:theta_1", 0.0, -0.05, 0.05, (-0.1, 0.1)),
            Effect("novel", "novel:theta_1", 0.5, 0.05, 0.9, (-0.1, 0.1)),
        ),
    )
    text = re.sub(r"\s+", " ", render_coverage(coverage, title="all kinds"))
    parsed = Page(text)
    assert parsed.mismatched == []
    assert parsed.open == []
    rows = {cells[0]: cells for cells in table_rows(text) if cells}
    # ECP = mean(u <= level) = sqrt(level) where u is the credibility.
    assert float(rows["theta_1, theta_2: TARP (random points)"][3][:5]) == pytest.approx(
        np.sqrt(0.9), abs=0.006
    )
    assert rows["moment"][-1] == "7 features"
    assert rows["correlation"][1:] == ["moment:theta_1,theta_2", "0.200", "[0.150, 0.250]",
                                       "[-0.1, 0.1]", "outside"]  # fmt: skip
    assert rows["x-slope"][-1] == "inside"
    assert rows["novel"][-1] == "undecided"
    alts = " ".join(parsed.alts)
    assert "novel:theta_1: stays inside the 95 % band" in alts
    assert "TARP (random points): leaves the 95 % band above" in alts
    for family in ("sbc", "hpd", "tarp_u", "tarp_x", "moment"):
        assert f"<code>{family}</code>" in text


def test_a_page_about_a_record_alone_says_what_is_known(record, tmp_path):
    path = write_coverage(record.coverage, tmp_path / "c.html", title="a & b")
    text = path.read_text(encoding="utf-8")
    assert Page(text).mismatched == []
    assert "a &amp; b" in text
    assert record.coverage.provenance["pairs"]["digest"] in text
    # Draws from elsewhere know nothing about their origin.
    bare = replace(
        record.coverage, provenance={}, recovery=Recovery(np.empty((0, 2)), np.empty((0, 5, 2)))
    )
    text = render_coverage(bare)
    assert Page(text).mismatched == []
    assert "Recovery of known" not in text


def test_the_page_shows_where_a_posterior_is_wrong(tmp_path):
    rng = np.random.default_rng(1)
    arrays = known_case("xscale", 1000, rng).arrays(99, rng)
    coverage = validate_draws(rng=rng, **arrays)
    page = write_coverage(coverage, tmp_path / "c.html").read_text(encoding="utf-8")
    worst = coverage.local.deviating()
    assert "Where is it calibrated?" in page
    assert f"{len(worst)} of {coverage.local.n_tests} cells deviate" in page
    assert f"{len(worst)} cells deviate; the worst is {worst[0].quantity} for" in page
    assert f"<h4>{worst[0].quantity} in bins of the data</h4>" in page
    bins = f"{worst[0].low:.3g} to {worst[0].high:.3g}"
    listed = [row for row in table_rows(page) if bins in row]
    assert any(row[0] == worst[0].quantity and row[3] == str(worst[0].n) for row in listed)
    plain = write_coverage(replace(coverage, local=None), tmp_path / "p.html")
    assert "Where is it calibrated?" not in plain.read_text(encoding="utf-8")


def test_a_comparison_has_a_page(record, tmp_path):
    other = replace(record.coverage, log_q=record.coverage.log_q - 1.0)
    records = {"one <b>": record.coverage, "two": other}
    comparison = compare(records)
    path = write_comparison(comparison, records, tmp_path / "side")
    text = path.read_text(encoding="utf-8")
    parsed = Page(text)
    assert parsed.mismatched == []
    assert "<b>one <b>" not in text
    assert "one &lt;b&gt;" in text
    assert Comparison.from_json(tmp_path / "side" / "compare.json") == comparison
    assert all(item.startswith("data:") for item in parsed.loads)
    assert "has a lower NLL than all others on the same pairs" in text
    rows = [cells for cells in table_rows(text) if cells[:2] == ["one <b>", "two"]]
    assert rows[0][2] == "-1.000 ± 0.000"
    assert rows[0][5] == "one <b>"
    assert "Benjamini" in text


def table_rows(text: str) -> list[list[str]]:
    """Text of the cells of every table row."""
    cells = re.compile(r"<td[^>]*>(.*?)</td>", re.DOTALL)
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", text, re.DOTALL)
    plain = [[re.sub(r"<[^>]*>", "", c) for c in cells.findall(row)] for row in rows]
    return [[" ".join(unescape(c).split()) for c in row] for row in plain]


@pytest.mark.parametrize(
    ("label", "html"),
    [
        ("m_a", "<i>m<sub>a</sub></i>"),
        (r"g_{a\gamma}", "<i>g<sub>aγ</sub></i>"),
        (r"\Gamma", "<i>Γ</i>"),
        (r"\mathrm{B}_0^2", None),
        (r"\frac{a}{b}", "x"),
        ("", "x"),
    ],
)
def test_symbols_become_html_or_fall_back_to_the_name(label, html):
    found = str(symbol(Parameter("x", Uniform(0, 1), label=label)))
    assert "\\" not in found
    assert "{" not in found
    if html is not None:
        assert found == html


def test_units_numbers_and_times_read_well():
    assert unit("1e-11 GeV-1") == "10<sup>−11</sup> GeV<sup>−1</sup>"
    assert unit("uG") == "µG"
    assert unit("<b>") == "&lt;b&gt;"
    assert number(12.345, 0.21) == "12.35"
    assert number(-0.5) == "−0.500"
    assert number(3.2e-9) == "3.20×10<sup>−9</sup>"
    assert p_value(0.0321) == "0.032"
    assert p_value(1.3e-9) == "1.3×10<sup>−9</sup>"
    assert p_value(0.0) == "&lt;10<sup>−300</sup>"
    assert [duration(s) for s in (3.21, 42, 75.4, 4000)] == [
        "3.2 s",
        "42 s",
        "1 min 15 s",
        "1 h 6 min",
    ]


def test_a_logarithmic_prior_is_described_in_the_page(record):
    parameter = Parameter("g", LogUniform(1e-2, 1e2), unit="1e-11 GeV-1", label="g")
    prior = type(record.prior)([parameter, record.prior.parameters[1]])
    samples = np.abs(record.samples) + 0.1
    rows = [replace(record.table[0], name="g"), record.table[1]]
    page = render_report(replace(record, prior=prior, samples=samples, table=rows))
    assert "10<sup>−11</sup> GeV<sup>−1</sup>" in page
    assert "log10" in page
