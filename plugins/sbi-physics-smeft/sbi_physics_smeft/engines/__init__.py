"""Engines that learn likelihood ratios from parton-level labels.

- `smearing`: fractional smearing of events with outlying labels.
- `morphing`: bases of a quadratic, their conditioning and their choice.
- `label_data`: batches of data, labels and weights.
- `network`: perceptrons for many members at once, and what their outputs mean.
- `particles`, `lgatr_network`: the same from measured particles, Lorentz-equivariant.
- `build`: networks as settings ask for them.
- `losses`: regression, cross-entropy, ALICE and ROLR; repulsion between members.
- `settings`: what both engines let users choose.
- `gram_posterior`: the trained ratio, as posterior and as likelihood.
- `label_engine`: what both engines do: events, labels, networks, training.
- `derivative`, `morphing_engine`: the engines.
- `pulls`: are an ensemble's errors as large as it says?
- `pull_study`: the same over independent ensembles, with errors.
"""
