"""The thread that gathers each request's rows and writes them: the engine never waits for a
disk."""

import json
import multiprocessing.util
import queue
import threading
import time

from .folder import header_of
from .gathered import Gathering
from .requests import SHORTEST

SHARD_BYTES = 256 * 2**20  # at which a request's rows are written before it ends
LOOK_AGAIN = 1.0  # seconds between two looks at a full folder
LAST_WORDS = 5.0  # seconds that the end of the process waits for what is to be written


class Writer:
    """Takes blocks and ended requests from the engine. `about`: adapter's folder or None, and the
    sites that a shard has -> its metadata."""

    def __init__(self, switch, folder, blocks, sites, about, counts):
        self.switch, self.folder, self.about, self.counts = switch, folder, about, counts
        self.blocks, self.gathering = blocks, Gathering(blocks, sites)
        self.shard_bytes = min(SHARD_BYTES, folder.max_bytes // 2)
        self.queue, self.full, self.shards, self.rows = queue.SimpleQueue(), False, 0, 0
        self.size, self.looked, self.ended, self.thread = 0, 0.0, False, None
        self.before_close = lambda: None
        switch.at_last(lambda: self.queue.put((self._look, None)))  # wakes the thread, which then ends

    def start(self):
        self.thread = threading.Thread(target=self._run, name="qera-tap", daemon=True)
        self.thread.start()
        multiprocessing.util.Finalize(None, self.close, exitpriority=10)

    # What the engine's thread calls.

    def block(self, block):
        if self.switch.on:
            self.queue.put((self._take, block))

    def finish(self, request):
        if self.switch.on:
            self.queue.put((self._finish, request))

    def is_full(self):
        """Whether the folder was full when last looked at."""
        return self.full

    def close(self, seconds=LAST_WORDS):
        """Writes all that is recorded, waits for that so long, and says what became of all."""
        if self.ended or self.thread is None:
            return
        self.ended = True
        self.switch.guarded(self.before_close)
        self.queue.put((None, None))
        self.thread.join(seconds)
        self.switch.say("end", self.summary())

    def summary(self):
        text = f"{self.rows} rows in {self.shards} shards"
        for what, counted in (("rows", self.counts.rows), ("requests", self.counts.requests)):
            if counted:
                each = ", ".join(f"{number} ({reason})" for reason, number in sorted(counted.items()))
                text += f"; {what} not recorded: {each}"
        return text

    # What the thread does.

    def _run(self):
        self._work()
        if not self.switch.on:
            self._free()

    def _free(self):
        """The server has the memory back."""
        self.gathering.forget()
        while not self.queue.empty():
            self.queue.get_nowait()

    def _work(self):
        while True:
            try:
                work, what = self.queue.get(timeout=LOOK_AGAIN if self.full else None)
            except queue.Empty:
                work, what = self._look, None
            if work is None:
                for request in list(self.gathering.by_request):
                    self.switch.guarded(self._finish, request)
                return
            self.switch.guarded(work, what)
            if self.full and time.monotonic() - self.looked > LOOK_AGAIN:
                self._look()
            if not self.switch.on:
                return

    def _look(self, _=None):
        self.looked = time.monotonic()
        try:
            self.full = not self.folder.has_room(self.size)
        except OSError:
            pass  # it may come back

    def _take(self, block):
        self.gathering.take(block)
        request = self.gathering.largest()
        if request is None:
            return
        rows = self.gathering.by_request[request].rows
        if rows * self.blocks.row_bytes >= self.shard_bytes or self.gathering.is_short():
            self._finish(request)

    def _finish(self, request):
        gathered = self.gathering.pop(request)
        try:
            if gathered.rows >= SHORTEST:
                self._write(request, gathered)
            elif gathered.rows:
                self.counts.row(f"requests below {SHORTEST}", gathered.rows)
        finally:
            self.gathering.release(gathered)

    def _write(self, request, gathered):
        sites = self.gathering.recorded()
        about, buffers = self.gathering.tensors(gathered, sites)
        header = header_of(about, self.about(request.adapter, sites) | self._dropped())
        self.size = len(header) + sum(size for _, _, size in about.values())
        try:
            written = self.folder.put(header, buffers, self.size)
        except OSError as error:
            self.counts.row("disk", gathered.rows)
            path, why = self.folder.path, error.strerror or error
            self.switch.say("disk", f"{path} takes no shard ({why}): rows are dropped until it does")
            return
        if written:
            self.full, self.shards, self.rows = False, self.shards + 1, self.rows + gathered.rows
            return
        self.full = True
        self.counts.row("folder full", gathered.rows)
        limit = f"QERA_TAP_MAX_BYTES {self.folder.max_bytes}"
        why = "qera-daemon asks for a pause" if self.folder.asked_to_pause else limit
        self.switch.say("full", f"{self.folder.path} is full ({why}): rows are dropped until there is room")

    def _dropped(self):
        dropped = sum(self.counts.rows.values())
        return {"qera.dropped_rows": json.dumps(dropped)} if dropped else {}
