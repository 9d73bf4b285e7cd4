"""The folder in which shards wait for the daemon, and how many bytes of them may, of all processes
together."""

import contextlib
import errno
import fcntl
import json
import math
import os
import pathlib
import secrets
import stat
import time

from .direct import Staging

SHARD_MODE, LOCK_MODE, FOLDER_MODE = 0o640, 0o660, 0o700  # rows are users' text; a folder's group reads it
PAUSE = ".qera-pause"  # while the daemon has this file in the folder, it asks for no more shards
AS_IT_IS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # no link is followed, and no pipe waited for


def header_of(tensors, metadata):
    """The header of a safetensors file. `tensors`: name -> (type, shape, bytes)."""
    entries, at = {"__metadata__": metadata}, 0
    for name, (kind, shape, size) in tensors.items():
        entries[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def make_folder(path):
    """Makes a folder and those above it that are not there, for this user alone."""
    if not path.parent.is_dir():
        make_folder(path.parent)
    try:
        path.mkdir(mode=FOLDER_MODE)
    except FileExistsError:
        if not path.is_dir():
            raise


def create(path, access, mode):
    """A new file of this mode, whatever the umask."""
    file = os.open(path, access | os.O_CREAT | os.O_EXCL | AS_IT_IS, mode)
    try:
        os.fchmod(file, mode)
    except BaseException:
        os.close(file)
        raise
    return file


def open_file(path, access):
    """A file that is there; anything but a regular one is refused."""
    file = os.open(path, access | AS_IT_IS)
    if stat.S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    raise OSError(errno.EINVAL, "is no regular file", str(path))


def open_lock(path):
    """The lock, made where there is none. Another user's may be for reading only, which is enough,
    but for NFS."""
    with contextlib.suppress(FileExistsError):
        return create(path, os.O_RDWR, LOCK_MODE)
    with contextlib.suppress(PermissionError):
        return open_file(path, os.O_RDWR)
    try:
        return open_file(path, os.O_RDONLY)
    except PermissionError as error:
        why = "is another user's; users who share the folder need a group of its own, and the folder mode 2770"
        raise PermissionError(error.errno, why, str(path)) from None


class Folder:
    """Where this process puts shards. A process id says little in a container, so names have a
    random word."""

    def __init__(self, path, max_bytes):
        self.path, self.max_bytes = pathlib.Path(path).absolute(), max_bytes
        self.word, self.count, self.staging = secrets.token_hex(6), 0, Staging()
        self.asked_to_pause = False  # when it was looked at last
        make_folder(self.path)
        with self._alone():
            for part in self.path.glob(".tap-*.part"):
                self._remove_if_abandoned(part)

    @contextlib.contextmanager
    def _alone(self):
        """While no other tap of vLLM's looks how much room there is."""
        file = open_lock(self.path / ".tap.lock")
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)

    @staticmethod
    def _remove_if_abandoned(part):
        """Who writes a file holds a lock on it. What is no file, or not this user's to remove,
        stays."""
        with contextlib.suppress(OSError):
            file = open_file(part, os.O_RDONLY)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink()
            finally:
                os.close(file)

    def waiting(self):
        """Bytes of shards that wait, and of those that are being written; without end while the
        daemon asks for a pause."""
        total = 0
        with os.scandir(self.path) as entries:
            for entry in entries:
                if entry.name == PAUSE:
                    return math.inf
                hidden = entry.name.startswith(".")
                if entry.name.endswith(".part" if hidden else ".safetensors"):
                    try:
                        total += entry.stat().st_size
                    except FileNotFoundError:
                        pass  # the daemon took it
        return total

    def has_room(self, size):
        waiting = self.waiting()
        self.asked_to_pause = waiting == math.inf
        return waiting + size <= self.max_bytes

    def put(self, header, buffers, size):
        """Writes a shard of `size` bytes and gives it its name: whether there was room."""
        self.count += 1
        name = f"{time.time_ns():020d}-{self.word}-{self.count:06d}"
        part = self.path / f".tap-{name}.part"
        with contextlib.ExitStack() as stack:
            with self._alone():
                if not self.has_room(size):
                    return False
                file = create(part, os.O_WRONLY, SHARD_MODE)
                stack.callback(os.close, file)
                fcntl.flock(file, fcntl.LOCK_EX)
                os.truncate(file, size)  # others count it from now on
            try:
                self.staging.write(file, [header, *buffers])
                os.rename(part, self.path / f"{name}.safetensors")
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        return True
