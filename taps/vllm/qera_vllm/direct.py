"""Writes shards past the page cache, where the file system takes that: a copy of gigabytes into
pages that the machine has to find first costs more than all else that the tap does."""

import errno
import fcntl
import mmap
import os

import numpy

PAGE = 4096  # what begins and ends of direct writes are multiples of: no disk's sector is larger
STAGED = 4 * 2**20  # bytes that one call writes
DIRECT = getattr(os, "O_DIRECT", 0)  # macOS has none


def is_direct(file):
    return bool(fcntl.fcntl(file, fcntl.F_GETFL) & DIRECT)


def set_direct(file, direct):
    """Some file systems take no direct writes; then they stay as they are."""
    flags = fcntl.fcntl(file, fcntl.F_GETFL) & ~DIRECT
    try:
        fcntl.fcntl(file, fcntl.F_SETFL, flags | (DIRECT if direct else 0))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def write_whole(file, data):
    """Writes all of `data`, through the page cache if a direct write is refused."""
    while data:
        try:
            data = data[os.write(file, data) :]
        except OSError as error:
            if error.errno != errno.EINVAL or not is_direct(file):
                raise
            set_direct(file, False)


class Staging:
    """Memory that begins with a page: rows, which lie anywhere, are gathered in it as their file
    has them."""

    def __init__(self):
        memory = mmap.mmap(-1, STAGED)
        self.view, self.bytes = memoryview(memory), numpy.frombuffer(memory, numpy.uint8)

    def write(self, file, buffers):
        """Writes buffers one behind the other into an empty file."""
        set_direct(file, True)
        filled = 0
        for buffer in buffers:
            source = numpy.frombuffer(buffer, numpy.uint8)
            while len(source):
                size = min(len(source), STAGED - filled)
                self.bytes[filled : filled + size] = source[:size]
                source, filled = source[size:], filled + size
                if filled == STAGED:
                    write_whole(file, self.view)
                    filled = 0
        whole = filled // PAGE * PAGE
        write_whole(file, self.view[:whole])
        set_direct(file, False)
        write_whole(file, self.view[whole:filled])
