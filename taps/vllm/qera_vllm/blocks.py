"""Memory for rows: blocks of equal size, taken and given back, never more than a limit."""

import threading

import torch

from .memory import available

BLOCK_BYTES = 32 * 2**20
WAITING = 512 * 2**20  # bytes of blocks, if two steps are not more
MOST_WAITING = 2 * 2**30
SHARE = 8  # of what the process may use: no more than this part, but for LEAST_BLOCKS
LEAST_ROWS, MOST_ROWS, LEAST_BLOCKS = 16, 512, 4


def limit(row_bytes, step_rows):
    """Bytes that may wait: two steps of the engine, so that one is written while the next is
    computed."""
    return min(max(WAITING, 2 * step_rows * row_bytes), MOST_WAITING, available() // SHARE)


class Block:
    """So many rows of every site, and whose they are."""

    def __init__(self, rows, widths, dtype, pinned):
        self.tensors = [torch.empty((rows, width), dtype=dtype, pin_memory=pinned) for width in widths]
        self.addresses = [tensor.data_ptr() for tensor in self.tensors]
        bits = torch.int16 if self.tensors[0].element_size() == 2 else torch.int32  # numpy knows no bfloat16
        self.arrays = [tensor.view(bits).numpy() for tensor in self.tensors]
        self.rows, self.used, self.spans = rows, 0, []

    def add(self, request, start, stop):
        """Rows start to stop are the request's."""
        last = self.spans[-1] if self.spans else None
        if last is not None and last[0] is request and last[2] == start:
            last[2] = stop
        else:
            self.spans.append([request, start, stop])

    def has(self, request):
        return any(span[0] is request for span in self.spans)


class Blocks:
    """The blocks of a tap. `widths`: of the sites; `step_rows`: the most that a step of the engine
    has."""

    def __init__(self, widths, dtype, step_rows, pinned=False):
        self.widths, self.dtype, self.pinned = widths, dtype, pinned
        self.row_bytes = sum(widths) * torch.empty((), dtype=dtype).element_size()
        self.rows = max(LEAST_ROWS, min(MOST_ROWS, BLOCK_BYTES // self.row_bytes))
        self.block_bytes = self.rows * self.row_bytes
        self.limit = limit(self.row_bytes, step_rows)
        self.most = max(LEAST_BLOCKS, self.limit // self.block_bytes)
        self.free, self.out, self.closed, self.lock = [], 0, False, threading.Lock()

    def take(self):
        """An empty block; None where as many as may be are in use."""
        with self.lock:
            if self.out >= self.most:
                return None
            self.out += 1
            block = self.free.pop() if self.free else None
        return block or Block(self.rows, self.widths, self.dtype, self.pinned)

    def give(self, block):
        block.used, block.spans = 0, []
        with self.lock:
            self.out -= 1
            if not self.closed:
                self.free.append(block)

    def close(self):
        """Nothing is recorded any more: what is given back is memory of the server's again."""
        with self.lock:
            self.closed, self.free = True, []

    def is_short(self):
        """Whether most are in use: what is kept for later should be written, though that cuts a
        text."""
        return self.out * 4 > self.most * 3
