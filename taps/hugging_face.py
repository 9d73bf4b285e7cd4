"""Records what the linear layers of a PyTorch model read, as shards that qera-daemon takes.

    from hugging_face import Tap  # this folder is on the path: PYTHONPATH=taps
    with Tap(model, "activations"):
        model(**batch)  # or model.generate(...): the model is used as always

It is one file, for torch alone, made for the models of Hugging Face Transformers: copy it or import it. Each call of
the model leaves one shard: for every distinct input its rows, as they came, from every time a layer was called. Which
rows are padding it learns from the `attention_mask` that the layer's own part of the model was given. What it cannot
record it leaves out, and says so once on standard error; a model's own computation it never stops. See
docs/recording.md.
"""

import ctypes
import fcntl
import fnmatch
import inspect
import itertools
import json
import os
import pathlib
import re
import sys
import threading
import time
import weakref

import torch

GIB = 2**30
STORED = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
BITS = {4: torch.int32, 2: torch.int16}
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
TASKS = {
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
}
WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
OWN_TOKENS = ("input_ids", "inputs_embeds", "hidden_states")
FOREIGN = ("encoder_hidden_states", "key_value_states")
# Who is given one of these beside text, or may be given text for a decoder, has layers of several streams, and its mask
# is of one of them.
OTHER_STREAM = re.compile(r"pixel|image|video|audio|visual|input_features|input_values")
DECODER = "decoder_input_ids"
HIDDEN = -9000.0  # additive masks have -10000 or the type's least number where a key is hidden
HANDS_KEYWORDS = "with_kwargs" in inspect.signature(torch.nn.Module.register_forward_pre_hook).parameters
HANDS_FAILURES = "always_call" in inspect.signature(torch.nn.Module.register_forward_hook).parameters
NOTHING, INHERITED = "no row is padding", "the mask of the module around it"


def untraced(hook):
    """A hook that torch.compile leaves as it is: what it runs is compiled up to the hook, and from there on."""
    disable = getattr(getattr(torch, "compiler", None), "disable", None)
    return disable(hook) if disable else hook


def unwrapped(model):
    """The model inside what compiles, spreads or adapts it."""
    inside, kind = model._modules, type(model)
    if any(name in inside for name in WRAPPERS):
        return unwrapped(next(inside[name] for name in WRAPPERS if name in inside))
    if "module" in inside and ("DataParallel" in kind.__name__ or kind.__name__ == "DeepSpeedEngine"):
        return unwrapped(inside["module"])
    if kind.__module__.split(".")[0] == "peft":
        name = next((name for name in ("base_model", "model") if name in inside), None)
        return unwrapped(inside[name]) if name else model
    return model


def named(module, name="", seen=None):
    """A module and all in it with the names that the checkpoint has for them, each once."""
    seen = set() if seen is None else seen
    if id(module) in seen:
        return
    seen.add(id(module))
    yield name, module
    if "original_module" in module._modules:  # PEFT serves a copy of it
        return
    adapted = "base_layer" in module._modules  # PEFT's, with its A and B beside the layer
    for key, child in module._modules.items():
        if child is not None and not (adapted and key != "base_layer"):
            own = name if adapted or key in WRAPPERS else f"{name}.{key}" if name else key
            yield from named(child, own, seen)


def as_linear(name, module):
    """What `qera.linears` says of a module, if it is a linear layer."""
    if isinstance(module, torch.nn.Linear):
        return {"name": name, "in": module.in_features, "out": module.out_features, "transposed": False}
    conv1d = getattr(sys.modules.get("transformers.pytorch_utils"), "Conv1D", ())
    if isinstance(module, conv1d):
        rows, columns = module.weight.shape
        return {"name": name, "in": rows, "out": columns, "transposed": True}
    return None


def recomputing():
    """Whether autograd calls: gradient checkpointing runs a second time what was recorded the first time."""
    if hasattr(torch._C, "_current_graph_task_id"):
        return torch._C._current_graph_task_id() != -1
    frame = sys._getframe(1)
    while frame:
        code = frame.f_code
        if code.co_name in ("apply", "unpack") and code.co_filename.endswith(
            (os.path.join("autograd", "function.py"), os.path.join("utils", "checkpoint.py"))
        ):
            return True
        frame = frame.f_back
    return False


