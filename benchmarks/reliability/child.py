"""A case in a forked process.

Python with torch and spaCy takes seconds to start, a fork takes none. The process can be killed at any moment, have a
full or a read-only disk, and report what it saw.
"""

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
# SQLite's messages about a disk.
SQLITE = ("database or disk is full", "readonly database", "disk I/O error", "unable to open database file")
# A case that takes longer than these seconds hangs.
PATIENCE = 100.0
SCRATCH = "tmp"
# Events of Python's audit hooks that may change files. Libraries in other languages are seen where Python calls them.
TOUCHES = frozenset({"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "shutil.copyfile"})


def in_child(job: Callable[[], None], place: Path, *, seconds: float | None = None, touches: int | None = None) -> bool:
    """Run a job in a forked process.

    Its standard streams go to a file beside its folder, and its temporary files into a folder inside.

    place (Path): The case's folder, which is the process's current one.
    seconds (float | None): Kill it after this time.
    touches (int | None): Kill it before it touches files in its folder for the n-th time.
    RETURNS (bool): Whether it ran to its end.
    RAISES (Broken): It raised an exception, died for another reason, or hangs.
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
        raise Broken(f"it hangs: more than {PATIENCE:.0f} seconds")
    if text:
        raise Broken(text)
    if status == 0:
        return True
    if status == signal.SIGKILL and (may_be_killed or not ready):
        return False
    raise Broken(f"the process died with status {status}")


def _run(job: Callable[[], None], place: Path, writing: int, touches: int | None) -> None:
    """Run the job in the child process. Never returns."""
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
        lines = [f"{type(error).__name__}: {error}\n", *traceback.format_tb(error.__traceback__, limit=-6)]
        os.write(writing, "".join(lines).encode(errors="replace"))
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
    """The seconds that a job takes, and how often it touches files in its folder."""
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
    """Put temporary files into a folder of the case, so that files left behind are noticed."""
    folder = place / SCRATCH
    folder.mkdir(exist_ok=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    yield


class Disk:
    """A disk of a few hundred kilobytes, mounted over a folder for this forked, single-threaded process only.

    It is a tmpfs in a mount namespace of its own. Without the permission for that, a limit on the size of files stands
    in for the full disk (`EFBIG` for `ENOSPC`), and the folder's permissions for the read-only one.

    folder (Path): The mount point.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.mounted = self._own_namespace() and self._mount(b"tmpfs", 0, b"size=64m")

    def hold(self, size: int) -> None:
        """Limit the disk to a size in bytes, which must not be smaller than its content."""
        if self.mounted:
            if not self._mount(None, MS_REMOUNT, f"size={size}".encode()):
                raise OSError(ctypes.get_errno(), "the tmpfs cannot be made smaller")
        else:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    def free(self) -> None:
        """Remove the limit, and allow writing."""
        if self.mounted:
            self._mount(None, MS_REMOUNT, b"size=64m")
        else:
            most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
            _permit(self._folder, True)

    def read_only(self) -> None:
        """Allow no writing."""
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


def is_disk_message(error: BaseException) -> bool:
    """Whether an error is of a kind that the commands show, and says what is wrong with the disk."""
    if not isinstance(error, OSError | ValueError):
        return False
    reasons = [os.strerror(code) for code in (errno.ENOSPC, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)]
    return any(reason in str(error) for reason in (*reasons, *SQLITE))


def size_of(folder: Path) -> int:
    """The size of a folder's files in bytes, in whole pages, as a tmpfs counts them."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


def fresh(folder: Path) -> Path:
    """An empty folder, in place of whatever was there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
