"""Diagnostics of amortised posteriors: pure functions of arrays, one file each.

- `ranks`: probability integral transforms of the truth among posterior draws (simulation-based
  calibration).
- `swap`: exact p-values by exchanging the truth with a draw.
- `tarp`: distances to random references.
- `regression`: features of the data, and a linear regression on them.
- `moments`: the conditional-moment test; `dependence`: the sizes of what it sees.
- `uniformity`: tests of uniformity, effect sizes, Holm adjustment.
- `bands`: simultaneous bands of an empirical distribution function, Clopper-Pearson intervals.
- `expected_coverage`: coverage of highest-posterior-density regions.
- `block_density`: density of a block of parameters estimated from draws.
- `information`: scores, information gain, contraction, z-scores.
- `evaluation`: one pass over the draws of many observations, in batches.
- `verdict`: effect sizes with tolerances and the one verdict.

Nothing here knows simulators, engines or files; `sbi_physics.validate` puts them together.
"""
