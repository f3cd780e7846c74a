"""A case in a forked process: Python with torch and spaCy takes seconds to start, a fork takes none. The process can be
killed at any moment, have a full disk or one that is read-only, and tells what it saw."""

import contextlib
import ctypes
import errno
import faulthandler
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from .part import Broken

# <sched.h> and <sys/mount.h>.
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_RDONLY, MS_REMOUNT, MS_REC, MS_PRIVATE = 1, 32, 0x4000, 0x40000
# What SQLite says of a disk.
SQLITE = ("database or disk is full", "readonly database", "disk I/O error", "unable to open database file")
# A case that takes longer than this has come to a standstill.
PATIENCE = 100.0
SCRATCH = "tmp"
# What changes files, as Python's audit hooks see it; libraries in other languages are seen where Python calls them.
TOUCHES = frozenset({"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "shutil.copyfile"})


def in_child(job: Callable[[], None], place: Path, *, seconds: float | None = None, touches: int | None = None) -> bool:
    """Run a job in a forked process, whose standard streams go to a file in its folder and whose temporary files go to
    one beside.

    place (Path): The case's folder, which is the current one of the process.
    seconds (float | None): Kill it after so many.
    touches (int | None): Kill it before it touches the files in its folder for the so many-th time.
    RETURNS (bool): Whether it came to its end.
    RAISES (Broken): It said so, raised anything else, died of something else, or came to a standstill.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _run(job, place, writing, touches)
    os.close(writing)
    try:
        return _wait(child, reading, seconds, may_be_killed=touches is not None)
    finally:
        os.close(reading)


def _wait(child: int, reading: int, seconds: float | None, may_be_killed: bool) -> bool:
    ready, _, _ = select.select([reading], [], [], PATIENCE if seconds is None else seconds)
    if not ready:
        os.kill(child, signal.SIGKILL)
    text = b"".join(iter(lambda: os.read(reading, 1 << 16), b"")).decode(errors="replace")
    _, status = os.waitpid(child, 0)
    if not ready and seconds is None:
        raise Broken(f"it came to a standstill: {PATIENCE:.0f} seconds")
    if text:
        raise Broken(text)
    if status == 0:
        return True
    if status == signal.SIGKILL and (may_be_killed or not ready):
        return False
    raise Broken(f"the process died with status {status}")


def _run(job: Callable[[], None], place: Path, writing: int, touches: int | None) -> None:
    """In the child: it never returns."""
    code = 1
    try:
        log = os.open(place.with_name(f"{place.name}.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(log, stream)
        faulthandler.enable(file=log)
        if touches is not None:
            sys.addaudithook(_killing(place, touches))
        with scratch(place):
            os.chdir(place)
            job()
        code = 0
    except Broken as error:
        os.write(writing, str(error).encode(errors="replace"))
    except BaseException as error:
        told = [f"{type(error).__name__}: {error}\n", *traceback.format_tb(error.__traceback__, limit=-6)]
        os.write(writing, "".join(told).encode(errors="replace"))
    finally:
        os._exit(code)


def _killing(place: Path, touches: int) -> Callable[[str, tuple], None]:
    left = touches

    def hook(event: str, arguments: tuple) -> None:
        nonlocal left
        if event in TOUCHES and arguments and str(arguments[0]).startswith(str(place)):
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return hook


def count_touches(job: Callable[[], None], place: Path) -> tuple[float, int]:
    """How long a job takes, in seconds, and how often it touches files in its folder."""
    counter = place.with_name(f"{place.name}.count")

    def counted() -> None:
        count = 0

        def hook(event: str, arguments: tuple) -> None:
            nonlocal count
            if event in TOUCHES and arguments and str(arguments[0]).startswith(str(place)):
                count += 1

        sys.addaudithook(hook)
        job()
        counter.write_text(str(count), encoding="ascii")

    begun = time.monotonic()
    in_child(counted, place)
    return time.monotonic() - begun, int(counter.read_text(encoding="ascii"))


@contextlib.contextmanager
def scratch(place: Path) -> Iterator[None]:
    """Have temporary files in a folder of the case, so that what is left of them is seen."""
    folder = place / SCRATCH
    folder.mkdir(exist_ok=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    yield


class Disk:
    """A disk of a few hundred kilobytes over a folder of this process alone, which is forked and single-threaded: a
    tmpfs in a mount namespace of its own. Without the right to that, a limit on the size of any file stands for the
    full disk (`EFBIG` for `ENOSPC`), and the folder's permissions for the read-only one.

    folder (Path): Where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.mounted = self._own_namespace() and self._mount(b"tmpfs", 0, b"size=64m")

    def hold(self, size: int) -> None:
        """Have room for so many bytes; None less than what is in it."""
        if self.mounted:
            if not self._mount(None, MS_REMOUNT, f"size={size}".encode()):
                raise OSError(ctypes.get_errno(), "the tmpfs cannot be made smaller")
        else:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    def free(self) -> None:
        """Have room for anything, and let it be written."""
        if self.mounted:
            self._mount(None, MS_REMOUNT, b"size=64m")
        else:
            most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
            _permit(self._folder, True)

    def read_only(self) -> None:
        """Let nothing be written."""
        if self.mounted:
            self._mount(None, MS_REMOUNT | MS_RDONLY, None)
        else:
            _permit(self._folder, False)

    def _own_namespace(self) -> bool:
        if self._libc.unshare(CLONE_NEWNS) != 0:
            user, group = os.getuid(), os.getgid()
            if self._libc.unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0:
                return False
            Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
        return self._libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) == 0

    def _mount(self, kind: bytes | None, flags: int, options: bytes | None) -> bool:
        return self._libc.mount(kind, os.fsencode(self._folder), kind, flags, options) == 0


def _permit(folder: Path, allowed: bool) -> None:
    for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        path.chmod(0o755 if allowed else 0o555)


def is_told(error: BaseException) -> bool:
    """Whether an error is one that the commands show, and says what is the matter with the disk."""
    if not isinstance(error, OSError | ValueError):
        return False
    reasons = [os.strerror(code) for code in (errno.ENOSPC, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)]
    return any(reason in str(error) for reason in (*reasons, *SQLITE))


def size_of(folder: Path) -> int:
    """Bytes in a folder, in whole pages, as a tmpfs counts them."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


def fresh(folder: Path) -> Path:
    """An empty folder; what was there is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
