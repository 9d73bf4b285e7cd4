"""Records the inputs of a llama.cpp model's linear layers as shards that qera-daemon reads.

    from llama_cpp import RecordedModel  # taps/ is on the path: PYTHONPATH=taps
    with RecordedModel("model-F16.gguf", "activations") as model:
        model.feed(open("prompts.txt", encoding="utf-8").read())

or, from a shell: `python3 taps/llama_cpp.py --model model-F16.gguf --out activations --text
prompts.txt`. It needs numpy and the PyPI package xllamacpp, which is llama.cpp built for Python. A
program that makes its llama.cpp contexts itself keeps doing so, and hands its
`llama_context_params` to `Tap.attach` first.

What is recorded: of each product of a weight `blk.N.NAME.weight` with f32 rows, those rows, exactly
as llama.cpp computed them, under the key `blk.N.NAME`; layers that were given one tensor share one
key. Left out, by name: experts (their products take rows of their choice, so that no tensor holds
what one expert read), routers, the output layer. Rows are f32 by default: they are the figures
themselves. bf16 and f16 take half the bytes, and cost a relative error of 2^-9 and 2^-11 in each
figure; what does not fit f16 stays f32.

A shard is one sequence of tokens, written under a hidden name and renamed. What waits in the folder
takes at most `max_bytes`: where a shard has no room the tap waits up to `wait` seconds for the
daemon to take others away (`--consume delete`), then drops it, says so, and counts it. `qera.model`
is not set: the same model is another file as a checkpoint, and the daemon would refuse the shards
by its name.
"""

import argparse
import collections
import ctypes
import fnmatch
import json
import os
import pathlib
import re
import sys

import numpy as np

sys.path.append(str(pathlib.Path(__file__).resolve().parent))  # at the end: an installed llama_cpp stays the first
from ggml_structures import (
    BF16,
    F16,
    F32,
    Batch,
    ContextParams,
    EvalCallback,
    GgmlTensor,
    LogCallback,
    ModelParams,
    UnknownLayout,
    check_tensors,
    xllamacpp_library,
)
from shard_folder import DTYPES, ShardFolder, encode, safetensors_pieces

GIB = 2**30
LAYER = re.compile(r"(?:[^#]+#)?(blk\.\d+\.[^#]+)\.weight(?:#\d+)?")  # another device's copy is DEVICE#NAME#N
ROUTER = re.compile(r"\.ffn_gate_inp(_shexp)?$")


class Evaluation:
    """What one pass through the graph has shown: who read which tensor."""

    def __init__(self):
        self.readers = collections.OrderedDict()  # address of the rows' tensor -> names
        self.asked = set()


