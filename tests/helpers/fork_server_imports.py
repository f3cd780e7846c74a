"""What the processes that tests fork from a server have imported, see `fork_server`.

It must not import the tests' other helpers for spaCy, which load pipelines.
"""

import gc
import os
from importlib import import_module

import peft  # noqa: F401
import pytest  # noqa: F401
from quicker import quicken_registries

from benchmarks.reliability.__main__ import PARTS
from spacy_lsbillm.annotation.workers import PRELOADED

for name in (*PRELOADED, *(f"benchmarks.reliability.{part}" for part in PARTS)):
    import_module(name)
# As in conftest.py.
quicken_registries()
os.fsync = lambda descriptor: None
# Some cases of the campaign collect garbage, which would traverse all that is imported.
gc.freeze()
