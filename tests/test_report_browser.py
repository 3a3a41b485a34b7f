"""The pages in a real browser: nothing loaded from elsewhere, nothing complained about, no page
wider than a phone, dark figures on dark screens and light ones on paper.

Set SBI_PHYSICS_SCREENSHOTS to a folder to keep pictures of what was looked at.
"""

from __future__ import annotations

import os
import re
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from headless import Browser

from sbi_physics.compare import compare_runs, gather
from sbi_physics.coverage import Coverage
from sbi_physics.diagnostics.verdict import Effect, TestResult
from sbi_physics.distributions import LogUniform, Normal
from sbi_physics.parameters import Parameter
from sbi_physics.priors import Prior
from sbi_physics.report import ReportInput, write_coverage, write_report
from sbi_physics.report.comparison import write_comparison
from sbi_physics.testing import ToyGaussian
from sbi_physics.validate_arrays import validate_draws

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

PRIOR = Prior(
    [
        Parameter("a_name_as_long_as_physics_has_them", LogUniform(1e-3, 1e3), unit="1e-11 GeV-1"),
        Parameter("b", Normal(0, 1), label=r"\Gamma"),
    ]
)
DARK_BELOW, LIGHT_ABOVE = 60, 200  # mean grey value of a figure's corner


def made(width: float = 1.0) -> Coverage:
    rng = np.random.default_rng(1)
    n = 220
    scaled = np.stack([rng.uniform(-3, 3, n), rng.standard_normal(n)], axis=1)
    draws = scaled[:, None] + width * 0.2 * (
        rng.standard_normal((n, 1, 2)) / width + rng.standard_normal((n, 49, 2))
    )
    draws[..., 0] = 10 ** np.clip(draws[..., 0], -3, 3)
    truth = np.stack([10 ** scaled[:, 0], scaled[:, 1]], axis=1)
    record = validate_draws(truth, draws, x=scaled, prior=PRIOR, rng=rng)
    # Every kind of quantity, test and effect that a record may hold.
    more = {"tarp_u": rng.random(n), "tarp_x": rng.random(n), "hpd": rng.random(n)}
    pit = {**record.pit, **{k: v for k, v in more.items() if k not in record.pit}}
    moment = TestResult("moment", "moment", "swap", 4.0, 0.3, 0.9, n, "12 features")
    effects = [
        Effect("correlation", f"moment:{','.join(PRIOR.names)}", 0.02, -0.05, 0.09, (-0.1, 0.1)),
        Effect("x-slope", "moment:b", 0.3, 0.2, 0.4, (-0.1, 0.1)),
    ]
    return replace(
        record, pit=pit, tests=(*record.tests, moment), effects=(*record.effects, *effects)
    )


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    good = made()
    runs = gather({"a run": good, "a_run_with_a_name_that_does_not_end": made(0.5)})
    toy = ToyGaussian(dimension=4, kind="spectrum")
    rng = np.random.default_rng(1)
    study = ReportInput(
        title="toy-gaussian with " + "a-very-long-engine-name-" * 4,
        simulator=toy.identity,
        simulator_summary=toy.summary,
        engine="exact",
        settings={"hidden_features": 64, "max_seconds": None},
        prior=toy.prior,
        table=[],
        samples=toy.prior.sample(500, rng),
        observable=toy.observable,
        observation=toy.simulate(toy.prior.sample(1, rng), rng)[0],
        observation_source="a simulation",
        coverage=good,
        hashes={"pairs": "ab" * 32},
        config="simulator: toy-gaussian\noptions: {" + "dimension: 4, " * 20 + "}\n",
        seconds={"train": 3.0},
    )
    return {
        "coverage": write_coverage(good, folder / "coverage.html", title="draws.npz"),
        "compare": write_comparison(
            compare_runs(runs), {r.name: r.coverage for r in runs}, folder / "compare"
        ),
        "report": write_report(study, folder / "report"),
    }


