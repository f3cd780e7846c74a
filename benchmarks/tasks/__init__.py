"""The table of tasks: data sets times models times seeds, on one base.

python -m benchmarks.tasks tune --data DATA    try the settings that all models share, on two development sets
python -m benchmarks.tasks show-tuning         print the scores of these settings
python -m benchmarks.tasks run --data DATA     train and score missing cells; can be stopped and restarted at any time
python -m benchmarks.tasks report              print the table, write it and the plot

DATA is a folder of data sets with the paths that `benchmarks.tasks.sets` lists, such as labelling/wnut17/train.iob.
"""
