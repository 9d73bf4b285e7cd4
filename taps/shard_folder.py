"""Shards of rows, and the folder in which they wait for qera-daemon."""

import fcntl
import json
import math
import os
import pathlib
import sys
import time

import numpy as np

DTYPES = ("f32", "f16", "bf16")  # of stored rows
PAUSE = ".qera-pause"  # while the daemon has this file in the folder, it asks for no more shards


def to_bf16(rows):
    bits = rows.view(np.uint32)
    rounded = (bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16
    return np.where(np.isfinite(rows), rounded, bits >> 16 | 0x40 * np.isnan(rows)).astype(np.uint16)


def encode(rows, dtype):
    """Rows as a shard has them: safetensors' word for the type, shape, bytes."""
    kind, data = "F32", rows
    if dtype == "bf16":
        kind, data = "BF16", to_bf16(rows)
    if dtype == "f16" and not np.abs(rows).max(initial=0) > np.finfo(np.float16).max:
        kind, data = "F16", rows.astype(np.float16)
    return kind, list(rows.shape), data.tobytes()


def safetensors_pieces(tensors, metadata):
    """A safetensors file in pieces; `tensors`: name -> (type, shape, bytes)."""
    header, at = {"__metadata__": metadata}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little"), text, *(data for _, _, data in tensors.values())]


def remove_if_abandoned(part):
    """Removes a file that nobody writes any more: who writes one holds a lock on it."""
    try:
        with open(part, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()
    except (BlockingIOError, FileNotFoundError):
        pass


class ShardFolder:
    """Where shards wait for the daemon, and how many bytes of them may."""

    def __init__(self, path, max_bytes, wait):
        self.path, self.max_bytes, self.wait, self.count = pathlib.Path(path), max_bytes, wait, 0
        self.said = False  # that the folder is full
        self.path.mkdir(parents=True, exist_ok=True)
        for part in self.path.glob(".tap-*.part"):  # of a tap that was killed
            remove_if_abandoned(part)

    def waiting(self):
        """Bytes of shards that wait; without end while the daemon asks for a pause."""
        sizes = 0
        for entry in os.scandir(self.path):
            if entry.name == PAUSE:
                return math.inf
            if entry.name.endswith(".safetensors") and not entry.name.startswith("."):
                try:
                    sizes += entry.stat().st_size
                except FileNotFoundError:
                    pass  # the daemon took it
        return sizes

    def has_room(self, size):
        until = time.monotonic() + self.wait
        while (waiting := self.waiting()) + size > self.max_bytes:
            if time.monotonic() >= until:
                return False
            self._say_full(waiting)
            time.sleep(min(0.2, self.wait))
        return True

    def _say_full(self, waiting):
        if not self.said:
            why = "qera-daemon asks for a pause" if waiting == math.inf else f"max_bytes {self.max_bytes}"
            full = f"tap: {self.path} is full ({why})"
            room = "for room, which the daemon makes with --consume delete, and not with its default, keep"
            print(f"{full}: waiting up to {self.wait:g} s a shard {room}", file=sys.stderr, flush=True)
        self.said = True

    def put(self, pieces):
        """Writes a shard and gives it its name, where there is room: whether there was."""
        size = sum(len(piece) for piece in pieces)
        if size > self.max_bytes:
            raise ValueError(f"a shard of {size} bytes is above max_bytes {self.max_bytes}; use shorter sequences")
        if not self.has_room(size):
            return False
        self.count += 1
        name = f"{time.time_ns():020d}-{self.count:06d}"
        part = self.path / f".tap-{name}.part"
        with open(part, "xb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.writelines(pieces)
            file.flush()
            os.rename(part, self.path / f"{name}.safetensors")
        return True
