"""What engines built on torch share: coordinates, summary networks, the training loop, weights.

- `coordinates`: normal coordinates of the prior, in which networks work.
- `embedding`: summary networks by kind of observable.
- `settings`: settings of summary network and optimiser.
- `loop`: AdamW with schedule, early stopping and best weights, over batches of a store.
- `contrast`: losses of ratio estimation on pairs made inside a batch.
- `weights`: a network's weights as named arrays.

This is the only part of the core that imports torch, and nothing else in the core imports it: it
is for plugins, which declare torch themselves.
"""
