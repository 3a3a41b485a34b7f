"""What engines built on torch share: coordinates, summary networks, the training loop, weights.

- `coordinates`: normal coordinates of the prior, in which networks work.
- `embedding`: summary networks by kind of observable.
- `engine`: engines on one torch network.
- `device`: the processor, or an accelerator.
- `density`: conditional densities in these coordinates, and the posterior made of one.
- `blocks`: many observations and points in blocks that stay within the cache.
- `settings`: settings of optimiser and summary network.
- `loop`: AdamW with schedule, early stopping and best weights, over batches of a store.
- `contrast`: losses of ratio estimation on pairs made inside a batch.
- `ratio`: settings and loss of ratio estimation, and evaluation on pools.
- `weights`: a network's weights as named arrays.

This is the only part of the core that imports torch, and nothing else in the core imports it: it
is for plugins, which declare torch themselves.
"""
