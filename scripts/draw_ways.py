"""Draw what a layer sees with each way to see right: docs/images/ways.svg.

python scripts/draw_ways.py
"""

from pathlib import Path

import numpy as np
from matplotlib import pyplot

IMAGE = Path(__file__).resolve().parent.parent / "docs" / "images" / "ways.svg"
WORDS = ["book", "a", "flight", "to", "Boston"]
# Colours of the copy whose states count, and of the copy before it.
BLUE, GREY = (0.0, 0.447, 0.698), (0.6, 0.6, 0.6)


def panels() -> dict[str, np.ndarray]:
    """By title, the weight with which each piece (row) sees each other piece (column)."""
    n = len(WORDS)
    causal = np.tri(n)
    return {
        'causal: unmask = "none"': causal,
        'unmasked: unmask = "all"': np.ones((n, n)),
        "unmask_warmup, at t = 0.3": np.where(causal > 0, 1.0, 0.3),
        'repeat = 1 over unmask = "none"': np.tri(2 * n),
        'repeat = 1 over unmask = "all"': np.ones((2 * n, 2 * n)),
    }


def main() -> None:
    pyplot.rcParams |= {"svg.hashsalt": "ways", "font.size": 9}
    shown = panels()
    widths = [len(seen) for seen in shown.values()]
    figure = pyplot.figure(figsize=(9, 6.8), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.7))
    rows = [above.subplots(1, 3), below.subplots(1, 2)]
    for axes, (title, seen), size in zip([*rows[0], *rows[1]], shown.items(), widths, strict=True):
        colours = np.where(np.arange(size)[:, None, None] < size - len(WORDS), GREY, BLUE)
        axes.imshow(1 - seen[..., None] * (1 - colours))
        words = WORDS * (size // len(WORDS))
        axes.set_xticks(range(size), words, rotation=90)
        axes.set_yticks(range(size), words)
        axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="lightgrey", linewidth=0.5)
        axes.tick_params(which="both", length=0)
        axes.set_title(title, fontsize=10)
    figure.savefig(IMAGE, metadata={"Date": None})


if __name__ == "__main__":
    main()