class Tap:
    """Records what a llama.cpp context computes: `attach` it to the parameters that the context is
    made from.

    include    globs of names (`blk.0.*`); what none matches is listed as a layer, and its rows are not recorded.
               `flush` raises where one matches no layer
    dtype      of stored rows: f32, f16, bf16
    rows       rows after which a shard is written, where nobody calls `flush`
    max_bytes of shards that wait in the folder; wait: seconds to wait for room before a shard is
    dropped library what ctypes loaded llama.cpp as; xllamacpp's where it is left out
    """

    def __init__(self, folder, *, include=("*",), dtype="f32", rows=512, max_bytes=8 * GIB, wait=0.0, library=None):
        if dtype not in DTYPES:
            raise ValueError(f"dtype {dtype!r} is none of {', '.join(DTYPES)}")
        self.library = library or xllamacpp_library()
        self.mul_mat = check_tensors(self.library)
        self.library.ggml_nbytes.argtypes = [ctypes.c_void_p]
        self.library.ggml_nbytes.restype = ctypes.c_size_t
        get = self.library.ggml_backend_tensor_get
        get.argtypes, get.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t], None
        self.folder, self.dtype, self.rows = ShardFolder(folder, max_bytes, wait), dtype, rows
        self.include = [include] if isinstance(include, str) else list(include)
        self.linears, self.left_out, self.types = {}, set(), set()
        self.now, self.groups, self.kept = Evaluation(), None, {}
        self.shards, self.dropped_shards, self.dropped_rows, self.calls, self.error = 0, 0, 0, 0, None
        self._callback = EvalCallback(self._evaluate)

    def attach(self, params):
        """Has the contexts that are made from these `llama_context_params` recorded. Keep the tap
        alive with them."""
        params.cb_eval = ctypes.cast(self._callback, type(params.cb_eval))
        params.cb_eval_user_data = None

    def _evaluate(self, address, ask, _):
        """llama.cpp asks whether a node's result is wanted, then shows it. What is wrong never
        stops the model."""
        try:
            self.calls += 1
            return self._asked(address) if ask else self._shown(address)
        except BaseException as error:  # told by flush
            self.error = self.error or error
            return not ask

    def _asked(self, address):
        node = GgmlTensor.from_address(address)
        if self.error or not node.src[0]:
            return False
        weight = GgmlTensor.from_address(node.src[0])
        named = LAYER.fullmatch(weight.name.decode(errors="replace"))
        if not named:
            return False
        name = named[1]
        if node.op != self.mul_mat or ROUTER.search(name) or weight.ne[2] * weight.ne[3] != 1:
            self.left_out.add(name)
            return False
        if name in self.now.asked:
            self._end_evaluation()
            if self.kept and max(sum(map(len, parts)) for parts in self.kept.values()) >= self.rows:
                self._write(self.groups)
        self.now.asked.add(name)
        self.linears[name] = {"name": name, "in": weight.ne[0], "out": weight.ne[1]}
        self.types.add(weight.type)
        if not any(fnmatch.fnmatchcase(name, glob) for glob in self.include):
            return False
        self.now.readers.setdefault(node.src[1], []).append(name)
        return len(self.now.readers[node.src[1]]) == 1

    def _shown(self, address):
        node = GgmlTensor.from_address(address)
        first = self.now.readers[node.src[1]][0]
        self.kept.setdefault(first, []).append(self.read(node.src[1], first))
        return True

    def read(self, address, name):
        """A tensor's f32 rows, wherever and however they lie."""
        tensor = GgmlTensor.from_address(address)
        holder = GgmlTensor.from_address(tensor.view_src) if tensor.view_src else tensor
        if tensor.type != F32 or not holder.buffer:
            raise RuntimeError(f"the input of '{name}' is of ggml's type {tensor.type}, not f32, or in no buffer")
        raw = np.empty(self.library.ggml_nbytes(address), np.uint8)
        self.library.ggml_backend_tensor_get(address, raw.ctypes.data, 0, raw.nbytes)
        width, *outer = tensor.ne
        strides = [tensor.nb[at] for at in (3, 2, 1, 0)]
        rows = np.ndarray((*reversed(outer), width), np.float32, raw, 0, strides)
        return np.ascontiguousarray(rows.reshape(-1, width))

    def _end_evaluation(self):
        if not self.now.asked:
            return
        groups = {names[0]: names for names in self.now.readers.values()}
        if self.groups is not None and groups != self.groups:
            # Layers that shared an input share none now: what was recorded before is a shard of its
            # own.
            newest = {name: self.kept[name].pop() for name in groups if self.kept.get(name)}
            self._write(self.groups)
            self.kept = {name: [rows] for name, rows in newest.items()}
        self.groups, self.now = groups, Evaluation()

    def _unmatched(self):
        """What is wrong with `include`, if something is: each of its globs is for a layer, as the
        daemon's are."""
        globs = [glob for glob in self.include if not fnmatch.filter(self.linears, glob)]
        if not globs or not self.linears:
            return None
        text = f"include: {' and '.join(map(repr, globs))}: matches none of the {len(self.linears)} layers"
        named = f"{text}; a layer's name is '{next(iter(self.linears))}'"
        out = [name for name in sorted(self.left_out) for glob in globs if fnmatch.fnmatchcase(name, glob)]
        return ValueError(f"{named}, and '{out[0]}' is left out always" if out else named)

    def _write(self, groups):
        tensors, kept = {}, {name: np.concatenate(parts) for name, parts in self.kept.items() if parts}
        self.kept, self.groups = {}, None
        for name, rows in kept.items():
            tensors[name] = encode(rows, self.dtype)
        if not tensors:
            return
        metadata = {
            "qera.linears": json.dumps(list(self.linears.values())),
            "qera.shares": json.dumps(list(groups.values())),
            "qera.source": "full-precision" if self.types <= {F32, F16, BF16} else "quantized",
        }
        if self.folder.put(safetensors_pieces(tensors, metadata)):
            self.shards += 1
            return
        rows = max(map(len, kept.values()))
        if not self.dropped_shards:
            limit = f"max_bytes {self.folder.max_bytes}"
            print(f"tap: {self.folder.path} is full ({limit}): a shard of {rows} rows is dropped", file=sys.stderr)
        self.dropped_shards, self.dropped_rows = self.dropped_shards + 1, self.dropped_rows + rows

    def flush(self):
        """Writes what was recorded and not written yet, as one shard; raises what went wrong while
        recording."""
        if not self.error:
            self._end_evaluation()
            self.error = self._unmatched()
        if not self.error:
            self._write(self.groups or {})
        if self.error:
            error, self.error, self.kept, self.now = self.error, None, {}, Evaluation()
            raise error

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.flush()


