"""The campaign: what pipelines, bases and runs must withstand, in thousands of cases that depend only on their number.

    python -m benchmarks.reliability                                   run missing cases, print the table
    python -m benchmarks.reliability --parts documents --share 0.01    run a hundredth of one part
    python -m benchmarks.reliability --part documents --case 4711      run one case in this process, with its traceback
    python -m benchmarks.reliability --again                           run the broken cases again
    python -m benchmarks.reliability --report                          write the table into docs/reliability.md

An interrupted run continues with the same command. The exit status is 1 if a case broke.
"""
