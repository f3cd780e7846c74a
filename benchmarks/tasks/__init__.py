"""The table of tasks: data sets times models times seeds, on one base.

python -m benchmarks.tasks tune --data DATA    try the settings that all models share, on two development sets
python -m benchmarks.tasks show-tuning         print what that found
python -m benchmarks.tasks run --data DATA     train and score what is missing; stop and start it as you like
python -m benchmarks.tasks report              print the table, write it and the plot

DATA is a folder of data sets as `benchmarks.tasks.sets` lists them, such as labelling/wnut17/train.iob.
"""