def visible(mask):
    """Which keys of a mask count, [batch, keys] on the CPU; None where that cannot be known."""
    mask = mask.detach().to("cpu")
    if mask.dim() not in (2, 3, 4) or not mask.numel():
        return None
    if mask.dtype == torch.bool:
        return mask if mask.dim() == 2 else None  # classes differ in what True means in others
    low, high = mask.min(), mask.max()
    if low < 0 and high <= 0 or high == 0 and mask.dim() > 2 and mask.is_floating_point():
        seen = mask > HIDDEN
    elif ((mask == 0) | (mask == 1)).all():
        seen = mask == 1
    else:
        return None
    for _ in range(mask.dim() - 2):  # heads and queries: what none of them may see is padding
        seen = seen.any(1)
    return seen


class Frame:
    """A module at work that takes a mask, or around which nothing else is at work."""

    def __init__(self, key, signature, args, kwargs):
        given = dict(kwargs)
        if signature is not None:
            bound = signature.bind_partial(*args, **kwargs).arguments
            for name, value in bound.items():
                kind = signature.parameters[name].kind
                given |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
        names = set(given) if signature is None else set(given) | set(signature.parameters)
        others = [name for name, value in given.items() if torch.is_tensor(value) and OTHER_STREAM.search(name)]
        self.key, self.has_streams = key, DECODER in names or bool(others)
        self.handed, self.seen = None, None  # a mask that it was given; what that says
        own = next((given[name] for name in OWN_TOKENS if torch.is_tensor(given.get(name))), None)
        if own is None:
            own = next((x for x in given.values() if torch.is_tensor(x)), None)
        self.rows = tuple(own.shape[:2]) if own is not None and own.dim() >= 2 else None
        mask, source = given.get("attention_mask"), given.get("key_value_states")
        self.mask = INHERITED if mask is not None or "attention_mask" not in names else NOTHING
        self.foreign = []
        if torch.is_tensor(source):  # the mask is of what is attended to
            self.handed, self.mask = mask, INHERITED
            self.foreign.append((source, mask))
        elif torch.is_tensor(mask):
            self.handed, self.mask = mask, mask
        if torch.is_tensor(given.get("encoder_hidden_states")) and "encoder_attention_mask" in names:
            self.foreign.append((given["encoder_hidden_states"], given.get("encoder_attention_mask")))

    def understood(self):
        """Which keys count, [batch, keys]; None where the mask does not tell."""
        if self.seen is None:
            self.seen = (visible(self.mask),)  # once: it is read from the device
        return self.seen[0]

    def marks(self, shape):
        """Which of rows [..., in_features] count, in their shape; None where the mask is not of such rows."""
        seen = self.understood()
        flat = len(shape) == 2
        batch, length = self.rows or (0, 0) if flat else (shape[0], torch.Size(shape[1:-1]).numel())
        if seen is None or flat and shape[0] != batch * length:
            return None
        if self.mask.dim() == 2 and self.rows and self.rows[1] == length < seen.shape[1]:
            seen = seen[:, seen.shape[1] - length :]  # the rest is in the KV cache, and was recorded with it
        if seen.shape[1] != length or seen.shape[0] not in (1, batch):
            return None
        seen = seen.expand(batch, length)
        return seen.reshape(-1) if flat else seen.reshape(shape[0], length)


class Kept:
    """One input: a copy of its rows, and which of them count."""

    def __init__(self, x, version, dtype, marks):
        self.of, self.version, self.marks = weakref.ref(x), version, marks
        dtype = dtype or (x.dtype if x.dtype in STORED else torch.float32)
        rows = x.detach().to("cpu", dtype, non_blocking=x.is_cuda, copy=True)
        self.stream = torch.cuda.current_stream(x.device) if x.is_cuda else None
        self.rows = rows[None] if rows.dim() == 1 else rows.flatten(1, -2) if rows.dim() > 3 else rows

    def is_still(self, x, version):
        """Whether x is this input. What inference_mode makes has no version, and is compared."""
        if self.of() is not x or self.version != version:
            return False
        if version is not None:
            return True
        if self.stream:
            self.stream.synchronize()
        again = x.detach().to("cpu", self.rows.dtype).reshape(self.rows.shape)
        return torch.equal(*(rows.contiguous().view(BITS[rows.element_size()]) for rows in (self.rows, again)))


