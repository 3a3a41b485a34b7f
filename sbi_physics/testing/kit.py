"""Running checks: from a notebook (records and a table) or from pytest (one test for each check).

A check is a plain function of a case. It returns when the promise is kept, raises
`ConformanceError` with a full sentence when it is broken, and `NotApplicable` with the reason when
it cannot be asked.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sbi_physics.engine import Engine
from sbi_physics.errors import ConformanceError, ContractError, unknown_name
from sbi_physics.posterior import Posterior
from sbi_physics.simulator import Simulator
from sbi_physics.testing.cases import EngineCase, NotApplicable, PosteriorCase, SimulatorCase
from sbi_physics.testing.engine_checks import ENGINE_CHECKS
from sbi_physics.testing.posterior_checks import POSTERIOR_CHECKS
from sbi_physics.testing.simulator_checks import SIMULATOR_CHECKS

if TYPE_CHECKING:
    import pytest

OUTCOMES: Final = ("passed", "failed", "skipped")

_CASES: Final[tuple[tuple[type, type[Any]], ...]] = (
    (Simulator, SimulatorCase),
    (Engine, EngineCase),
    (Posterior, PosteriorCase),
)


@dataclass(frozen=True, slots=True)
class CheckRecord:
    """The result of one check.

    Attributes:
        name: Name of the check.
        outcome: `passed`, `failed` or `skipped`.
        reason: Why it failed or was skipped; empty if it passed.
        seconds: How long it took.
    """

    name: str
    outcome: str
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True, repr=False)
class ConformanceReport(Sequence[CheckRecord]):
    """The results of all checks; printing it shows a table.

    Attributes:
        subject: What was checked.
        records: One for each check, in order.
    """

    subject: str
    records: tuple[CheckRecord, ...]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: Any) -> Any:
        return self.records[index]

    def __iter__(self) -> Iterator[CheckRecord]:
        return iter(self.records)

    @property
    def failed(self) -> tuple[CheckRecord, ...]:
        """The checks that failed."""
        return tuple(r for r in self.records if r.outcome == "failed")

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    def __repr__(self) -> str:
        width = max((len(r.name) for r in self.records), default=0)
        lines = [
            f"{r.outcome:8}{r.name:{width + 2}}{r.seconds:6.1f} s  {r.reason}".rstrip()
            for r in self.records
        ]
        counts = [f"{sum(r.outcome == o for r in self.records)} {o}" for o in OUTCOMES]
        return "\n".join([f"{self.subject}: {', '.join(counts)}", *lines])


def check_simulator(
    make: Callable[[], Simulator],
    *,
    checks: Sequence[Callable[..., None]] = SIMULATOR_CHECKS,
    **options: Any,
) -> ConformanceReport:
    """Check that a simulator keeps its promises.

    Args:
        make: Builds a fresh simulator: the class itself, or a function that sets options.
        checks: Some of the checks.
        **options: Fields of `SimulatorCase`: `seed`, `n_draws`, `reference_points`.

    Example:
        >>> from sbi_physics.testing import ToyGaussian, check_simulator
        >>> check_simulator(ToyGaussian).passed
        True
    """
    return _report(checks, SimulatorCase(make, **options))


def check_engine(
    make: Callable[[], Engine],
    *,
    checks: Sequence[Callable[..., None]] = ENGINE_CHECKS,
    **options: Any,
) -> ConformanceReport:
    """Check that an engine keeps its promises, on problems with known answers.

    Args:
        make: Builds a fresh engine: usually the class itself.
        checks: Some of the checks.
        **options: Fields of `EngineCase`: `settings`, `seed`, `n_train`, `budget_seconds`, ...
    """
    return _report(checks, EngineCase(make, **options))


def check_posterior(
    make: Callable[[], Posterior],
    *,
    checks: Sequence[Callable[..., None]] = POSTERIOR_CHECKS,
    **options: Any,
) -> ConformanceReport:
    """Check that a posterior keeps its promises.

    Args:
        make: Returns the posterior, for example `lambda: load_posterior("runs/toy/posterior")`.
        checks: Some of the checks.
        **options: Fields of `PosteriorCase`: `simulator` (to draw fresh pairs from), `seed`, ...
    """
    return _report(checks, PosteriorCase(make, **options))


def conformance(
    checks: Sequence[Callable[..., None]],
    make: Callable[[], Any],
    *,
    expected_failures: Mapping[str, str] | None = None,
    **options: Any,
) -> pytest.MarkDecorator:
    """Parametrise a pytest function over checks, one test id for each.

    Args:
        checks: `SIMULATOR_CHECKS`, `ENGINE_CHECKS` or `POSTERIOR_CHECKS`, or some of them.
        make: As for `check_simulator`, `check_engine` or `check_posterior`.
        expected_failures: Name of a check -> the reason why it cannot hold. Strict: when the check
            starts to pass, the test fails, so that the list never outlives its reasons.
        **options: Fields of the case.

    Raises:
        UnknownNameError: If an expected failure names no check.

    Example:
        >>> from sbi_physics.testing import SIMULATOR_CHECKS, ToyGaussian, conformance
        >>> @conformance(SIMULATOR_CHECKS, ToyGaussian)
        ... def test_conformance(check):
        ...     check()
    """
    import pytest

    expected = dict(expected_failures or {})
    for name in expected:
        if name not in {check.__name__ for check in checks}:
            raise unknown_name("check", name, [check.__name__ for check in checks])
    case = functools.cache(lambda: _case(make, options))

    def bound(check: Callable[..., None]) -> Callable[[], None]:
        def test() -> None:
            try:
                run(check, case())
            except NotApplicable as reason:
                pytest.skip(str(reason))

        return test

    return pytest.mark.parametrize(
        "check",
        [
            pytest.param(
                bound(check),
                id=check.__name__,
                marks=[
                    pytest.mark.xfail(
                        reason=expected[check.__name__], raises=ConformanceError, strict=True
                    )
                ]
                if check.__name__ in expected
                else [],
            )
            for check in checks
        ],
    )


def run(check: Callable[..., None], case: Any) -> None:
    """Run one check.

    Raises:
        ConformanceError: If the promise is broken, or the subject raised an error of any kind.
        NotApplicable: If the check cannot be asked of this subject.
    """
    try:
        check(case)
    except (ConformanceError, NotApplicable):
        raise
    except Exception as error:  # foreign code under test may raise anything, and that is a finding
        raise ConformanceError(
            f"{case.name!r} raised {type(error).__name__} in {check.__name__}: {error}"
        ) from error


def _report(checks: Sequence[Callable[..., None]], case: Any) -> ConformanceReport:
    return ConformanceReport(case.name, tuple(_record(check, case) for check in checks))


def _record(check: Callable[..., None], case: Any) -> CheckRecord:
    start = time.perf_counter()
    outcome, reason = "passed", ""
    try:
        run(check, case)
    except ConformanceError as error:
        outcome, reason = "failed", str(error)
    except NotApplicable as error:
        outcome, reason = "skipped", str(error)
    return CheckRecord(check.__name__, outcome, reason, time.perf_counter() - start)


def _case(make: Callable[[], Any], options: Mapping[str, Any]) -> Any:
    """Build the case that fits what `make` returns."""
    subject = make()
    for base, case in _CASES:
        if isinstance(subject, base):
            return case(make, **options)
    raise ContractError(
        f"the conformance kit checks simulators, engines and posteriors; {make!r} made {subject!r}"
    )
