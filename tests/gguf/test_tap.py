"""The tap for llama.cpp: what it records is what the layers read."""

import contextlib
import ctypes
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import gguf
import ggml_structures
import llama_cpp
import numpy as np
import shard_folder
from ggml_structures import F16, F32, GgmlTensor
from graph import Graph
from safetensors import safe_open
from safetensors.numpy import load_file
from smollm2 import smollm2_file
from tiny import BLOCKS, FEED, TOKENS, WIDTH, write_tiny

TAP = pathlib.Path(llama_cpp.__file__)
SEQUENCE = np.random.default_rng(3).integers(0, TOKENS, 40).tolist()
GROUPS = [["attn_q", "attn_k", "attn_v"], ["attn_output"], ["ffn_gate", "ffn_up"], ["ffn_down"]]


def shards(folder):
    return sorted(folder.glob("*.safetensors"))


def metadata(shard):
    with safe_open(shard, "np") as file:
        return file.metadata()


def load_shapes(shard):
    with safe_open(shard, "np") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}


def sharing(shard):
    return {frozenset(group) for group in json.loads(metadata(shard)["qera.shares"])}


class Witness(llama_cpp.Tap):
    """Beside the rows, what each product came to."""

    def __init__(self, *given, **options):
        self.products = {}
        super().__init__(*given, **options)

    def _asked(self, address):
        wanted = super()._asked(address)
        node = GgmlTensor.from_address(address)
        return wanted or (node.op == self.mul_mat)

    def _shown(self, address):
        node = GgmlTensor.from_address(address)
        weight = llama_cpp.LAYER.fullmatch(GgmlTensor.from_address(node.src[0]).name.decode())
        if not weight:
            return True
        self.products.setdefault(weight[1], []).append(self.read(address, weight[1]))
        readers = self.now.readers[node.src[1]]
        return super()._shown(address) if weight[1] == readers[0] else True


