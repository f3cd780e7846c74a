"""The campaign: what pipelines, bases and runs have to bear, thousands of times over, each case from its number alone.

    python -m benchmarks.reliability                                   run what has no result yet, print the table
    python -m benchmarks.reliability --parts documents --share 0.01    a hundredth of one part
    python -m benchmarks.reliability --part documents --case 4711      one case alone, here, with its whole traceback
    python -m benchmarks.reliability --again                           those that broke, once more
    python -m benchmarks.reliability --report                          write the table into docs/reliability.md

A run that was stopped goes on with the same command. The exit status is 1 if anything broke.
"""