@pytest.fixture(scope="module")
def browser(chromium, tmp_path_factory):
    opened = Browser(chromium, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


PAGES = ("coverage", "compare", "report")
WINDOWS = [(1280, False), (1280, True), (360, False), (360, True)]


def keep(browser: Browser, name: str) -> None:
    if folder := os.environ.get("SBI_PHYSICS_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        browser.screenshot(Path(folder) / f"{name}.png")


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(("width", "dark"), WINDOWS)
def test_a_page_needs_nothing_complains_of_nothing_and_fits(browser, pages, page, width, dark):
    browser.open(pages[page].as_uri(), width=width, dark=dark)
    keep(browser, f"{page}-{width}-{'dark' if dark else 'light'}")
    assert browser.complaints == []
    assert browser.requests == [pages[page].as_uri()]
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    # What is wider scrolls inside its own box; nothing sticks out of the page.
    outside = browser.evaluate(
        """[...document.querySelectorAll("main *")].filter(e => !e.closest(".scroll, .pan, pre"))
             .filter(e => e.getBoundingClientRect().right > window.innerWidth + 0.5)
             .map(e => e.tagName + "." + e.className)"""
    )
    assert outside == []


@pytest.mark.parametrize("page", PAGES)
def test_every_figure_is_shown_and_has_words(browser, pages, page):
    browser.open(pages[page].as_uri(), width=1280)
    figures = browser.evaluate(
        """[...document.querySelectorAll("figure")].map(f => {
             const i = f.querySelector("img");
             return [i.complete && i.naturalWidth > 0, i.alt, f.innerText]})"""
    )
    assert len(figures) >= 5
    for loaded, alt, text in figures:
        assert loaded
        assert len(alt) > 20
        assert text.startswith("How to read this.")
    assert all(
        browser.evaluate("[...document.querySelectorAll('table')].map(t => t.rows.length > 0)")
    )


# A change of medium makes the browser load another source, and decoding fails until it is there.
CORNER = """(async () => {
  const i = document.querySelector("figure img"), c = document.createElement("canvas");
  for (let tries = 50; ; tries--) {
    try { await i.decode(); break; }
    catch (error) { if (!tries) throw error; await new Promise(wait => setTimeout(wait, 100)); }
  }
  c.width = c.height = 4;
  const p = c.getContext("2d"); p.drawImage(i, 0, 0, 4, 4, 0, 0, 4, 4);
  return p.getImageData(1, 1, 1, 1).data[0]})()"""


def test_figures_follow_the_colour_scheme(browser, pages):
    address = pages["coverage"].as_uri()
    browser.open(address, width=1280, dark=False)
    assert browser.evaluate(CORNER) > LIGHT_ABOVE
    light = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    browser.open(address, width=1280, dark=True)
    assert browser.evaluate(CORNER) < DARK_BELOW
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") != light


def test_paper_is_white_even_where_the_screen_is_dark(browser, pages):
    browser.open(pages["report"].as_uri(), width=1280, dark=True)
    scheme = {"name": "prefers-color-scheme", "value": "dark"}
    browser.call("Emulation.setEmulatedMedia", media="print", features=[scheme])
    keep(browser, "report-print")
    # The browser goes on showing the former source until the one for paper is loaded.
    for _ in range(50):
        if browser.evaluate(CORNER) > LIGHT_ABOVE:
            break
        time.sleep(0.1)
    else:
        pytest.fail("the figures of the printed page stay dark")
    style = "getComputedStyle(document.body)"
    assert browser.evaluate(f"{style}.backgroundColor") == "rgb(255, 255, 255)"
    assert browser.evaluate(f"{style}.color") == "rgb(0, 0, 0)"


def test_a_page_can_be_printed(browser, pages):
    browser.open(pages["report"].as_uri(), width=1280)
    printed = browser.pdf()
    assert printed.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type /Page\b", printed)) <= 14
    streams = re.findall(rb"stream\r?\n(.*?)endstream", printed, re.DOTALL)
    assert any(zlib.decompressobj().decompress(s, 10) for s in streams if s[:1] == b"\x78")
    if folder := os.environ.get("SBI_PHYSICS_SCREENSHOTS"):
        (Path(folder) / "report.pdf").write_bytes(printed)


def test_text_can_be_read_in_both_schemes(browser, pages):
    """Contrast of text against its card of at least 4.5 (WCAG 2.1 AA)."""
    for dark in (False, True):
        browser.open(pages["compare"].as_uri(), width=1280, dark=dark)
        colours = browser.evaluate(
            """[...document.querySelectorAll("section p, section td, section strong, section b")]
                 .filter(e => e.innerText.trim())
                 .map(e => [getComputedStyle(e).color,
                            getComputedStyle(e.closest("section")).backgroundColor])"""
        )
        pairs = {tuple(c) for c in colours}
        assert len(pairs) >= 3
        for front, back in pairs:
            assert contrast(front, back) >= 4.5, (dark, front, back)


def contrast(front: str, back: str) -> float:
    first, second = sorted((luminance(front), luminance(back)))
    return (second + 0.05) / (first + 0.05)


def luminance(colour: str) -> float:
    rgb = np.array([int(v) for v in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(rgb <= 0.03928, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
