"""The last stage: figures and the report."""

from __future__ import annotations

from typing import Final

import numpy as np

from sbi_physics import __version__, registry
from sbi_physics.doctor import describe_machine
from sbi_physics.posterior import Posterior
from sbi_physics.report import ReportInput, write_report
from sbi_physics.seeding import generator
from sbi_physics.study.ledger import file_digest, partial_path, put_in_place, remove
from sbi_physics.study.plan import Plan
from sbi_physics.study.record import Study
from sbi_physics.study.stages import Workplace, posterior_digest
from sbi_physics.targets import block_posteriors
from sbi_physics.types import DataArray, FloatArray

_PREDICTIVE: Final = 100
"""Simulations from posterior draws shown beside the observation; never more than a tenth of the
training set, whose cost they would otherwise rival."""


def write_page(work: Workplace, study: Study) -> None:
    """Write `figures/` and `report.html`, each complete or not at all."""
    directory = work.directory
    inputs = {
        "posterior": posterior_digest(work),
        "samples": file_digest(directory / "samples.nc"),
        "coverage": file_digest(directory / "coverage.json"),
        "config": study.config.model_dump(mode="json"),
        "version": __version__,
    }

    def make() -> None:
        fresh = partial_path(directory / "report")
        fresh.mkdir()
        write_report(_record(work, study), fresh, progress=work.progress)
        put_in_place(fresh / "figures", directory / "figures")
        # The page comes last: where it is, the figures are.
        put_in_place(fresh / "report.html", study.report_path)
        remove(fresh)

    work.stage(
        "report",
        inputs,
        study.report_path,
        announce="figures and page",
        work=make,
        load=lambda: None,
    )


def _record(work: Workplace, study: Study) -> ReportInput:
    plan, posterior, machine = work.plan, study.posterior, describe_machine(work.directory)
    memory = machine.memory_available_gb
    return ReportInput(
        title=f"{plan.simulator.name} with {plan.engine.name}",
        simulator=plan.simulator.identity,
        simulator_summary=plan.simulator.summary,
        engine=plan.engine.name,
        settings=plan.config.settings,
        prior=posterior.prior,
        table=study.table(),
        samples=study.samples,
        observable=posterior.observable,
        observation=study.observation,
        observation_source=study.observation_source,
        coverage=study.coverage,
        simulation_prior=plan.prior,
        pair_samples=_pair_samples(plan, posterior),
        predictive=_predictive(plan, study.samples) if len(posterior.blocks) == 1 else None,
        history=posterior.context.history,
        truncation=posterior.context.truncation,
        n_simulations=len(study.simulations),
        n_invalid=study.simulations.n_invalid,
        seconds=work.ledger.seconds,
        seeds={"study": plan.seed},
        versions=posterior.context.versions,
        hashes={
            "simulations": study.simulations.digest(),
            "pairs": study.pairs.digest(),
            "posterior": posterior_digest(work),
        },
        citations=_citations(plan),
        config=(work.directory / "run.yaml").read_text(encoding="utf-8"),
        machine=f"{machine.platform}, {machine.cpus} processors"
        + ("" if memory is None else f", {memory:g} GB of memory available"),
    )


def _pair_samples(plan: Plan, posterior: Posterior) -> dict[tuple[str, ...], FloatArray]:
    """Draws of every pair that a marginal posterior answers for."""
    found = {}
    for k, part in enumerate(block_posteriors(posterior)):
        if isinstance(part, Posterior) and part is not posterior and part.prior.d == 2:
            rng = generator(plan.seed, "posterior", 1, k)
            draws = part.draw(plan.observed.x[None], plan.config.samples, rng)
            found[part.prior.names] = draws.theta[0]
    return found


def _predictive(plan: Plan, samples: FloatArray) -> DataArray | None:
    """Simulate data from posterior draws, other parameters drawn from the prior."""
    n = min(_PREDICTIVE, len(samples), plan.n_simulations // 10)
    rng = generator(plan.seed, "observation", 1)
    theta = plan.prior.sample(n, rng)
    chosen = rng.choice(len(samples), size=n, replace=False)
    theta[:, plan.prior.parameters.indices(plan.infer)] = samples[chosen]
    x = plan.simulator.simulate(theta, rng)
    finite = x[np.isfinite(x).reshape(n, -1).all(axis=1)]
    return finite if len(finite) else None


def _citations(plan: Plan) -> tuple[str, ...]:
    loaded = registry.current()
    simulator = loaded.simulators.get(plan.simulator.name)
    engine = loaded.engines.get(plan.engine.name)
    listed = [
        *plan.simulator.citation,
        *(simulator.spec.references if simulator else ()),
        *(engine.spec.references if engine else ()),
    ]
    return tuple(dict.fromkeys(listed))
