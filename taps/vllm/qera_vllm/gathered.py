"""A request's rows, gathered from the blocks of many steps."""

import numpy as np
import torch

from .requests import SHORTEST

STORED = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


class Piece:
    """Rows of every site, one behind the other. `block`: the one that they lie in, where it is kept
    for them."""

    def __init__(self, arrays, rows, block=None):
        self.arrays, self.rows, self.block = arrays, rows, block
        self.bytes = 0 if block else sum(array.nbytes for array in arrays)


class Gathered:
    """What waits of one request."""

    def __init__(self):
        self.pieces, self.rows = [], 0

    def add(self, piece):
        self.pieces.append(piece)
        self.rows += piece.rows


def picked(block, spans):
    """A copy of a request's rows in a block that holds those of others, too. numpy copies in this
    thread alone."""
    index = np.concatenate([np.arange(start, stop) for start, stop in spans])
    return Piece([rows.take(index, 0) for rows in block.arrays], len(index))


class Gathering:
    """The recorded rows that are not written yet, by request."""

    def __init__(self, blocks, sites):
        self.blocks, self.sites = blocks, sites
        self.by_request, self.copied = {}, 0

    def take(self, block):
        """A block of rows: whoever it holds rows of has them from now on."""
        spans = {}
        for request, start, stop in block.spans:
            spans.setdefault(request, []).append((start, stop))
        if len(spans) == 1:
            [(request, [(start, stop), *more])] = spans.items()
            if not more:
                self._of(request).add(Piece([rows[start:stop] for rows in block.arrays], stop - start, block))
                return
        for request, own in spans.items():
            piece = picked(block, own)
            self.copied += piece.bytes
            self._of(request).add(piece)
        self.blocks.give(block)

    def _of(self, request):
        return self.by_request.setdefault(request, Gathered())

    def is_short(self):
        """Whether so much waits that the largest should be written now."""
        return self.copied > self.blocks.limit or self.blocks.is_short()

    def largest(self):
        """The request of which most waits, if that is enough for a shard."""
        request = max(self.by_request, key=lambda request: self.by_request[request].rows, default=None)
        return request if request is not None and self.by_request[request].rows >= SHORTEST else None

    def pop(self, request):
        gathered = self.by_request.pop(request, None) or Gathered()
        self.copied -= sum(piece.bytes for piece in gathered.pieces)
        return gathered

    def release(self, gathered):
        """Its memory is free again."""
        for piece in gathered.pieces:
            if piece.block is not None:
                self.blocks.give(piece.block)
        gathered.pieces = []

    def forget(self):
        """Nothing of what waits is written any more."""
        self.by_request, self.copied = {}, 0

    def recorded(self):
        """The sites that are not left out, as of now: the engine's thread may leave one out at any
        time."""
        return [site for site in self.sites if not site.left_out]

    def tensors(self, gathered, sites):
        """name -> (type, shape, bytes) and the buffers in that order."""
        about, buffers = {}, []
        for site in sites:
            parts = [piece.arrays[site.index] for piece in gathered.pieces]
            kind = STORED[self.blocks.dtype]
            about[site.key] = (kind, [1, gathered.rows, site.width], sum(part.nbytes for part in parts))
            buffers += parts
        return about, buffers
