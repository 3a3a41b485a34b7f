"""Can these pairs test that posterior? Refusals, and what is recorded about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sbi_physics.engine import package_versions
from sbi_physics.errors import ValidationError
from sbi_physics.posterior import Posterior
from sbi_physics.recalibrated import RECALIBRATIONS
from sbi_physics.store import Simulations


def check_pairs(posterior: Posterior, pairs: Simulations) -> None:
    """Refuse pairs that cannot test this posterior.

    Raises:
        ValidationError: Saying what differs, with both values.
    """
    context = posterior.context
    ours, theirs = context.simulator, pairs.identity
    if ours is not None and theirs is not None and ours != theirs:
        for what, a, b in (
            ("simulator", ours.name, theirs.name),
            ("simulator version", ours.version, theirs.version),
            *(
                (f"option {k!r}", ours.options.get(k), theirs.options.get(k))
                for k in {**ours.options, **theirs.options}
            ),
        ):
            if a != b:
                raise ValidationError(
                    f"the posterior was trained with {what} {a!r}, the pairs were simulated with "
                    f"{b!r}; simulate the pairs with the posterior's own simulator"
                )
    _check_prior(posterior, pairs)
    # A wrapped native object knows the shape of its data, not their kind, edges or units.
    known = ours is not None or posterior.observable.kind != "vector"
    same_shape = pairs.observable.shape == posterior.observable.shape
    if not same_shape or (known and pairs.observable != posterior.observable):
        raise ValidationError(
            f"the posterior takes {posterior.observable.kind} data of shape "
            f"{posterior.observable.shape}, the pairs hold {pairs.observable.kind} data of shape "
            f"{pairs.observable.shape}, or edges, units or transform differ"
        )


def check_streams(target: object, pairs: Simulations, training: Simulations | None) -> None:
    """Refuse pairs that were seen in training or in a recalibration.

    Args:
        target: What is validated; a posterior knows which simulations it was trained on.
        pairs: The pairs.
        training: The training simulations, where they are at hand.

    Raises:
        ValidationError: Saying what is shared.
    """
    trained = target.context.simulations if isinstance(target, Posterior) else {}
    if _is_same(trained, pairs) or (training is not None and training.overlaps(pairs)):
        raise ValidationError(
            f"the pairs overlap the training simulations (seed {pairs.seed}, purpose "
            f"{pairs.purpose!r}): validation on data seen in training is meaningless. Simulate "
            "fresh ones: simulate(..., purpose='pairs')"
        )
    for recalibration in trained.get(RECALIBRATIONS, ()):
        if _is_same(recalibration.get("pairs", {}), pairs):
            raise ValidationError(
                f"the pairs overlap those of the {recalibration.get('method')!r} recalibration "
                f"(seed {pairs.seed}, purpose {pairs.purpose!r}): what mended a posterior cannot "
                "test it. Simulate fresh ones: another purpose or another seed"
            )


def _is_same(known: Mapping[str, Any], pairs: Simulations) -> bool:
    """Whether pairs come from a recorded stream or have a recorded content."""
    same_stream = (
        pairs.seed is not None
        and known.get("seed") == pairs.seed
        and known.get("purpose") == pairs.purpose
        and not set(known.get("rounds", ())).isdisjoint(pairs.rounds)
    )
    return same_stream or ("digest" in known and known["digest"] == pairs.digest())


def _check_prior(posterior: Posterior, pairs: Simulations) -> None:
    reference = posterior.context.simulation_prior or posterior.prior
    for name in reference.names:
        if name not in pairs.parameters.names:
            raise ValidationError(
                f"the pairs have no parameter {name!r}; they have "
                f"{', '.join(pairs.parameters.names)}"
            )
        a, b = reference.parameters[name].distribution, pairs.parameters[name].distribution
        if a != b:
            raise ValidationError(
                f"the posterior's prior of {name} is {a}, the pairs were drawn from {b}; coverage "
                "holds only for pairs "
                "drawn from the posterior's own prior"
            )
    wanted = {c.expression for c in reference.constraints}
    given = {c.expression for c in pairs.prior.constraints}
    if wanted != given:
        raise ValidationError(
            f"the posterior's prior has constraints {sorted(wanted)}, the pairs were drawn with "
            f"{sorted(given)}"
        )


def pair_provenance(target: object, pairs: Simulations, n: int, seconds: float) -> dict[str, Any]:
    """Return what is recorded about a validation: engine, simulator, pairs, hashes, versions."""
    identity = pairs.identity
    record: dict[str, Any] = {
        "engine": "sampler",
        "simulator": None if identity is None else identity.to_dict(),
        "pairs": {
            "seed": pairs.seed,
            "purpose": pairs.purpose,
            "rounds": list(pairs.rounds),
            "n": n,
            "digest": pairs.digest(),
        },
        "seconds": seconds,
        "versions": core_versions(),
    }
    if isinstance(target, Posterior):
        record |= {
            "engine": target.context.engine,
            "training": dict(target.context.simulations),
            "training_seed": target.context.seed,
            "prior": target.prior.digest(),
            "versions": {**target.context.versions, **core_versions()},
        }
    return record


def core_versions() -> dict[str, str]:
    """Return the versions that a verdict depends on."""
    return package_versions(("sbi-physics", "numpy", "scipy"))
