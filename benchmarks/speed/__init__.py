"""How fast this project is, beside what users would run instead and beside the limit that the model's own arithmetic
sets. Everything is measured by turns in one run, on the same machine, weights and texts; figures are ratios.

    python -m benchmarks.speed

See docs/speed.md.
"""