class TapTests:
    def __init__(self, work):
        self.work = work / "tap"
        self.work.mkdir()
        self.model = self.work / "tiny.gguf"
        self.weights = write_tiny(self.model)

    def folder(self, name):
        return self.work / name

    def record(self, name, model=None, sequences=(SEQUENCE,), **options):
        folder = self.folder(name)
        with llama_cpp.RecordedModel(model or self.model, folder, sequence=64, threads=2, **options) as running:
            for tokens in sequences:
                running.feed_tokens(tokens)
            return folder, running.tap

    def check_products(self, shard, products, weights, bound):
        rows = load_file(shard)
        first = {name: group[0] for group in json.loads(metadata(shard)["qera.shares"]) for name in group}
        assert len(products) == 7 * BLOCKS, sorted(products)
        for name, product in products.items():
            expected = rows[first[name]].astype(np.float64) @ weights[f"{name}.weight"].astype(np.float64).T
            error = np.linalg.norm(np.concatenate(product) - expected) / np.linalg.norm(expected)
            assert error < bound, f"{name}: x W is off by {error}"

    def witness(self, name, model):
        ordinary, llama_cpp.Tap = llama_cpp.Tap, Witness
        try:
            folder, tap = self.record(name, model)
        finally:
            llama_cpp.Tap = ordinary
        (shard,) = shards(folder)
        return shard, tap.products

    def test_recorded_rows_times_the_weight_are_what_the_layer_computed(self):
        shard, products = self.witness("products", self.model)
        self.check_products(shard, products, self.weights, 1e-6)

    def test_weights_that_are_stored_otherwise_keep_their_names(self):
        """llama.cpp repacks Q4_0 where it can, and rounds the rows that it multiplies to 8 bits:
        2^-8 of a block's largest."""
        model = self.folder("tiny-Q4_0.gguf")
        write_tiny(model, "Q4_0")
        stored = {tensor.name: tensor for tensor in gguf.GGUFReader(model).tensors}
        weights = {name: gguf.dequantize(tensor.data, tensor.tensor_type) for name, tensor in stored.items()}
        shard, products = self.witness("products-Q4_0", model)
        self.check_products(shard, products, weights, 1e-2)
        assert metadata(shard)["qera.source"] == "quantized"

    def test_one_key_for_each_input(self):
        folder, _ = self.record("keys")
        (shard,) = shards(folder)
        blocks = range(BLOCKS)
        expected = {frozenset(f"blk.{block}.{name}" for name in group) for block in blocks for group in GROUPS}
        assert sharing(shard) == expected, sharing(shard)
        rows = load_file(shard)
        assert all(len(group & rows.keys()) == 1 for group in expected) and len(rows) == len(expected), sorted(rows)
        for name, array in rows.items():
            width = FEED if name.endswith("ffn_down") else WIDTH
            assert array.shape == (len(SEQUENCE), width) and array.dtype == np.float32, f"{name}: {array.shape}"
        assert metadata(shard)["qera.source"] == "full-precision" and "qera.model" not in metadata(shard)

    def test_every_layer_is_listed_with_its_shape(self):
        folder, _ = self.record("linears", include="blk.1.ffn_*")
        (shard,) = shards(folder)
        listed = {one["name"]: (one["out"], one["in"]) for one in json.loads(metadata(shard)["qera.linears"])}
        layers = {name[:-7]: array.shape for name, array in self.weights.items() if name.startswith("blk")}
        assert listed == {name: shape for name, shape in layers.items() if len(shape) == 2}, listed
        gate = {frozenset({"blk.1.ffn_gate", "blk.1.ffn_up"}), frozenset({"blk.1.ffn_down"})}
        assert sharing(shard) == gate and len(load_file(shard)) == 2

    def test_a_sequence_is_a_shard_and_a_pass_is_none(self):
        """Rows of several passes through the graph lie one after the other, as in one pass."""
        whole = load_file(shards(self.record("whole")[0])[0])
        folder = self.folder("pieces")
        with llama_cpp.RecordedModel(self.model, folder, sequence=64, threads=2) as running:
            running.pass_tokens = 16
            running.feed_tokens(SEQUENCE)
            running.feed_tokens(SEQUENCE[:8])
        first, second = (load_file(shard) for shard in shards(folder))
        for name, rows in whole.items():
            assert first[name].shape == rows.shape and second[name].shape[0] == 8
            # The cache of keys and values is f16 in either case; only the order of sums is another.
            assert np.abs(first[name] - rows).max() < 2e-3 * np.abs(rows).max(), name

    def test_twice_the_same_is_the_same_bytes(self):
        once, again = (shards(self.record(name)[0]) for name in ("once", "again"))
        assert [shard.read_bytes() for shard in once] == [shard.read_bytes() for shard in again]

    def test_dtypes(self):
        exact = load_file(shards(self.record("f32")[0])[0])
        for dtype, bits, word in (("f16", 11, "F16"), ("bf16", 8, "BF16")):
            (shard,) = shards(self.record(dtype, dtype=dtype)[0])
            with safe_open(shard, "np") as file:
                kinds = {file.get_slice(name).get_dtype() for name in file.keys()}
            assert kinds == {word}, kinds
            raw = shard.read_bytes()
            header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
            start = 8 + int.from_bytes(raw[:8], "little")
            for name, rows in exact.items():
                begin, end = header[name]["data_offsets"]
                data = raw[start + begin : start + end]
                if word == "F16":
                    back = np.frombuffer(data, np.float16).astype(np.float32)
                else:
                    back = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
                error = np.abs(back.reshape(rows.shape) - rows) / np.maximum(np.abs(rows), 2.0**-14)
                assert error.max() <= 2.0**-bits, f"{dtype} {name}: {error.max()}"

    def test_what_does_not_fit_a_dtype(self):
        large = np.array([[65504.0, 1.0], [65505.0, -3.0]], np.float32)
        assert shard_folder.encode(large[:1], "f16")[0] == "F16"
        kind, shape, data = shard_folder.encode(large, "f16")
        assert (kind, shape, data) == ("F32", [2, 2], large.tobytes())
        odd = np.array([[np.nan, np.inf, -np.inf, 3.4e38, 1.00390625, 1.01171875, -0.0, 1e-45]], np.float32)
        kind, _, data = shard_folder.encode(odd, "bf16")
        back = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
        assert kind == "BF16" and np.isnan(back[0]) and list(back[1:3]) == [np.inf, -np.inf]
        assert back[3] == np.inf and list(back[4:6]) == [1.0, 1.015625], back  # ties go to even
        assert np.signbit(back[6]) and back[7] == 0

    def test_experts_and_routers_are_left_out_by_name(self):
        model = self.folder("experts.gguf")
        write_tiny(model, experts=4)
        folder, tap = self.record("experts", model)
        (shard,) = shards(folder)
        feed = ("ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")
        assert tap.left_out == {f"blk.{block}.{name}" for block in range(BLOCKS) for name in feed}, tap.left_out
        names = {one["name"] for one in json.loads(metadata(shard)["qera.linears"])}
        attention = ("attn_q", "attn_k", "attn_v", "attn_output")
        assert names == {f"blk.{block}.{name}" for block in range(BLOCKS) for name in attention}, names
        assert not any("ffn" in name for name in load_file(shard))

    def test_a_glob_that_matches_no_layer_is_refused(self):
        experts = self.folder("experts-asked.gguf")
        write_tiny(experts, experts=4)
        for at, (model, include, said) in enumerate(
            (
                (self.model, ["model.layers.0.*"], "'model.layers.0.*': matches none of the 14 layers"),
                (self.model, ["*", "blk.0.attn", "blk.2.*"], "'blk.0.attn' and 'blk.2.*': matches none of the 14"),
                (experts, "*_exps", "'*_exps': matches none of the 8 layers; a layer's name is 'blk.0.attn_q', and '"),
            )
        ):
            folder = f"unmatched-{at}"
            try:
                self.record(folder, model, [[*SEQUENCE, *SEQUENCE[:24]]], include=include)
            except ValueError as error:
                assert said in str(error) and "a layer's name is 'blk.0.attn_q'" in str(error), error
            else:
                raise AssertionError(f"{include} was taken")
            assert not list(self.folder(folder).iterdir()), "a shard was written before the refusal"
        given = ["--model", smollm2_file(), "--out", self.folder("unmatched"), "--text", TAP, "--tokens", "4"]
        done = subprocess.run(
            [sys.executable, TAP, *given, "--include", "model.layers.0.*"], capture_output=True, text=True
        )
        said = "tap: include: 'model.layers.0.*': matches none of the 210 layers; a layer's name is 'blk.0.attn_q'\n"
        assert (done.returncode, done.stdout, done.stderr) == (1, "", said), done

    def test_the_last_block_records_every_row(self):
        """llama.cpp computes there only what is asked for."""
        (shard,) = shards(self.record("last", include=f"blk.{BLOCKS - 1}.ffn_down")[0])
        (rows,) = load_file(shard).values()
        assert rows.shape == (len(SEQUENCE), FEED)

    def test_max_bytes_holds_and_what_is_dropped_is_counted(self):
        (size,) = (shard.stat().st_size for shard in shards(self.record("size")[0]))
        sequences = [SEQUENCE[at:] + SEQUENCE[:at] for at in range(5)]
        told = io.StringIO()
        with contextlib.redirect_stderr(told):
            folder, tap = self.record("bounded", sequences=sequences, max_bytes=2 * size + size // 2)
        assert len(shards(folder)) == 2 and tap.shards == 2
        assert (tap.dropped_shards, tap.dropped_rows) == (3, 3 * len(SEQUENCE))
        assert told.getvalue().count("is dropped") == 1 and "waiting" not in told.getvalue(), told.getvalue()
        try:
            self.record("too-small", max_bytes=size - 1)
        except ValueError as error:
            assert f"{size} bytes" in str(error)
        else:
            raise AssertionError("a shard that never fits was not refused")

    def test_a_full_folder_is_waited_for(self):
        (size,) = (shard.stat().st_size for shard in shards(self.record("size-of-one")[0]))
        folder = self.folder("drained")
        program = (
            "import sys; sys.path.insert(0, sys.argv[1]); import llama_cpp\n"
            "options = dict(sequence=64, max_bytes=int(sys.argv[4]), wait=60)\n"
            "with llama_cpp.RecordedModel(sys.argv[2], sys.argv[3], **options) as model:\n"
            f"    for _ in range(4): model.feed_tokens({SEQUENCE})\n"
            "    print(model.tap.shards, model.tap.dropped_shards)"
        )
        given = [sys.executable, "-c", program, TAP.parent, self.model, folder, str(size)]
        with subprocess.Popen(given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            told = child.stderr.readline()  # while nobody makes room
            assert told.startswith(f"tap: {folder} is full (max_bytes {size}): waiting up to 60 s a shard"), told
            assert "--consume delete" in told, told
            taken, until = 0, time.monotonic() + 60
            while child.poll() is None and time.monotonic() < until:
                waiting = shards(folder) if folder.exists() else []
                assert len(waiting) <= 1, waiting
                for shard in waiting:
                    time.sleep(0.3)
                    shard.unlink()
                    taken += 1
            assert child.stdout.read().split() == ["4", "0"] and taken >= 3, taken
            assert child.stderr.read() == "", "it was said twice"

    def test_the_daemons_pause_is_obeyed(self):
        folder = self.folder("paused")
        folder.mkdir(parents=True, exist_ok=True)
        pause = folder / ".qera-pause"
        pause.touch()
        told = io.StringIO()
        with contextlib.redirect_stderr(told):
            _, tap = self.record("paused", sequences=[SEQUENCE, SEQUENCE], wait=0.01)
        assert (tap.shards, tap.dropped_shards) == (0, 2)
        assert told.getvalue().count("is full (qera-daemon asks for a pause)") == 1, told.getvalue()
        pause.unlink()  # as the daemon does
        assert len(shards(self.record("paused")[0])) == 1

    def test_a_kill_leaves_no_half_shard(self):
        """The file that is being written is hidden, and the next tap takes it away; one that is in
        use stays."""
        folder = self.folder("killed")
        program = (
            "import sys, time; sys.path.insert(0, sys.argv[1]); import shard_folder\n"
            "shard_folder.os.rename = lambda *_: (print('written', flush=True), time.sleep(60))\n"
            "shard_folder.ShardFolder(sys.argv[2], 1 << 40, 0).put([bytes(1 << 20)])"
        )
        with subprocess.Popen([sys.executable, "-c", program, TAP.parent, folder], stdout=subprocess.PIPE) as child:
            assert child.stdout.readline() == b"written\n"
            shard_folder.ShardFolder(folder, 1, 0)
            assert len(list(folder.iterdir())) == 1 and not shards(folder), "the file in use was taken away"
            child.send_signal(signal.SIGKILL)
            child.wait()
        left = list(folder.iterdir())
        assert len(left) == 1 and left[0].name.startswith(".") and left[0].suffix == ".part", left
        shard_folder.ShardFolder(folder, 1, 0)
        assert not list(folder.iterdir())

    def test_hand_made_graphs(self):
        """Rows in the middle of wider ones, several batches, another device's copy of a weight,
        names of others."""
        folder, random = self.folder("graphs"), np.random.default_rng(5)
        tap = llama_cpp.Tap(folder)
        graph = Graph(tap.library)
        weight = graph.named("blk.0.attn_q.weight", graph.new_tensor_2d(F32, 32, 8))
        copy = graph.named("CUDA0#blk.0.attn_output.weight#0", graph.new_tensor_2d(F16, 32, 8))
        adapter = graph.named("blk.0.attn_q.weight.lora_a", graph.new_tensor_2d(F32, 32, 4))
        wide, deep = graph.new_tensor_2d(F32, 50, 6), graph.new_tensor_3d(F32, 32, 3, 2)
        view = graph.view_2d(wide, 32, 6, 200, 28)
        for of, rows in ((weight, view), (copy, deep), (adapter, view)):
            graph.expand(graph.mul_mat(of, rows))
        graph.allocate()
        values = [random.normal(size=shape).astype(np.float32) for shape in ((6, 50), (2, 3, 32))]
        for tensor, array in zip((wide, deep), values):
            graph.put(tensor, array)
        for tensor, array in ((weight, np.zeros((8, 32), np.float32)), (copy, np.zeros((8, 32), np.float16))):
            graph.put(tensor, array)
        graph.put(adapter, np.zeros((4, 32), np.float32))
        graph.run(tap)
        turned = tap.read(graph.permute(deep, 1, 0, 2, 3), "turned")
        tap.flush()
        (shard,) = shards(folder)
        rows = load_file(shard)
        graph.close()
        assert rows.keys() == {"blk.0.attn_q", "blk.0.attn_output"}, rows.keys()
        assert np.array_equal(rows["blk.0.attn_q"], values[0][:, 7:39])
        assert np.array_equal(rows["blk.0.attn_output"], values[1].reshape(6, 32))
        assert np.array_equal(turned, values[1].transpose(0, 2, 1).reshape(-1, 3))

    def test_shares_that_change_begin_another_shard(self):
        tap, folder = llama_cpp.Tap(self.folder("regrouped"), rows=100), self.folder("regrouped")
        for shared in (True, True, False):
            graph = Graph(tap.library)
            gate, up = (graph.named(f"blk.0.ffn_{n}.weight", graph.new_tensor_2d(F32, 32, 8)) for n in ("gate", "up"))
            rows = [graph.new_tensor_2d(F32, 32, 5) for _ in range(2)]
            for of, read in ((gate, rows[0]), (up, rows[0] if shared else rows[1])):
                graph.expand(graph.mul_mat(of, read))
            graph.allocate()
            for at, tensor in enumerate(rows):
                graph.put(tensor, np.full((5, 32), at + 1, np.float32))
            for tensor in (gate, up):
                graph.put(tensor, np.zeros((8, 32), np.float32))
            graph.run(tap)
            graph.close()
        tap.flush()
        together, apart = shards(folder)
        assert sharing(together) == {frozenset({"blk.0.ffn_gate", "blk.0.ffn_up"})}
        assert {name: rows.shape for name, rows in load_file(together).items()} == {"blk.0.ffn_gate": (10, 32)}
        assert sharing(apart) == {frozenset({"blk.0.ffn_gate"}), frozenset({"blk.0.ffn_up"})}
        means = {name: (rows.shape, rows.mean()) for name, rows in load_file(apart).items()}
        assert means == {"blk.0.ffn_gate": ((5, 32), 1.0), "blk.0.ffn_up": ((5, 32), 2.0)}, means

    def test_rows_make_a_shard_where_nobody_calls_flush(self):
        folder = self.folder("unflushed")
        tap, counts = llama_cpp.Tap(folder, rows=10), []
        graph = Graph(tap.library)
        weight = graph.named("blk.0.attn_q.weight", graph.new_tensor_2d(F32, 32, 8))
        rows = graph.new_tensor_2d(F32, 32, 5)
        graph.expand(graph.mul_mat(weight, rows))
        graph.allocate()
        graph.put(weight, np.zeros((8, 32), np.float32))
        for at in range(4):
            graph.put(rows, np.full((5, 32), at, np.float32))
            graph.run(tap)
            counts.append(len(shards(folder)))
        graph.close()
        assert counts == [0, 0, 1, 1], counts
        tap.flush()
        written = [load_file(shard)["blk.0.attn_q"][::5, 0].tolist() for shard in shards(folder)]
        assert written == [[0, 1], [2, 3]], written

    def test_what_goes_wrong_is_told_and_the_model_runs_on(self):
        tap = llama_cpp.Tap(self.folder("broken"))
        graph = Graph(tap.library)
        weight = graph.named("blk.0.attn_q.weight", graph.new_tensor_2d(F32, 32, 8))
        rows = graph.new_tensor_2d(F16, 32, 5)
        graph.expand(graph.mul_mat(weight, rows))
        node = graph.library.ggml_graph_node(graph.graph, 0)
        graph.allocate()
        assert tap._callback(node, True, None) and tap._callback(node, False, None), "the model was stopped"
        try:
            tap.flush()
        except RuntimeError as error:
            assert "blk.0.attn_q" in str(error) and "not f32" in str(error), error
        else:
            raise AssertionError("f16 rows were not refused")
        graph.close()
        assert not list(self.folder("broken").iterdir())

    def test_unknown_layouts_are_refused(self):
        known, ggml_structures.XLLAMACPP = ggml_structures.XLLAMACPP, ("1.0",)
        try:
            llama_cpp.Tap(self.folder("unknown"))
        except ggml_structures.UnknownLayout as error:
            assert "known: 1.0" in str(error), error
        else:
            raise AssertionError("an unknown version was taken")
        finally:
            ggml_structures.XLLAMACPP = known

        library, ordinary = ggml_structures.xllamacpp_library(), ggml_structures.GgmlTensor
        kind, buffer, ne, nb, *others = ordinary._fields_
        for wrong in ([kind, ne, buffer, nb, *others], [kind, buffer, ne, nb, *others[:-1]]):
            ggml_structures.GgmlTensor = type("Wrong", (ctypes.Structure,), {"_fields_": wrong})
            try:
                ggml_structures.check_tensors(library)
            except ggml_structures.UnknownLayout as error:
                assert "nothing is recorded" in str(error)
            else:
                raise AssertionError(f"{wrong} was taken")
            finally:
                ggml_structures.GgmlTensor = ordinary

    def test_the_command_line(self):
        """A model with a tokenizer: its text, cut into sequences."""
        text, folder = self.folder("text.txt"), self.folder("command")
        text.write_text("The quick brown fox jumps over the lazy dog. " * 9, encoding="utf-8")
        given = ["--model", smollm2_file(), "--out", folder, "--text", text, "--tokens", "70", "--sequence", "32"]
        given += ["--include", "blk.0.attn_*", "blk.29.ffn_down", "--dtype", "bf16"]
        done = subprocess.run([sys.executable, TAP, *given], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("70 tokens, 3 shards"), done.stdout
        rows = [load_shapes(shard) for shard in shards(folder)]
        widths = {"blk.0.attn_q": 576, "blk.0.attn_output": 576, "blk.29.ffn_down": 1536}
        expected = [{name: [count, width] for name, width in widths.items()} for count in (32, 32, 6)]
        assert rows == expected, rows
        given[given.index(folder)] = self.folder("command-full")
        given += ["--max-bytes", "200K", "--wait", "0"]
        full = subprocess.run([sys.executable, TAP, *given], capture_output=True, text=True)
        assert full.returncode == 1 and "2 shards of 38 rows had no room" in full.stderr, full.stderr

    def test_the_three_lines_of_its_documentation(self):
        indented = [line[4:] for line in llama_cpp.__doc__.splitlines() if line.startswith("    ")]
        assert len(indented) == 3, indented
        text, folder = self.folder("prompts.txt"), self.folder("documented")
        text.write_text("Once upon a time", encoding="utf-8")
        program = "\n".join(indented)
        guide = (TAP.parent.parent / "docs/gguf.md").read_text(encoding="utf-8")
        assert f"```python\n{program}\n```\n" in guide, "docs/gguf.md shows other lines"
        for name, path in (("model-F16.gguf", smollm2_file()), ("activations", folder), ("prompts.txt", text)):
            assert program.count(f'"{name}"') == 1, program
            program = program.replace(f'"{name}"', repr(str(path)))
        exec(compile(program, TAP, "exec"), {})
        (shard,) = shards(folder)
        assert len(load_file(shard)) == 4 * 30 and len(json.loads(metadata(shard)["qera.linears"])) == 7 * 30

    def test_sequences_begin_as_the_vocabulary_says(self):
        with llama_cpp.RecordedModel(self.model, self.folder("begin"), sequence=8) as running:
            tokens = list(range(10, 27))
            assert running.sequences(tokens) == [tokens[:8], tokens[8:16], tokens[16:]]
            running.llama.vocab_get_add_bos, running.llama.vocab_bos = lambda _: True, lambda _: 1
            assert running.sequences(tokens) == [[1, *tokens[:7]], [1, *tokens[7:14]], [1, *tokens[14:]]]
            running.sequence = 1
            self.check_refused(lambda: running.sequences(tokens), "BOS alone")

    def check_refused(self, call, said):
        try:
            call()
        except ValueError as error:
            assert said in str(error), error
        else:
            raise AssertionError(f"not refused: {said}")

    def test_numbers_of_tokens_below_one_are_refused(self):
        for option in ("--tokens", "--sequence"):
            for number in ("-1", "0", "1.5"):
                given = ["--model", smollm2_file(), "--out", self.folder("below"), "--text", TAP, option, number]
                done = subprocess.run([sys.executable, TAP, *given], capture_output=True, text=True)
                said = f"argument {option}: '{number}' is no number of tokens: 1 or more"
                assert done.returncode == 2 and said in done.stderr, done
        for number in (0, -1):
            self.check_refused(
                lambda: llama_cpp.RecordedModel(self.model, self.folder("below"), sequence=number),
                f"a sequence of {number} tokens",
            )
        assert not self.folder("below").exists()
        with llama_cpp.RecordedModel(self.model, self.folder("below-feed"), sequence=8) as running:
            running.tokenize = lambda *_: SEQUENCE
            for number in (0, -1):
                self.check_refused(lambda: running.feed("text", tokens_at_most=number), f"{number} tokens at most")
            assert running.feed("text", tokens_at_most=1) == 1

    def test_bad_tokens_and_models(self):
        with llama_cpp.RecordedModel(self.model, self.folder("tokens"), sequence=64) as running:
            for tokens in ([], [TOKENS], [-1], [0] * 65):
                try:
                    running.feed_tokens(tokens)
                except ValueError as error:
                    assert "tokens of at most 64" in str(error)
                else:
                    raise AssertionError(f"{tokens} was taken")
        done = subprocess.run(
            [sys.executable, TAP, "--model", __file__, "--out", self.folder("none"), "--text", __file__],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1 and done.stderr.startswith("tap: llama.cpp does not load"), done.stderr
        assert "magic" in done.stderr, done.stderr
