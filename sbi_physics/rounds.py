r"""Simulations of several truncated rounds together.

Draws from a prior truncated to a box B that fall inside a smaller box B' are independent draws
from the prior truncated to B':

.. math:: p(\theta|B)\, 1[\theta \in B'] \propto p(\theta)\, 1[\theta \in B'], \qquad B' \subset B.

So what earlier rounds simulated inside the present box is as good as what the present round
simulates, without weights.
"""

from __future__ import annotations

from collections.abc import Mapping

from sbi_physics.errors import StoreError
from sbi_physics.priors import Prior
from sbi_physics.simulations import Simulations
from sbi_physics.simulator import Simulator
from sbi_physics.store import SimulationStore


def simulations_within(
    store: SimulationStore,
    prior: Prior,
    rows: Mapping[int, int],
    *,
    simulator: Simulator | None = None,
) -> Simulations:
    """Return the valid rows of several rounds that lie inside a truncated prior.

    Args:
        store: The store; it may be open for appending.
        prior: Prior over all parameters; that of every round, truncated to a box inside its own.
        rows: How many rows of each round to look at, from its first.
        simulator: The simulator behind the store, where the registry does not know it.

    Raises:
        StoreError: If a round has fewer rows, or was drawn from a prior that does not contain
            this one.
    """
    for round, n in rows.items():
        reason = _why_not(store.prior(round), prior)
        if store.n_rows(round) < n:
            reason = f"it has {store.n_rows(round)} of {n} rows"
        if reason:
            raise StoreError(
                f"round {round} of {store!r} is of no use for the truncated prior: {reason}"
            )
    parts = [
        part
        for round, n in sorted(rows.items())
        for part in store.parts(round, n, None if store.prior(round) == prior else prior)
    ]
    return Simulations(
        store, parts, rounds=tuple(sorted(rows)) or (0,), prior=prior, simulator=simulator
    )


def _why_not(outer: Prior, inner: Prior) -> str:
    """Say why draws from `outer` inside `inner` are no draws from it; empty if they are."""
    if outer.names != inner.names:
        return f"it is over {', '.join(outer.names)}, asked is {', '.join(inner.names)}"
    rules = [sorted(c.expression for c in p.constraints) for p in (outer, inner)]
    if rules[0] != rules[1]:
        return f"it has the constraints {rules[0]}, asked are {rules[1]}"
    for name in inner.names:
        wide, narrow = (p.parameters[name].distribution for p in (outer, inner))
        low, high = narrow.bounds
        contained = wide.bounds[0] <= low and high <= wide.bounds[1]
        if wide != narrow and not (contained and wide.truncate(low, high) == narrow):
            return f"{name} was drawn from {wide}, which is not {narrow} on a larger interval"
    return ""
