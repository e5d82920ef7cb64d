"""Writing files so that whoever reads them finds the old ones or the new ones, whole.

What is written goes into a hidden folder next to its target, is flushed to the disk, and only then
renamed. A process that is killed leaves the folder behind; the next one that saves to the same place
takes it away. A folder in use is locked, and the operating system drops the lock with the process, so
no two processes disturb each other and none ever waits.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence

try:
    import fcntl
except ImportError:  # Windows, where leftovers stay
    fcntl = None

__all__ = ["Staging", "replacing", "staging"]

_PLAN = "plan.json"
_MODE = "mode"  # an empty file, made as this process makes files
_SUFFIX = ".saving"
_PATIENCE = 5.0  # seconds


def _sync(path: str, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: str) -> None:
    """Have the names in a folder written to the disk, where the operating system can."""
    with contextlib.suppress(OSError):  # Windows opens no folder, some file systems sync none
        _sync(path, os.O_RDONLY)


def _inode(path: str) -> list[int]:
    found = os.lstat(path)
    return [found.st_dev, found.st_ino]


def _folders(target: str) -> str:
    """A pattern that matches the hidden folders of a target."""
    home, name = os.path.split(glob.escape(target))
    return os.path.join(home, f".{name}.*{_SUFFIX}")


class Staging:
    """The hidden folder in which the new files of one target are made.

    Args:
        target: the path that is being written; its folder must exist.
        folder: the hidden folder.
        locks: whether folders can be locked here.
    """

    def __init__(self, target: str, folder: str, locks: bool) -> None:
        self.home, self.folder = os.path.dirname(target), folder
        self._pattern, self._locks = _folders(target), locks

    def path(self, name: str) -> str:
        """Where to write the file that will be called ``name``."""
        return os.path.join(self.folder, name)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait while another process puts its files in place, which takes no time to speak of.

        Without it each of two could overlook the files of the other, which would then stay for ever.
        It gives up after some seconds: a signal handler that saves may have interrupted the other.
        """
        handle, deadline = None, time.monotonic() + _PATIENCE
        while self._locks and handle is None and time.monotonic() < deadline:
            handle = _lock(self.home)
            if handle is None:
                time.sleep(0.005)
        try:
            yield
        finally:
            if handle is not None:
                os.close(handle)

    def alone(self) -> bool:
        """Whether nobody else is writing the same target now.

        Of two that write at once, at least one finds the other.
        """
        return glob.glob(self._pattern) == [self.folder]

    def plan(self, until: str, new: Sequence[str], old: Sequence[str]) -> None:
        """Note what belongs to the file ``until``, for whoever has to finish or to clear up.

        Args:
            until: a file that is here; once it is in place, the new files count instead of the old.
            new: files that are here and will be put in place before it.
            old: files that are in place and are deleted after it, in this order; they may be missing.
        """
        places = [os.path.join(self.home, name) for name in old]
        files = {
            "new": {os.path.join(self.home, name): _inode(self.path(name)) for name in new},
            "old": {path: _inode(path) for path in places if os.path.lexists(path)},
        }
        with open(self.path(_PLAN), "w", encoding="utf-8") as file:
            json.dump({"until": until, **files}, file)
        self.sync(_PLAN)
        sync_folder(self.folder)

    def commit(self, until: str) -> None:
        """Put the file of the plan in place, then delete the old files."""
        sync_folder(self.home)
        self.put(until)
        sync_folder(self.home)
        self._carry_out()
        sync_folder(self.home)

    def _carry_out(self) -> None:
        """Delete the new files if they never came to count, else the old ones."""
        with open(self.path(_PLAN), "rb") as file:
            plan = json.load(file)
        for path, inode in plan[
            "new" if os.path.exists(self.path(plan["until"])) else "old"
        ].items():
            # What has another inode was put there by somebody else since.
            with contextlib.suppress(FileNotFoundError):
                if _inode(path) == inode:
                    os.unlink(path)

    def sync(self, name: str) -> None:
        """Have a file that was written here written to the disk: to be done before it is put in place."""
        _sync(self.path(name), os.O_RDWR)

    def put(self, name: str) -> None:
        """Give a file that was written its place, in one step; an old one passes on its mode."""
        source, target = self.path(name), os.path.join(self.home, name)
        shutil.copymode(target if os.path.isfile(target) else self.path(_MODE), source)
        os.replace(source, target)

    def discard(self) -> None:
        """Delete the folder, and what its plan says."""
        # Without a plan, or with one that is cut short, nothing has been put in place.
        with contextlib.suppress(OSError, ValueError):
            self._carry_out()
        shutil.rmtree(self.folder, ignore_errors=True)


def _lock(folder: str) -> int | None:
    """A handle that locks ``folder`` while it is open; None if another process has it."""
    if fcntl is None:
        return None
    handle = None
    try:
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return handle
    except OSError:  # also of a file system without locks
        if handle is not None:
            os.close(handle)
        return None


def _new_folder(target: str) -> tuple[str, int | None]:
    """A new hidden folder for ``target``, and the handle that locks it where there are locks."""
    home, name = os.path.split(target)

    def make() -> str:
        return tempfile.mkdtemp(_SUFFIX, f".{name}.", home)

    for _ in range(3 if fcntl is not None else 0):
        folder = make()
        handle = _lock(folder)
        if handle is not None:
            if os.path.isdir(folder):
                return folder, handle
            os.close(handle)
        # Between the two steps somebody may have taken it for a leftover.
        shutil.rmtree(folder, ignore_errors=True)
    return make(), None


@contextlib.contextmanager
def staging(target: str) -> Iterator[Staging]:
    """A new :class:`Staging` for ``target``, gone afterwards, as are those of killed processes."""
    for folder in glob.glob(_folders(target)):
        handle = _lock(folder)
        if handle is not None:
            Staging(target, folder, True).discard()
            os.close(handle)
    folder, handle = _new_folder(target)
    stage = Staging(target, folder, handle is not None)
    try:
        with open(stage.path(_MODE), "x"):
            pass
        yield stage
    except OSError as error:
        if str(error.filename).startswith(folder):
            error.filename = target  # which is what the caller knows
        raise
    finally:
        stage.discard()
        if handle is not None:
            os.close(handle)


@contextlib.contextmanager
def replacing(target: str) -> Iterator[str]:
    """Give a path to write to; the file takes the place of ``target`` when the block ends well.

    Args:
        target: the path to write, in a folder that exists.

    Examples:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "note.txt")
        >>> with replacing(str(path)) as temporary:
        ...     _ = pathlib.Path(temporary).write_text("whole")
        >>> path.read_text()
        'whole'
    """
    with staging(os.path.abspath(target)) as stage:
        name = os.path.basename(target)
        yield stage.path(name)
        stage.sync(name)
        stage.put(name)
        sync_folder(stage.home)
