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
- `local`: calibration in bins of the data.
- `lc2st`: a classifier test at one observation.
- `frequentist`: coverage at fixed parameters, and critical values that give it.
- `balance`: balance and normalisation of ratio estimators.
- `information`: scores, information gain, contraction, z-scores.
- `evaluation`: one pass over the draws of many observations, in batches.
- `verdict`: effect sizes with tolerances and the one verdict.

But for `check_balance`, nothing here knows posteriors, simulators or files; `sbi_physics.validate`
puts them together.
"""
