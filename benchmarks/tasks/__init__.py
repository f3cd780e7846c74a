"""The table of tasks: data sets times models times seeds, on one base.

python -m benchmarks.tasks run --data DATA     train and score what is missing; stop and start it as you like
python -m benchmarks.tasks report              print the table, write it and the plot
"""
