"""Which layers to unmask, on three tasks: the full grid, halving and greedy, and predictors of the ranking.

python -m benchmarks.masks run --data DATA     train and score what is missing; stop and start it as you like, and start
                                               it several times at once
python -m benchmarks.masks report              print the tables, write them and the plots

Masks are chosen on the development set. The test set is scored under every mask, but only to see whether the choice was
right.
"""
