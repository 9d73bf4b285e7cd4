"""Adapters that are loaded in place on a server with the plugin: nobody gets 404, nothing is read
again, and no answer comes from another adapter's prefix."""

import shutil
import threading

from asking import Refused
from opened import Opened
from safetensors.torch import load_file, save_file

NAME = "qera"
SAME, SWAPS, TOKENS = 1e-3, 6, 64
BLOCKS = 512  # tokens: the fewest that the cache must have had


def halved(adapter, folder):
    """An adapter that corrects half as much."""
    shutil.copytree(adapter, folder)
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({name: tensor / 2 if "lora_B" in name else tensor for name, tensor in tensors.items()}, file)
    return folder


class SwapsTests:
    def __init__(self, stage):
        self.prompt, folder = stage.material.long_prompt, stage.folder("swaps")
        self.first, self.second = stage.batch.adapter, halved(stage.batch.adapter, folder / "second")
        self.again = [shutil.copytree(self.first, folder / f"again-{number}") for number in range(SWAPS)]
        with stage.server("swaps-server", stage.batch.packed, "--max-cpu-loras", 2) as server:
            ask = server.wait_until_ready().ask
            self.sign = ask.models().get("qera")
            ask.load("truth", self.second)
            self.truth = ask.next_token("truth", self.prompt)
            ask.unload("truth")
            ask.load(NAME, self.first, load_inplace=True)
            self.before = [ask.next_token(NAME, self.prompt) for _ in range(2)]
            ask.load(NAME, self.second, load_inplace=True)
            self.after, self.root = ask.next_token(NAME, self.prompt), ask.roots()[NAME]
            with Opened(self.second) as opened:
                ask.complete(NAME, self.prompt, "qera-long-answer", max_tokens=TOKENS, ignore_eos=True)
            self.read = opened.names
            self.refusals = self.swap_while_asked(ask)
            shutil.rmtree(folder)
            self.without_folders = ask.next_token(NAME, self.prompt)
            self.alive = server.is_alive()

    def swap_while_asked(self, ask):
        """What a client that asks all the time is refused."""
        refusals, ended = [], threading.Event()

        def client():
            while not ended.is_set():
                try:
                    ask.complete(NAME, self.prompt[:40], "qera-client", max_tokens=4)
                except Refused as refused:
                    refusals.append(str(refused))

        thread = threading.Thread(target=client)
        thread.start()
        for path in self.again:
            ask.load(NAME, path, load_inplace=True)
        ended.set()
        thread.join()
        return refusals

    def test_the_server_says_that_it_swaps_in_place(self):
        assert self.sign and self.sign["swaps_in_place"] is True, self.sign

    def test_the_next_token_is_that_of_the_new_adapter(self):
        uncached, cached = self.before
        assert uncached.cached == 0 and cached.cached >= BLOCKS, self.before
        assert self.root == str(self.second), self.root
        assert abs(self.after.logprob - self.truth.logprob) < SAME and self.after.cached == 0, (self.after, self.truth)
        assert abs(self.after.logprob - cached.logprob) > SAME, "the two adapters do not differ: no test"

    def test_no_adapter_is_read_again(self):
        assert not self.read, f"opened while {TOKENS} tokens were made: {self.read}"

    def test_no_client_is_refused(self):
        assert not self.refusals, self.refusals

    def test_folders_may_go(self):
        """The last was the first adapter under another path."""
        expected = self.before[0].logprob
        assert self.alive and abs(self.without_folders.logprob - expected) < SAME, (self.without_folders, expected)
