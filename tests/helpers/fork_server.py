"""The server from which tests fork processes that must not be forked from the tests' own, which has threads.

multiprocessing starts one when it is first needed, and what that has imported depends on who was first. All processes
import more or less the same, which takes seconds: so tests start it before, with all of it.
"""

import multiprocessing
import os
from multiprocessing import forkserver

from places import HELPERS, REPOSITORY


def start() -> None:
    """Start the server, unless it runs."""
    before = os.environ.get("PYTHONPATH")
    # The server does not take over the paths of this process.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HELPERS), str(REPOSITORY), *([before] if before else [])])
    multiprocessing.set_forkserver_preload(["fork_server_imports"])
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
