"""What ships with the core passes its own kit; plugins have a file like this one."""

from __future__ import annotations

from pathlib import Path

import pytest

from sbi_physics.errors import ConformanceError, UnknownNameError
from sbi_physics.testing import (
    ENGINE_CHECKS,
    POSTERIOR_CHECKS,
    SIMULATOR_CHECKS,
    ExactEngine,
    NotApplicable,
    ReferencePoint,
    SimulatorCase,
    ToyBimodal,
    ToyGaussian,
    ToyTwoStage,
    check_simulator,
    conformance,
    reference_point,
)
from sbi_physics.testing.reference import reference_points_are_reproduced

# Starting processes takes seconds and does not depend on the kind of data.
IN_PROCESS = [c for c in SIMULATOR_CHECKS if c.__name__ != "works_in_another_process"]


@conformance(SIMULATOR_CHECKS, ToyGaussian)
def test_toy_gaussian(check):
    check()


@conformance(
    SIMULATOR_CHECKS,
    ToyTwoStage,
    # Hits and monitor at position 1 mm, offset -0.5 mm: their means and spreads by hand.
    reference_points=[
        ReferencePoint("shifted", (0.5, 0.5, 0.5, 0.5, -0.5), (*[0.29**0.5] * 4, 0.3), draws=2000)
    ],
)
def test_toy_two_stage(check):
    check()


@conformance(IN_PROCESS, ToyBimodal)
def test_toy_bimodal(check):
    check()


@conformance(IN_PROCESS, lambda: ToyGaussian(kind="set", dimension=3))
def test_toy_with_sets(check):
    check()


@conformance(IN_PROCESS, lambda: ToyGaussian(kind="image", dimension=8))
def test_toy_with_images(check):
    check()


@conformance(ENGINE_CHECKS, ExactEngine)
def test_exact_engine(check):
    check()


@conformance(
    POSTERIOR_CHECKS, lambda: ToyTwoStage().reference_posterior(), n_pairs=1000, n_draws=999
)
def test_exact_posterior(check):
    check()


def test_a_report_is_a_table_of_records():
    report = check_simulator(ToyBimodal, checks=IN_PROCESS)
    assert [r.name for r in report] == [check.__name__ for check in IN_PROCESS]
    assert report.passed
    assert {r.outcome for r in report} == {"passed", "skipped"}
    assert all(r.reason for r in report if r.outcome == "skipped")
    table = repr(report).splitlines()
    assert table[0].startswith("toy-bimodal: ")
    assert "0 failed" in table[0]
    assert len(table) == 1 + len(IN_PROCESS)
    assert "the simulator has one stage" in repr(report)


class Undocumented(ToyBimodal):
    summary = ""


class Failing(ToyBimodal):
    def _simulate(self, theta, rng):
        raise ZeroDivisionError("division by zero")


def test_failures_are_in_the_report_with_their_reason():
    report = check_simulator(Undocumented, checks=IN_PROCESS)
    assert not report.passed
    failed = {r.name: r.reason for r in report.failed}
    assert "lacks a summary" in failed["declarations_are_complete"]


def test_an_error_of_the_subject_is_a_failure_not_a_crash():
    reasons = {r.name: r.reason for r in check_simulator(Failing, checks=IN_PROCESS).failed}
    assert "ZeroDivisionError" in reasons["output_follows_theta"]


def test_something_else_is_not_checked():
    with pytest.raises(ConformanceError, match="not a Simulator"):
        check_simulator(dict)


def parameters_of(decorator):
    (mark,) = [decorator.mark]
    return {p.id: p for p in mark.args[1]}


def test_an_expected_failure_is_strict_and_keeps_its_reason():
    marked = conformance(
        SIMULATOR_CHECKS, ToyBimodal, expected_failures={"stages_compose": "not written yet"}
    )
    (xfail,) = parameters_of(marked)["stages_compose"].marks
    assert xfail.kwargs == {
        "reason": "not written yet",
        "raises": ConformanceError,
        "strict": True,
    }
    assert not parameters_of(marked)["spec_loads"].marks


def test_an_unknown_expected_failure_is_an_error():
    with pytest.raises(UnknownNameError, match="'stages_compose'"):
        conformance(SIMULATOR_CHECKS, ToyBimodal, expected_failures={"stage_compose": "typo"})


def test_what_cannot_be_asked_is_skipped_with_its_reason():
    run = parameters_of(conformance(SIMULATOR_CHECKS, ToyBimodal))["stages_compose"].values[0]
    with pytest.raises(pytest.skip.Exception, match="one stage"):
        run()


def test_nothing_is_built_when_tests_are_collected():
    def make():
        raise NotApplicable("built")

    conformance(SIMULATOR_CHECKS, make)


def test_reference_points_are_made_from_a_simulator():
    toy = ToyGaussian(kind="spectrum")
    point = reference_point(toy, "offset", draws=500)
    assert len(point.mean) == len(point.sd) == 8
    case = SimulatorCase(lambda: ToyGaussian(kind="spectrum"), reference_points=[point])
    reference_points_are_reproduced(case)
    shifted = ReferencePoint("centre", point.mean, point.sd, point.draws)
    with pytest.raises(ConformanceError, match="mean of summary number"):
        reference_points_are_reproduced(SimulatorCase(case.make, reference_points=[shifted]))


def test_importing_the_package_costs_nothing():
    import subprocess
    import sys

    code = "import sys, sbi_physics.testing; sys.exit(bool({'numpy', 'pytest'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("checks", [SIMULATOR_CHECKS, ENGINE_CHECKS, POSTERIOR_CHECKS])
def test_the_page_says_of_every_check_what_its_docstring_says(checks):
    page = (Path(__file__).parents[1] / "docs" / "conformance.md").read_text(encoding="utf-8")
    rows = [f"| `{c.__name__}` | {c.__doc__.splitlines()[0]} |" for c in checks]
    assert [row for row in rows if row not in page] == []
