"""Seeded histories of steps, fold and store: whatever happens between, the rows follow from what was applied.

`python -m tests.faults.histories --count 20000` runs so many; `--seed 17` runs that one again.
"""
