"""The folder in which shards wait for the daemon, and how many bytes of them may, of all processes together."""

import contextlib
import fcntl
import json
import os
import pathlib
import secrets
import time

BUFFERS = 512  # that one call writes


def header_of(tensors, metadata):
    """The header of a safetensors file. `tensors`: name -> (type, shape, bytes)."""
    entries, at = {"__metadata__": metadata}, 0
    for name, (kind, shape, size) in tensors.items():
        entries[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write_all(file, buffers):
    """Writes buffers one behind the other."""
    for at in range(0, len(buffers), BUFFERS):
        waiting = [memoryview(buffer).cast("B") for buffer in buffers[at : at + BUFFERS]]
        while waiting:
            written = os.writev(file, waiting)
            while waiting and written >= len(waiting[0]):
                written -= len(waiting.pop(0))
            if waiting:
                waiting[0] = waiting[0][written:]


class Folder:
    """Where this process puts shards. A process id says little in a container, so names have a random word."""

    def __init__(self, path, max_bytes):
        self.path, self.max_bytes = pathlib.Path(path).absolute(), max_bytes
        self.word, self.count = secrets.token_hex(6), 0
        self.path.mkdir(parents=True, exist_ok=True)
        with self._alone():
            for part in self.path.glob(".tap-*.part"):
                self._remove_if_abandoned(part)

    @contextlib.contextmanager
    def _alone(self):
        """While no other tap of vLLM's looks how much room there is."""
        with open(self.path / ".tap.lock", "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @staticmethod
    def _remove_if_abandoned(part):
        """Who writes a file holds a lock on it."""
        try:
            with open(part, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink()
        except (BlockingIOError, FileNotFoundError):
            pass

    def waiting(self):
        """Bytes of shards that wait, and of those that are being written."""
        total = 0
        with os.scandir(self.path) as entries:
            for entry in entries:
                hidden = entry.name.startswith(".")
                if entry.name.endswith(".part" if hidden else ".safetensors"):
                    try:
                        total += entry.stat().st_size
                    except FileNotFoundError:
                        pass  # the daemon took it
        return total

    def has_room(self, size):
        return self.waiting() + size <= self.max_bytes

    def put(self, header, buffers, size):
        """Writes a shard of `size` bytes and gives it its name: whether there was room."""
        self.count += 1
        name = f"{time.time_ns():020d}-{self.word}-{self.count:06d}"
        part = self.path / f".tap-{name}.part"
        with contextlib.ExitStack() as stack:
            with self._alone():
                if not self.has_room(size):
                    return False
                file = stack.enter_context(open(part, "xb", buffering=0))
                fcntl.flock(file, fcntl.LOCK_EX)
                os.truncate(file.fileno(), size)  # others count it from now on
            try:
                write_all(file.fileno(), [header, *buffers])
                os.rename(part, self.path / f"{name}.safetensors")
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        return True
