"""Which layers to unmask, on three tasks: the full grid, halving and greedy search, and predictors of the ranking.

python -m benchmarks.masks run --data DATA     train and score what is missing; can be stopped and restarted, and run in
                                               several processes at once
python -m benchmarks.masks report              print the tables, write them and the plots

Masks are chosen on the development set. The test set is scored under every mask, but only to see whether the choice was
right.
"""