class Work(threading.local):
    """What one thread is at."""

    def __init__(self):
        self.stack, self.off = [], False
        self.forget()

    def forget(self):
        self.calls, self.seen, self.foreign, self.odd = {}, {}, {}, {}


class ShardFolder:
    """Where shards wait for the daemon, and how many bytes of them may."""

    def __init__(self, path, max_bytes, rank):
        self.path, self.max_bytes, self.rank, self.count, self.last = pathlib.Path(path), max_bytes, rank, 0, 0
        if not self.path.is_dir():
            raise FileNotFoundError(f"tap: {self.path} is no folder: make the one that qera-daemon watches (mkdir -p)")
        for part in self.path.glob(f".tap-*-{rank}-*.part"):  # of a tap that was killed: who writes holds a lock
            try:
                with open(part, "rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    part.unlink()
            except (BlockingIOError, FileNotFoundError):
                pass

    def has_room(self, size):
        waiting = 0
        for entry in os.scandir(self.path):
            if entry.name.endswith(".safetensors") and not entry.name.startswith("."):
                try:
                    waiting += entry.stat().st_size
                except FileNotFoundError:
                    pass  # the daemon took it
        return waiting + size <= self.max_bytes

    def put(self, tensors, metadata):
        """Writes a shard and gives it its name, where there is room: whether there was."""
        header, at = {"__metadata__": metadata}, 0
        for name, tensor in tensors.items():
            size = tensor.numel() * tensor.element_size()
            kind = STORED.get(tensor.dtype, "U8")
            header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [at, at + size]}
            at += size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self.last = 8 + len(text) + at
        if not self.has_room(self.last):
            return False
        self.count += 1
        name = f"{time.time_ns():020d}-{self.rank}-{os.getpid()}-{self.count:06d}"
        part = self.path / f".tap-{name}.part"
        try:
            with open(part, "xb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.write(len(text).to_bytes(8, "little") + text)
                for tensor in tensors.values():
                    size = tensor.numel() * tensor.element_size()
                    file.write((ctypes.c_char * size).from_address(tensor.data_ptr()))
                file.flush()
                os.rename(part, self.path / f"{name}.safetensors")
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return True


class Tap:
    """Records a model from now until `close`, or to the end of a `with` block.

    include     globs of names (`model.layers.0.*`); what none matches is listed as a layer, without rows
    dtype       of stored rows: f32, f16, bf16; as they come where it is left out
    every       of so many calls of the model one is recorded
    max_rows    recording ends with the call that reaches so many rows (tokens that are no padding)
    max_bytes   of shards that wait in the folder; calls for which there is no room are not recorded, and counted
    strict      what is left out, or fails, raises, instead of being said once: for tests, not for serving
    source      `full-precision` or `quantized`; found out where it is left out
    model_name  for `qera.model`: the name of the checkpoint's folder; '' leaves it out
    task_type   PEFT's word for what the model is for; by its class where it is left out
    """

    def __init__(
        self,
        model,
        folder,
        *,
        include=("*",),
        dtype=None,
        every=1,
        max_rows=None,
        max_bytes=8 * GIB,
        strict=False,
        source=None,
        model_name=None,
        task_type=None,
    ):
        if dtype is not None and dtype not in DTYPES:
            raise ValueError(f"tap: dtype {dtype!r} is none of {', '.join(DTYPES)}")
        self.dtype, self.every, self.max_rows, self.strict = DTYPES.get(dtype), every, max_rows, strict
        self.include = [include] if isinstance(include, str) else list(include)
        self.shards, self.rows, self.calls, self.dropped_shards = 0, 0, 0, 0
        self.left_out, self.said, self.handles, self.group_of = {}, set(), [], {}
        self.work, self.lock, self.new_group = Work(), threading.RLock(), itertools.count()
        self.model, self.inner = model, unwrapped(model)
        layers = self._layers()
        if not layers:
            kind = type(self.inner).__name__
            raise ValueError(f"tap: {kind} has no linear layer to record (torch.nn.Linear, Conv1D)")
        self.folder = ShardFolder(folder, max_bytes, rank())
        self.metadata = self._about(layers, source, model_name, task_type)
        self._hook(layers)

    def _layers(self):
        """Every linear layer by name, as `qera.linears` has it, but those whose weight is not theirs alone."""
        modules = list(named(self.inner))
        users = {}
        for _, module in modules:
            for parameter in module._parameters.values():
                users.setdefault(id(parameter), set()).add(id(module))
        layers = {}
        for name, module in modules:
            entry = as_linear(name, module)
            weight = module._parameters.get("weight")
            if entry and weight is None:
                self.left_out[name] = "its weight is computed, and no tensor of the checkpoint"
            elif entry and len(users[id(weight)]) > 1:
                self.left_out[name] = "its weight is another module's, too"
            elif entry:
                layers[name] = (module, entry)
        return layers

    def _about(self, layers, source, model_name, task_type):
        kind, config = type(self.inner).__name__, getattr(self.inner, "config", None)
        packed = getattr(config, "quantization_config", None) is not None
        packed = packed or any(not module.weight.is_floating_point() for module, _ in layers.values())
        about = {
            "qera.linears": json.dumps([entry for _, entry in layers.values()]),
            "qera.source": source or ("quantized" if packed else "full-precision"),
        }
        pretrained = getattr(sys.modules.get("transformers"), "PreTrainedModel", ())
        if isinstance(self.inner, pretrained):
            about["qera.class"] = kind
            task_type = task_type or next((task for end, task in TASKS.items() if kind.endswith(end)), None)
            two_sided = getattr(config, "is_encoder_decoder", False)
            if not task_type and two_sided and kind.endswith(("Generation", "MTModel")):
                task_type = "SEQ_2_SEQ_LM"
        if task_type:
            about["qera.task_type"] = task_type
        checkpoint = getattr(config, "_name_or_path", None)  # a hub's name says nothing of the folder's
        if model_name is None and checkpoint and os.path.isdir(checkpoint):
            model_name = os.path.basename(os.path.realpath(checkpoint))
        if model_name:
            about["qera.model"] = model_name
        tp_size = getattr(self.inner, "_tp_size", None) or 1
        return about | ({"qera.tp_size": str(tp_size)} if tp_size > 1 else {})

    def _hook(self, layers):
        for name, (module, entry) in layers.items():
            self._before(module, lambda x, more, name=name, width=entry["in"]: self._read(name, width, x, more))
        frames = {}
        for module in [self.model, self.inner, *(module for _, module in named(self.inner))]:
            try:
                signature = inspect.signature(module.forward)
            except (TypeError, ValueError):
                signature = None
            takes = set(signature.parameters) if signature else set()
            if module in (self.model, self.inner) or takes & {"attention_mask", *FOREIGN}:
                frames.setdefault(id(module), (module, signature))
        for key, (module, signature) in frames.items():
            self._before(module, lambda x, more, key=key, s=signature: self._enter(key, s, x, more))
            self._after(module, lambda key=key: self._leave(key))

    def _before(self, module, function):
        own = weakref.ref(module)

        @untraced
        def hook(module, args, kwargs):
            # A copy of the model has the hooks, and is another model; a replica of DataParallel is not.
            if module is own() or getattr(module, "_is_replica", False):
                self._guarded(lambda: function(args, kwargs))

        if HANDS_KEYWORDS:
            self.handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
            return
        # torch 1 hands hooks no keyword arguments. Who calls a hook has them, and torch 1 does not change any more.
        self.handles.append(
            module.register_forward_pre_hook(lambda m, args: hook(m, args, sys._getframe(1).f_locals.get("kwargs", {})))
        )

    def _after(self, module, function):
        own, options = weakref.ref(module), {"always_call": True} if HANDS_FAILURES else {}

        @untraced
        def hook(module, args, output):
            if module is own() or getattr(module, "_is_replica", False):
                self._guarded(function)

        self.handles.append(module.register_forward_hook(hook, **options))

    def _guarded(self, function):
        try:
            function()
        except Exception as error:
            if self.strict:
                raise
            self.say(type(error).__name__, f"{type(error).__name__}: {error}; what it hit is not recorded")

    def say(self, key, message):
        if self.strict:
            raise RuntimeError(f"tap: {message}")
        self._note(key, message)

    def _note(self, key, message):
        if key not in self.said:
            self.said.add(key)
            print(f"tap: {message}", file=sys.stderr, flush=True)

    def _enter(self, key, signature, args, kwargs):
        work = self.work
        before = next((at for at, frame in enumerate(work.stack) if frame.key == key), None)
        if before is not None:  # what it is at failed before it came to its end
            del work.stack[before:]
            work.forget()
        outermost = not work.stack
        work.stack.append(Frame(key, None, (), {}))
        if outermost:
            self._finish(work)
            work.off = True
            work.off = recomputing() or not self._wants_call()
        if work.off:
            return
        work.stack[-1] = frame = Frame(key, signature, args, kwargs)
        for source, mask in frame.foreign:
            known = work.foreign.get(id(source))
            if known is None or known[0]() is not source:
                other = Frame(key, None, (), {"hidden_states": source, "attention_mask": mask})
                work.foreign[id(source)] = (weakref.ref(source), other)

    def _leave(self, key):
        work = self.work
        at = next((at for at, frame in enumerate(work.stack) if frame.key == key), len(work.stack))
        del work.stack[at:]
        if not work.stack:
            off, work.off = work.off, False
            if off:
                work.forget()
            self._finish(work)

    def _wants_call(self):
        with self.lock:
            self.calls += 1
            if (self.calls - 1) % self.every:
                return False
            try:
                room = self.folder.has_room(self.folder.last)
            except OSError as error:
                self._fail(error)
                return False
            if not room:
                self._drop()
            return room

    def _fail(self, error):
        self.dropped_shards += 1
        self.say("disk", f"{self.folder.path} takes no shard ({error.strerror}): calls are lost until it does")

    def _drop(self):
        self.dropped_shards += 1
        limit = f"max_bytes {self.folder.max_bytes}"
        self._note("full", f"{self.folder.path} is full ({limit}): calls are not recorded until there is room")

    def _read(self, name, width, args, kwargs):
        work = self.work
        if work.off or not work.stack and recomputing():
            return
        if not work.stack and name in work.calls:  # nothing else says that a call has ended
            self._finish(work)
        x = args[0] if args else kwargs.get("input", kwargs.get("x"))
        problem = odd(x, width)
        if problem:
            work.odd[name] = problem
            return
        if x.numel():
            work.calls.setdefault(name, []).append(self._keep(work, name, x))

    def _keep(self, work, name, x):
        version = None if x.is_inference() else x._version
        known = work.seen.get(id(x))
        if known is None or not known.is_still(x, version):
            known = work.seen[id(x)] = Kept(x, version, self.dtype, self._marks(work, name, x))
        return known

    def _marks(self, work, name, x):
        """Which rows count; None: all."""
        shape, known = tuple(x.shape), work.foreign.get(id(x))
        frames = [known[1]] if known and known[0]() is x else reversed(work.stack)
        given, derived, handed = [], [], False
        for frame in frames if len(shape) > 1 else ():
            if frame.mask is NOTHING:
                return None
            if torch.is_tensor(frame.mask):
                if frame.has_streams and not handed:  # which stream is this layer's?
                    return None
                (given if frame.mask.dim() == 2 else derived).append(frame)
            handed = handed or frame.handed is not None
        for frame in (*given, *derived):
            marks = frame.marks(shape)
            if marks is not None:
                return None if marks.all() else marks
        self._say_unmasked(name, shape, [*given, *derived])
        return None

    def _say_unmasked(self, name, shape, frames):
        for frame in frames:
            seen, form = frame.understood(), f"an attention_mask of shape {tuple(frame.mask.shape)}"
            if seen is None:
                self.say("mask", f"{form} and type {frame.mask.dtype} does not tell padding: all rows are recorded")
            elif len(shape) > 2 and not seen.all():
                self.say("unmasked", f"{form} is not of the rows {list(shape)} of {name}: all of them are recorded")

    def _finish(self, work):
        """Writes what was read since the last time."""
        calls, odd_ones = work.calls, work.odd
        for kept in {id(k): k for parts in calls.values() for k in parts}.values():
            if kept.stream:
                kept.stream.synchronize()
        work.forget()
        with self.lock:
            for name, problem in odd_ones.items():
                calls.pop(name, None)
                self._leave_out(name, problem)
            if calls and self.handles:
                self._write(self._groups(calls))

    def _leave_out(self, name, problem):
        if name not in self.left_out or self.strict:
            self.left_out[name] = problem
            self.say(("odd", name), f"{name} is left out of shards: {problem}")

    def _groups(self, calls):
        """Lists of the layers that read one input, with it: only those that did so in every call before, too."""
        now = {}
        for name, parts in calls.items():
            now.setdefault(tuple(id(kept) for kept in parts), []).append(name)
        held = {}  # group -> the inputs that its layers read now
        for key, names in now.items():
            for name in names:
                held.setdefault(self.group_of.get(name), set()).add(key)
        groups = {}
        for key, names in now.items():
            olds = {self.group_of[name] for name in names if name in self.group_of}
            for name in names:
                old = self.group_of.get(name, next(iter(olds)) if len(olds) == 1 else None)
                groups.setdefault((key, old), []).append(name)
        for (_, old), names in groups.items():
            group = next(self.new_group) if old is None or len(held.get(old, ())) > 1 else old
            self.group_of.update(dict.fromkeys(names, group))
        return [(names, calls[names[0]]) for names in groups.values()]

    def _write(self, groups):
        tensors, shares, rows = {}, [], 0
        for names, parts in groups:
            shares.append(names)
            name = next((name for name in names if self._is_included(name)), None)
            if name is None:
                continue
            x, marks = joined(parts)
            counting = x.flatten(0, -2).shape[0] if marks is None else int(marks.sum())
            if not counting:
                continue
            if not is_finite(x, marks):
                self._leave_out(name, "its input has NaN or infinite values")
                shares.pop()
                continue
            tensors[name], rows = x, max(rows, counting)
            if marks is not None:
                tensors[f"{name}::mask"] = marks.to(torch.uint8).contiguous()
        if not tensors:
            return
        about = self.metadata | {"qera.shares": json.dumps(shares)}
        if self.dropped_shards:
            about["qera.dropped_shards"] = str(self.dropped_shards)
        try:
            written = self.folder.put(tensors, about)
        except OSError as error:
            self._fail(error)
            return
        if not written:
            self._drop()
            return
        self.shards, self.rows = self.shards + 1, self.rows + rows
        if self.max_rows is not None and self.rows >= self.max_rows:
            self._unhook()

    def _is_included(self, name):
        return any(fnmatch.fnmatchcase(name, glob) for glob in self.include)

    def _unhook(self):
        handles, self.handles = self.handles, []
        for handle in handles:
            handle.remove()

    def close(self):
        """Takes the hooks off."""
        if self.handles:
            self._guarded(lambda: self._finish(self.work))
        self._unhook()
        if self.dropped_shards:
            self._note("end", f"{self.dropped_shards} calls were not recorded, {self.shards} were")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def rank():
    """Of this process among those that run the model."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank()
    return int(os.environ.get("RANK", "0"))


def odd(x, width):
    """Why x is no rows of a layer; empty if it is."""
    if not torch.is_tensor(x):
        return f"its input is a {type(x).__name__}"
    if x.layout != torch.strided or x.is_quantized or not x.is_floating_point() or x.is_meta:
        return f"its input is of type {x.dtype}, {x.layout}, on {x.device}"
    if not x.dim() or x.shape[-1] != width:
        return f"its input has shape {tuple(x.shape)}, not [..., {width}]"
    return ""


def is_finite(x, marks):
    """Whether all values are numbers in the rows that count."""
    if torch.isfinite(x.sum()):  # any that is none would show, and a sum costs a fraction of looking at each
        return True
    finite = torch.isfinite(x).all(-1)
    return bool((finite if marks is None else finite | ~marks).all())


def joined(parts):
    """The rows of all times that a layer was called in a call of the model, and which of them count.

    Those of one sequence stay together: what the daemon holds out to judge by is whole sequences."""
    if all(kept.rows.dim() == 3 and len(kept.rows) == len(parts[0].rows) for kept in parts):
        rows, axis = [kept.rows for kept in parts], 1
    else:
        rows, axis = [kept.rows.flatten(0, -2) for kept in parts], 0
    x = (rows[0] if len(rows) == 1 else torch.cat(rows, axis)).contiguous()
    if all(kept.marks is None for kept in parts):
        return x, None
    every = [torch.ones(k.rows.shape[:-1], dtype=torch.bool) if k.marks is None else k.marks for k in parts]
    return x, torch.cat([m.reshape(r.shape[:-1]) for m, r in zip(every, rows)], axis)
