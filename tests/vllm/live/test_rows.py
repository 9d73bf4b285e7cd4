"""What the tap writes of a request is what the kernels were given, bit for bit and in number."""

import concurrent.futures
import json
import shutil
import time

import torch
from safetensors import safe_open

ANSWER = 8  # tokens: the last one never passes the layers
LAYERS = 120


class Recorded:
    """What the test's own plugin has kept since it was armed, one tensor [tokens, in] a module."""

    def __init__(self, folder):
        self.folder = folder

    def __enter__(self):
        for file in self.folder.iterdir():
            file.unlink()
        (self.folder / "armed").touch()
        return self

    def __exit__(self, *_):
        (self.folder / "armed").unlink()
        self.rows = {}
        for about in self.folder.glob("*.json"):
            said = json.loads(about.read_text())
            data = bytearray(about.with_suffix(".rows").read_bytes())
            rows = torch.frombuffer(data, dtype=getattr(torch, said["dtype"])).view(-1, said["width"])
            self.rows[about.stem] = rows


class Shard:
    def __init__(self, path):
        with safe_open(path, framework="pt") as file:
            self.metadata = file.metadata()
            self.rows = {name: file.get_tensor(name) for name in file.keys()}
        shapes = {tuple(rows.shape[:2]) for rows in self.rows.values()}
        assert len(shapes) == 1, f"{path.name}: {shapes}"
        ((texts, self.count),) = shapes
        assert texts == 1, f"{path.name}: {texts} texts"


class Written:
    """The shards of a folder, in the order in which they were written, one asking after the
    other."""

    def __init__(self, folder):
        self.folder, self.seen = folder, set()

    def waiting(self):
        return sorted(path for path in self.folder.glob("[!.]*.safetensors") if path not in self.seen)

    def next(self, rows, seconds=60):
        """Those that follow, as soon as they have so many rows together."""
        end = time.monotonic() + seconds
        while sum(Shard(path).count for path in self.waiting()) < rows:
            assert time.monotonic() < end, f"{len(self.waiting())} shards of less than {rows} rows"
            time.sleep(0.2)
        shards = [Shard(path) for path in self.waiting()]
        self.seen |= set(self.waiting())
        return shards


def key_of(fused):
    """The checkpoint's name under which a shard has the rows of one of vLLM's modules."""
    return fused.replace("qkv_proj", "q_proj").replace("gate_up_proj", "gate_proj")


def same_bits(one, other):
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(bits(one), bits(other))


def bits(tensor):
    return tensor.contiguous().view(torch.uint8)


class RowsTests:
    """A server of the packed base in bf16, and one of the unpacked base in f32; prefix caching is
    off in both."""

    def __init__(self, stage):
        self.stage, self.prompts = stage, stage.material.prompts
        packed, unpacked = (stage.batch.packed, "bfloat16"), (stage.batch.base, "float32")
        with self.server("packed", *packed) as of_packed, self.server("unpacked", *unpacked) as of_unpacked:
            written = Written(self.folder("packed"))
            self.served = {"packed": self.observe("packed", of_packed, written)}
            # In f32 a text is written in pieces, whose lengths tell of nothing.
            self.together = self.ask_together(of_packed, written)
            self.served["unpacked"] = self.observe("unpacked", of_unpacked, Written(self.folder("unpacked")))
        for name in self.served:
            shutil.rmtree(self.folder(name))
            shutil.rmtree(self.recorded(name))

    def folder(self, name):
        return self.stage.work / f"rows-{name}"

    def recorded(self, name):
        return self.stage.work / f"recorded-{name}"

    def server(self, name, model, dtype):
        """One that starts, as the other one does."""
        for folder in (self.folder(name), self.recorded(name)):
            self.stage.folder(folder.name)
        tap = self.stage.tap(self.folder(name), QERA_TEST_RECORDER=self.recorded(name))
        return self.stage.server(f"rows-{name}", model, "--no-enable-prefix-caching", tap=tap, dtype=dtype)

    def observe(self, name, server, written):
        seen = {}
        server.wait_until_ready().ask.load("batch", self.stage.batch.adapter)
        for number, asked in enumerate(("base", "batch")):
            with Recorded(self.recorded(name)) as kept:
                server.ask.complete(asked, self.prompts[number], max_tokens=ANSWER, ignore_eos=True)
                seen[asked] = (kept, written.next(self.rows_of(number)))
        seen["left out"] = self.ask_what_is_left_out(server, written)
        return seen

    def rows_of(self, number):
        return len(self.prompts[number]) + ANSWER - 1

    def ask_what_is_left_out(self, server, written):
        """Shards of requests that are not to be recorded."""
        server.ask.perplexity("base", self.prompts[2:3])
        server.ask.next_token("base", self.prompts[2])
        server.ask.complete("base", self.prompts[2][:31])
        time.sleep(2)
        return written.waiting()

    def ask_together(self, server, written):
        """Two requests at a time, of different lengths."""

        def ask(prompt):
            server.ask.complete("base", prompt, max_tokens=4, ignore_eos=True)

        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(ask, [self.prompts[3][:700], self.prompts[4][:500]]))
        return written.next(703 + 503)

    def test_rows_equal_an_independent_recording(self):
        for name, seen in self.served.items():
            for number, asked in enumerate(("base", "batch")):
                kept, shards = seen[asked]
                expected = {key_of(module): rows for module, rows in kept.rows.items()}
                assert len(expected) == LAYERS, f"{name}: {len(expected)} modules"
                for key, rows in expected.items():
                    found = torch.cat([shard.rows[key][0] for shard in shards])
                    assert len(found) == self.rows_of(number), f"{name}, {asked}, {key}: {len(found)} rows"
                    assert same_bits(found, rows), f"{name}, {asked}, {key}: other bits than the kernel was given"
                for shard in shards:
                    assert shard.rows.keys() == expected.keys(), sorted(shard.rows.keys() ^ expected.keys())

    def test_shards_say_what_they_saw(self):
        for name, seen in self.served.items():
            base, adapter = (seen[asked][1][0].metadata for asked in ("base", "batch"))
            assert base["qera.source"] == adapter["qera.source"] == "quantized", base
            assert "qera.source_adapter" not in base, base
            assert adapter["qera.source_adapter"] == str(self.stage.batch.adapter), adapter
            model = self.stage.batch.packed if name == "packed" else self.stage.batch.base
            assert base["qera.source_base"] == adapter["qera.source_base"] == str(model), base
            shares = json.loads(base["qera.shares"])
            for layer in (f"model.layers.{number}" for number in range(30)):
                assert [f"{layer}.self_attn.{of}_proj" for of in "qkv"] in shares, f"{layer}: q, k, v"
                assert [f"{layer}.mlp.{of}_proj" for of in ("gate", "up")] in shares, f"{layer}: gate, up"
            assert len(json.loads(base["qera.linears"])) == 210

    def test_evaluation_and_short_requests_are_left_out(self):
        for name, seen in self.served.items():
            assert not seen["left out"], f"{name}: {seen['left out']}"

    def test_requests_of_one_step_are_texts_apart(self):
        counts = sorted(shard.count for shard in self.together)
        assert counts == [503, 703], f"{counts} rows"