class Llama:
    """The functions of llama.cpp that running a model takes."""

    def __init__(self, library):
        ptr, i32 = ctypes.c_void_p, ctypes.c_int32
        of = {
            "context_default_params": (ContextParams,),
            "model_default_params": (ModelParams,),
            "log_set": (None, LogCallback, ptr),
            "backend_init": (None,),
            "model_load_from_file": (ptr, ctypes.c_char_p, ModelParams),
            "model_get_vocab": (ptr, ptr),
            "model_free": (None, ptr),
            "init_from_model": (ptr, ptr, ContextParams),
            "free": (None, ptr),
            "n_ctx": (ctypes.c_uint32, ptr),
            "n_ubatch": (ctypes.c_uint32, ptr),
            "get_memory": (ptr, ptr),
            "memory_clear": (None, ptr, ctypes.c_bool),
            "batch_init": (Batch, i32, i32, i32),
            "batch_free": (None, Batch),
            "decode": (i32, ptr, Batch),
            "tokenize": (i32, ptr, ctypes.c_char_p, i32, ptr, i32, ctypes.c_bool, ctypes.c_bool),
            "vocab_get_add_bos": (ctypes.c_bool, ptr),
            "vocab_bos": (i32, ptr),
            "vocab_n_tokens": (i32, ptr),
        }
        for name, (result, *arguments) in of.items():
            function = getattr(library, f"llama_{name}")
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)
        self.problems = []
        self._log = LogCallback(self._logged)
        self.log_set(self._log, None)

    def _logged(self, level, text, _):
        if level in (3, 4) and text:  # warnings, errors
            self.problems = [*self.problems[-9:], text.decode(errors="replace").strip()]

    def default_context(self):
        """Parameters of a context, if they are where they are expected to be."""
        params = self.context_default_params()
        sizes = (params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max, params.type_k, params.type_v)
        flags = (params.embeddings, params.offload_kqv, params.no_perf, params.op_offload, params.swa_full)
        if sizes != (512, 2048, 512, 1, F16, F16) or flags != (0, 1, 1, 1, 1) or params.cb_eval:
            raise UnknownLayout(f"llama_context_params is laid out otherwise (defaults read as {sizes}, {flags})")
        return params


