"""Fixtures for all tests.

The tests of the backbone run without spaCy, so nothing of it is imported here.
"""

import gc
import os
import time
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path

# This must be set before torch is imported. Threads in processes that tests start would busy-wait for each other, and
# take processor time from the other tests.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from quicker import quicken_registries, quicken_tokenizers

# What takes long to import is imported inside functions: the process that distributes the tests needs none of it, and
# only starts the others when it has read this file.


def pytest_collection() -> None:
    """Prepare a process that runs tests; xdist's own process, which distributes them, does not get here."""
    # Imported objects stay, so that searching them for garbage is a fifth of the time for importing all tests.
    gc.disable()

    from hypothesis import HealthCheck, settings

    # The time of an example depends on other load on the machine.
    settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("unhurried")
    # Files written by tests need not survive a power failure, and on a busy disk syncing takes a tenth of a short
    # training.
    os.fsync = lambda descriptor: None
    quicken_registries()


@pytest.fixture(scope="session")
def make_base(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """make_base(family, seed=0, **config): the folder of a tiny randomly initialised model, made once per session."""
    from tiny import make_model, make_tokenizer

    made: dict[str, Path] = {}

    def make(family: str = "llama", seed: int = 0, start: bool = True, **config) -> Path:
        key = f"{family} {seed} {start} {config}"
        if key not in made:
            folder = tmp_path_factory.mktemp(family)
            tokenizer = make_tokenizer(start)
            make_model(family, seed, len(tokenizer), **config).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            made[key] = folder
        return made[key]

    return make


@pytest.fixture(scope="session")
def fork_server() -> None:
    """The server that processes are forked from runs, and has imported what they need."""
    import fork_server

    fork_server.start()


# Those that take half a minute or more.
LONG_FILES = (
    "tests/backbone/test_families.py",
    "tests/benchmarks/",
    "tests/pipeline/test_component.py",
    "tests/pipeline/test_pipeline.py",
    "tests/search/",
    "tests/training/",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests in slow.txt as slow, and put long files first.

    Slow are all cases of a listed function but its first ones, and those that use a listed fixture.
    """
    listed = Path(__file__).with_name("slow.txt").read_text(encoding="utf8").splitlines()
    fast = dict(line.split() for line in listed if not line.startswith("#"))
    # Long files come first, so that no process ends long before the others.
    items.sort(key=lambda item: not item.nodeid.startswith(LONG_FILES))
    seen: Counter[str] = Counter()
    for item in items:
        function = item.nodeid.partition("[")[0]
        seen[function] += 1
        used = (f"{function.partition('::')[0]}::{name}" for name in getattr(item, "fixturenames", ()))
        if seen[function] > int(fast.get(function, len(items))) or any(name in fast for name in used):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef, request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Report how long the fixtures take that several tests share and name, for scripts/list_slow_tests.py."""
    begun = time.perf_counter()
    try:
        return (yield)
    finally:
        item = request._pyfuncitem
        if fixturedef.scope != "function" and fixturedef.argname in item.fixturenames:
            taken = f"{fixturedef.baseid}::{fixturedef.argname} {time.perf_counter() - begun:.3f}"
            item.user_properties.append(("fixture", taken))


def pytest_collection_finish() -> None:
    """Prepare for tests when all of them are imported: garbage collection begins, without the imported objects.

    Each training ends with a garbage collection, which took half a second to traverse all of them, a third of a short
    training.
    """
    gc.collect()
    gc.freeze()
    gc.enable()
    # If some test has imported spaCy.
    quicken_tokenizers()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Distribute whole files to processes, so that fixtures of a file are made once. They keep their order."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny tensors are slower on several threads."""
    import torch

    torch.set_num_threads(1)
