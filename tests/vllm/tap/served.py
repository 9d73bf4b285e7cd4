"""A tap on a stand-in, as the plugin puts it together, and the shards that it wrote."""

import contextlib
import io
import pathlib
import time

from qera_vllm import tap as parts
from qera_vllm.lora_swap import Swaps
from qera_vllm.modules import find
from qera_vllm.settings import Settings
from qera_vllm.switch import Switch
from safetensors import safe_open
from stand_ins import KINDS, FirstRunner, Model, listen, schedule

SECONDS = 20


class Served:
    """A runner with a tap; `folder` gets the shards."""

    all = []

    def __init__(self, folder, runner=FirstRunner, model=None, config=None, swaps=None, **settings):
        self.folder = pathlib.Path(folder)
        self.all.append(self)
        self.model = model or Model()
        self.heard = listen(self.model)
        self.runner = runner(self.model, config)
        self.switch, self.swaps, self.said = Switch(), swaps or Swaps(), io.StringIO()
        with contextlib.redirect_stderr(self.said):
            self.recorder = parts.assemble(
                self.runner, Settings(str(folder), **settings), self.switch, self.swaps, find(self.model, KINDS)
            )

    def step(self, tokens, *news, **more):
        with contextlib.redirect_stderr(self.said):
            return self.runner.execute_model(schedule(tokens, news, **more))

    def end(self, *keys):
        """These requests have ended, which the next step tells; waits until the writer knows."""
        self.step({}, finished=keys)
        self.settle()

    def settle(self):
        writer = self.recorder.writer
        until = time.monotonic() + SECONDS
        done = []
        writer.queue.put((lambda _: done.append(True), None))
        while not done and writer.thread.is_alive():
            assert time.monotonic() < until, "the writer does not come to its end"
            time.sleep(0.002)

    def close(self):
        with contextlib.redirect_stderr(self.said):
            self.recorder.writer.close()

    def shards(self):
        return [Shard(path) for path in sorted(self.folder.glob("*.safetensors"))]

    def only_shard(self):
        shards = self.shards()
        assert len(shards) == 1, f"{len(shards)} shards, {self.recorder.writer.summary()}; {self.said.getvalue()}"
        return shards[0]

    def rows(self):
        return self.recorder.counts.rows


class Shard:
    """What the safetensors library reads of a file."""

    def __init__(self, path):
        with safe_open(str(path), "pt") as file:
            self.metadata = file.metadata()
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}
        self.path = path

    @property
    def length(self):
        [length] = {tensor.shape[1] for tensor in self.tensors.values()}
        assert all(tensor.shape[0] == 1 for tensor in self.tensors.values())
        return length


FIRST_OF = {"qkv_proj": "q_proj", "gate_up_proj": "gate_proj"}


def key_of(served_name):
    """The checkpoint's name under which a served module's rows lie."""
    stem, _, last = served_name.rpartition(".")
    return f"{stem}.{FIRST_OF.get(last, last)}"