class RecordedModel:
    """A GGUF model that runs in llama.cpp and is recorded. Options that are not named here are
    those of `Tap`.

    sequence    tokens of a sequence, and so rows of a shard; each begins with BOS where the vocabulary says so
    threads     of llama.cpp;  gpu_layers: blocks on the GPU, with a build of xllamacpp that has one
    """

    def __init__(self, model, folder, *, sequence=512, threads=None, gpu_layers=None, **options):
        if sequence < 1:
            raise ValueError(f"a sequence of {sequence} tokens: at least 1")
        self.tap = Tap(folder, rows=sequence, **options)
        self.llama, self.sequence = Llama(self.tap.library), sequence
        self.llama.backend_init()
        params = self.llama.model_default_params()
        params.n_gpu_layers = params.n_gpu_layers if gpu_layers is None else gpu_layers
        self.context, self.model = None, self.llama.model_load_from_file(os.fsencode(model), params)
        if not self.model:
            raise RuntimeError(f"llama.cpp does not load {model}: {'; '.join(self.llama.problems)}")
        self.vocabulary = self.llama.model_get_vocab(self.model)
        params = self.llama.default_context()
        params.n_ctx, params.n_batch, params.n_ubatch = sequence, min(sequence, 512), min(sequence, 512)
        params.n_threads = params.n_threads_batch = threads or os.cpu_count() or 1
        self.tap.attach(params)
        self.context = self.llama.init_from_model(self.model, params)
        if not self.context or self.llama.n_ctx(self.context) < sequence:
            raise RuntimeError(f"llama.cpp makes no context for {model}: {'; '.join(self.llama.problems)}")
        self.pass_tokens = self.llama.n_ubatch(self.context)

    def tokenize(self, text, special=False):
        """Tokens of a text, without any that the vocabulary would add. `special`: `<|im_start|>` is
        a token."""
        data, size = text.encode(), 0
        while True:
            tokens = (ctypes.c_int32 * size)()
            count = self.llama.tokenize(self.vocabulary, data, len(data), tokens, size, False, special)
            if count >= 0:
                return list(tokens[:count])
            size = -count

    def sequences(self, tokens):
        first = [self.llama.vocab_bos(self.vocabulary)] if self.llama.vocab_get_add_bos(self.vocabulary) else []
        step = self.sequence - len(first)
        if step < 1:
            raise ValueError("a sequence of 1 token is BOS alone: at least 2")
        return [first + tokens[at : at + step] for at in range(0, len(tokens), step)]

    def feed(self, text, special=False, tokens_at_most=None):
        """Runs a text through the model, cut into sequences; returns how many tokens that were."""
        if tokens_at_most is not None and tokens_at_most < 1:
            raise ValueError(f"{tokens_at_most} tokens at most: at least 1")
        tokens = self.tokenize(text, special)[:tokens_at_most]
        for sequence in self.sequences(tokens):
            self.feed_tokens(sequence)
        return len(tokens)

    def feed_tokens(self, tokens):
        """Runs one sequence, and writes its shard."""
        unknown = [token for token in tokens if not 0 <= token < self.llama.vocab_n_tokens(self.vocabulary)]
        if unknown or not 0 < len(tokens) <= self.sequence:
            raise ValueError(f"{len(tokens)} tokens of at most {self.sequence}; not in the vocabulary: {unknown[:5]}")
        self.llama.memory_clear(self.llama.get_memory(self.context), True)
        for at in range(0, len(tokens), self.pass_tokens):
            self._decode(tokens[at : at + self.pass_tokens], at)
        if not self.tap.calls:
            raise UnknownLayout("llama.cpp ran without asking the tap: llama_context_params is laid out otherwise")
        self.tap.flush()

    def _decode(self, tokens, start):
        batch = self.llama.batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for at, token in enumerate(tokens):
            batch.token[at], batch.pos[at], batch.n_seq_id[at], batch.seq_id[at][0] = token, start + at, 1, 0
            batch.logits[at] = 1  # else the last block computes one row of what it could
        result = self.llama.decode(self.context, batch)
        self.llama.batch_free(batch)
        if result:
            raise RuntimeError(f"llama_decode returned {result}: {'; '.join(self.llama.problems)}")

    def close(self):
        if self.context:
            self.llama.free(self.context)
        if self.model:
            self.llama.model_free(self.model)
        self.context = self.model = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def number_of_bytes(text):
    number = re.fullmatch(r"(\d+)([KMGT]?)", text)
    if not number:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of bytes, such as 500M or 8G")
    return int(number[1]) * 1024 ** " KMGT".index(number[2] or " ")


def number_of_tokens(text):
    if not re.fullmatch(r"0*[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of tokens: 1 or more")
    return int(text)


def main():
    parser = argparse.ArgumentParser(description="Records the inputs of a GGUF model's linear layers.")
    parser.add_argument("--model", required=True, help="GGUF file, of full precision if you have it")
    parser.add_argument("--out", required=True, help="the folder that qera-daemon watches")
    parser.add_argument("--text", required=True, nargs="+", type=pathlib.Path, help="UTF-8 files of text like yours")
    parser.add_argument("--tokens", type=number_of_tokens, help="of each file, at most")
    sequence = {"type": number_of_tokens, "default": 512, "help": "tokens that are read together (default 512)"}
    parser.add_argument("--sequence", **sequence)
    parser.add_argument("--special", action="store_true", help="the text has special tokens in it, as a chat template")
    parser.add_argument("--include", nargs="+", default=["*"], help="layers to record, as 'blk.0.*' (default all)")
    parser.add_argument("--dtype", choices=DTYPES, default="f32", help="of stored rows (default f32)")
    parser.add_argument("--max-bytes", type=number_of_bytes, default=8 * GIB, help="that may wait in OUT (default 8G)")
    parser.add_argument("--wait", type=float, default=600, help="seconds to wait for room there (default 600)")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--gpu-layers", type=int)
    given = vars(parser.parse_args())
    texts, tokens, special = given.pop("text"), given.pop("tokens"), given.pop("special")
    fed = 0
    try:
        with RecordedModel(given.pop("model"), given.pop("out"), **given) as model:
            for text in texts:
                fed += model.feed(text.read_text(encoding="utf-8"), special, tokens)
            tap = model.tap
    except (UnknownLayout, RuntimeError, ValueError, OSError) as error:
        sys.exit(f"tap: {error}")
    print(f"{fed} tokens, {tap.shards} shards in {tap.folder.path}, {len(tap.linears)} linear layers")
    if tap.left_out:
        print(f"left out: {', '.join(sorted(tap.left_out))}")
    if tap.dropped_shards:
        sys.exit(f"tap: {tap.dropped_shards} shards of {tap.dropped_rows} rows had no room and were dropped")


if __name__ == "__main__":
    main()
