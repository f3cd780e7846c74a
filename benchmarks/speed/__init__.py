"""How fast this project is, compared with alternatives and with the limit that the model's arithmetic sets.

    python -m benchmarks.speed

Everything is measured in turn in one run, on the same machine, weights and texts; the figures are ratios. See
docs/speed.md.
"""
