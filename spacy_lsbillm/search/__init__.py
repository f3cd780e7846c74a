"""The search for the best way to see right: which layers to unmask, and which other settings go with them.

The words of this package: a *way* is a mask plus the settings in which it differs from the config. A *training* is one
run under one way, with a seed and a number of steps. In a *shared training* the mask changes from step to step, and
every mask gets a score. The *study* stores the trainings. The *experiment* is the config that is searched.
"""
