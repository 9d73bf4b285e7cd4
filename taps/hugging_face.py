"""Records what the linear layers of a PyTorch model read, as shards that qera-daemon takes.

    from hugging_face import Tap  # this folder is on the path: PYTHONPATH=taps
    with Tap(model, "activations"):
        model(**batch)  # or model.generate(...): the model is used as always

It is one file, for torch alone, made for the models of Hugging Face Transformers: copy it or import
it. What it cannot record it leaves out, and says so once on standard error; a model's own
computation it never stops. See docs/recording.md.

How a row goes through it. While the model works, each thread's `Work` has a stack of `Frame`s: the
modules at work that take a mask, with the mask that each was given (`Tap._enter`, `Tap._leave`).
When a linear layer is called, `Tap._read` copies its input once (`Kept`) and notes by shapes and
identity alone whose rows they are (`Claim`). When the outermost module is done, `Tap._finish` reads
the masks (`Stream`). Where none of them hides anything all rows are written. Else a claim is kept
whole, is masked, or is in doubt: then the layer is left out of the shard, because no row that may
be padding is recorded, and no mask is guessed.
"""

import collections
import contextlib
import ctypes
import fnmatch
import inspect
import itertools
import json
import math
import operator
import os
import pathlib
import random
import re
import sys
import threading
import time
import weakref

import torch

try:
    import fcntl
except ImportError:  # Windows: what a killed tap left is not removed
    fcntl = None

GIB = 2**30
PAUSE = ".qera-pause"  # while the daemon has this file in the folder, it asks for no more shards
STORED = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
KINDS = STORED | {torch.float64: "F64", torch.int64: "I64", torch.uint8: "U8"}
# Sums: rows that are multiplied at a time in f32, how many blocks one of them is still written as
# rows of, what a shard of sums holds at most (or one sum), and the largest number that the daemon
# reads.
AT_ONCE, BLOCKS, SUM_SHARD, LARGEST = 512, 16, 2**28, 2.0**57
BITS = {4: torch.int32, 2: torch.int16}
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
SOURCES = ("full-precision", "quantized")
TASKS = {
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
}
WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
OWN_TOKENS = ("input_ids", "inputs_embeds", "hidden_states")
NO_TOKENS = re.compile(r"mask|label|position|decoder|encoder|type_ids|key_value")
FOREIGN = ("encoder_hidden_states", "key_value_states")
# Who is given one of these beside text, or may be given text for a decoder, has layers of several
# streams, and its mask is of one of them.
OTHER_STREAM = re.compile(r"pixel|image|video|audio|visual|input_features|input_values")
DECODER = "decoder_input_ids"
OTHER_MASK = re.compile(r"^mask$|padding_mask|input_mask|attn_mask")  # classes differ in what its values mean
CACHE = re.compile(r"past|cache|mems")
# Families in Transformers of which no layer reads [length, batch], or rows that are no tokens, in
# three dimensions.
BATCH_MAJOR = frozenset(
    """albert bart bert bloom camembert codegen cohere distilbert electra falcon gemma gemma2
    gemma3 glm gpt2 gpt_bigcode gpt_neo gpt_neox gptj granite llama m2m_100 marian mbart
    mistral mixtral modernbert mpnet mt5 olmo olmo2 opt pegasus phi phi3 qwen2 qwen2_moe
    qwen3 qwen3_moe roberta smollm3 stablelm starcoder2 t5 umt5 whisper xlm_roberta""".split()
)
HIDDEN, BIAS = -9000.0, -100.0  # additive masks: hidden at or below the first, seen from the second on
KINDS_SAID = 6
HANDS_KEYWORDS = "with_kwargs" in inspect.signature(torch.nn.Module.register_forward_pre_hook).parameters


def untraced(hook):
    """A hook that torch.compile leaves as it is: what it runs is compiled up to the hook, and from
    there on."""
    disable = getattr(getattr(torch, "compiler", None), "disable", None)
    return disable(hook) if disable else hook


def of_peft(module):
    return type(module).__module__.split(".")[0] == "peft"


def is_spread(module):
    return "module" in module._modules and any("DataParallel" in kind.__name__ for kind in type(module).__mro__)


def unwrapped(model):
    """The model inside what compiles, spreads or adapts it."""
    inside = model._modules
    if any(name in inside for name in WRAPPERS):
        return unwrapped(next(inside[name] for name in WRAPPERS if name in inside))
    if is_spread(model) or "module" in inside and type(model).__name__ == "DeepSpeedEngine":
        return unwrapped(inside["module"])
    if of_peft(model):
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
    if of_peft(module) and "original_module" in module._modules:  # PEFT serves a copy of it
        return
    adapted = of_peft(module) and "base_layer" in module._modules  # with its A and B beside the layer
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


def linear_layers(model, outer, left_out):
    """Every linear layer by name, as `qera.linears` has it; into `left_out` goes who has no weight
    of its own."""
    modules, users, layers = list(named(model)), {}, {}
    for _, module in modules:
        for parameter in module._parameters.values():
            users.setdefault(id(parameter), set()).add(id(module))
    for name, module in modules:
        entry, weight = as_linear(name, module), module._parameters.get("weight")
        if entry and weight is None:
            left_out[name] = "its weight is computed, and no tensor of the checkpoint"
        elif entry and len(users[id(weight)]) > 1:
            left_out[name] = "its weight is another module's, too"
        elif entry and (name == "__metadata__" or "::" in name):
            left_out[name] = "a shard has another use for its name"
        elif entry:
            layers[name] = (module, entry)
    check_layers(model, outer, layers, left_out)
    return layers


def check_layers(model, outer, layers, left_out):
    kind = type(model).__name__
    if "" in layers:
        raise ValueError(f"tap: {kind} is itself the linear layer, without a name: give torch.nn.Sequential(model)")
    flat = any("FullyShardedDataParallel" in type(module).__name__ for module in outer.modules())
    if flat and any(reason.startswith("its weight is computed") for reason in left_out.values()):
        raise ValueError("tap: FSDP keeps no weight of a layer by itself: wrap the model with use_orig_params=True")
    if not layers:
        why = "".join(f"; {name}: {reason}" for name, reason in list(left_out.items())[:KINDS_SAID])
        raise ValueError(f"tap: {kind} has no linear layer to record (torch.nn.Linear, Conv1D){why}")


def kinds(names):
    """Names of layers in words, those of all blocks as one."""
    found = list(dict.fromkeys(re.sub(r"(?<![^.])\d+(?![^.])", "*", name) for name in names))
    more = f" and {len(found) - KINDS_SAID} more kinds" if len(found) > KINDS_SAID else ""
    return ", ".join(found[:KINDS_SAID]) + more


def recomputing():
    """Whether autograd calls: gradient checkpointing runs a second time what was recorded the first
    time."""
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


def calling():
    """Python's frame of the call of a module that a hook belongs to."""
    frame = sys._getframe(1)
    while frame and "_call_impl" not in frame.f_code.co_name:
        frame = frame.f_back
    return frame


def visible(mask):
    """Which keys of a mask count on the CPU, [batch, keys] or [batch, queries, keys]; None where
    nobody can know."""
    try:
        mask = torch.as_tensor(mask).detach().to("cpu")
    except (TypeError, ValueError, RuntimeError):
        return None
    if mask.dim() not in (2, 3, 4) or not mask.numel():
        return None
    if mask.dtype == torch.bool:
        return mask.any(1) if mask.dim() == 4 else mask
    low, high = mask.min(), mask.max()
    if low < 0 and high <= 0 or high == 0 and mask.dim() > 2 and mask.is_floating_point():
        seen = mask > HIDDEN
        if (seen & (mask < BIAS)).any():
            return None
    elif ((mask == 0) | (mask == 1)).all():
        seen = mask == 1
    else:
        return None
    return seen.any(1) if mask.dim() == 4 else seen  # heads


def seen_by_some(seen, places, prefix=False):
    """Which keys at the queries' places count, of [batch, queries, keys]: those that a query may
    see. None where this is no mask of queries that see themselves and what came before (or a prefix
    sees all of itself): what a row of padding may see says nothing."""
    by, own = seen.sum(1)[:, places], seen[:, torch.arange(len(places)), places]
    later = seen[:, :-1].all(2) if prefix else seen & (torch.arange(seen.shape[2]) > places[:, None])
    has_lonely = bool((by[:, :-1] == 1).any())
    # Where nobody sees the last place, the columns may be others than those of the places.
    is_odd = bool(later.any()) or has_lonely or not by[:, -1].any() or not torch.equal(own, by > 0)
    return None if is_odd else own


def places_of(given, length):
    """Where in the cache the rows of this call go, if that is said."""
    places, cache = given.get("cache_position"), given.get("past_key_values")
    if torch.is_tensor(places):
        return places.detach().clone()
    if length is None or not hasattr(cache, "get_seq_length"):
        return None
    with contextlib.suppress(Exception):  # caches of other kinds
        return torch.arange(length) + torch.as_tensor(cache.get_seq_length()).to("cpu")
    return None


class Stream:
    """The rows [batch, length] that a mask is of."""

    def __init__(self, mask, rows, has_cache, has_meaning=True, places=None):
        self.mask, self.has_cache, self.has_meaning, self.known = mask, has_cache, has_meaning, False
        self.places = places
        self.version = version(mask)
        shape = tuple(getattr(mask, "shape", ()))
        self.rows = rows or ((shape[0], shape[-1]) if len(shape) > 1 else None)

    def look(self, masks):
        """Reads the mask, once; `masks` has what was read of others. `seen`: which rows count,
        None: nobody knows."""
        if self.known:
            return
        if id(self.mask) not in masks:
            masks[id(self.mask)] = visible(self.mask) if version(self.mask) == self.version else None
        seen, self.known = masks[id(self.mask)], True
        if seen is not None and not self.has_meaning:
            seen = None if seen.any() and not seen.all() else torch.ones_like(seen)
        if seen is not None and seen.dim() == 3:
            seen = self.of_queries(seen)
        if seen is not None and self.rows:
            batch, length = self.rows
            if self.has_cache and length < (keys := seen.shape[1]):  # the rest is in the KV cache, and was recorded
                is_at_end = self.places is None or self.places.dim() == 1 and int(self.places[-1]) == keys - 1
                seen = seen[:, keys - length :] if is_at_end else seen if seen.all() else None
            if seen is not None and not seen.all() and (seen.shape[1] != length or seen.shape[0] not in (1, batch)):
                seen = None
            elif seen is not None and seen.shape == (1, length):
                seen = seen.expand(batch, length)
        self.seen, self.hides = seen, seen is None or not bool(seen.all())

    def of_queries(self, seen):
        """The rows of a mask of each query, which may be as wide as a cache that is not full
        yet."""
        queries, keys = seen.shape[1:]
        if not self.rows or self.rows[1] >= keys:
            if not (seen == seen[:, :1]).all(2).all(1).any():
                return seen_by_some(seen, torch.arange(keys), prefix=True) if queries == keys > 1 else None
            # Classes differ in what True means; but where queries differ each sees itself.
            is_bool = torch.as_tensor(self.mask).dtype == torch.bool
            return None if is_bool or not (seen == seen[:, :1]).all() else seen[:, 0]
        places = None if self.places is None else self.places.to("cpu")
        if places is None or places.shape != (queries,) or queries != self.rows[1]:
            return None
        if places[-1] >= keys:  # a window of the last keys
            places = places - places[-1] + keys - 1
        follow = bool((places == places[0] + torch.arange(queries)).all())
        return seen_by_some(seen, places) if follow and places[0] >= 0 else None

    def is_like(self, shape):
        """Whether rows of this shape may be these, in any order."""
        if self.rows is None:
            return True
        batch, length = self.rows
        if len(shape) == 2:
            return shape[0] == batch * length
        return shape[:2] in ((batch, length), (length, batch))

    def has_pooled(self, shape):
        """Whether rows are one for each sequence."""
        return self.rows is not None and len(shape) == 2 and shape[0] == self.rows[0] and self.rows[1] > 1


# Whose rows a layer was given. OF: those of a stream. LAST: of each sequence the last of them.
# BESIDE: maybe not of those streams, so in doubt where one of them hides rows. WHOLE: of others,
# without padding. ANY: of a module with several streams, in doubt if they look like one that hides
# rows. ALONE: nothing around the layer says anything, in doubt unless they are one for each
# sequence.
Claim = collections.namedtuple("Claim", "how streams")
WHOLE, ANY, ALONE = Claim("whole", ()), Claim("any", ()), Claim("alone", ())


def of(stream):
    return Claim("of", (stream,))


def beside(*claims):
    """In doubt where one of the streams of these claims hides rows."""
    return Claim("beside", tuple(stream for claim in claims for stream in claim.streams))


class Frame:
    """A module at work that takes a mask, or around which nothing else is at work."""

    def __init__(self, key, module, at):
        self.key, self.module, self.at = key, weakref.ref(module), at and id(at)
        self.claim, self.stream, self.rows, self.source, self.several = None, None, None, None, False
        self.own, self.others, self.read, self.logits = None, [], {}, 0

    def is_at_work(self, frame):
        """Whether its call is one of those around a frame of Python: who failed is not."""
        if self.at is None:
            return True
        module = self.module()
        while frame:
            if id(frame) == self.at and frame.f_locals.get("self", module) is module:
                return True
            frame = frame.f_back
        return False

    def look(self, name, names, given, around):
        """Finds out what it was given, and of which rows its mask is."""
        self.name, own = name, own_tokens(given)
        others = [v for n, v in given.items() if torch.is_tensor(v) and OTHER_STREAM.search(n) and "mask" not in n]
        self.own, self.others = own if own is None else weakref.ref(own), [weakref.ref(other) for other in others]
        self.rows, self.several = batch_and_length(own), DECODER in names or bool(others)
        logits = given.get("logits_to_keep", given.get("num_logits_to_keep"))
        self.logits = logits if type(logits) is int else 0
        mask, source = given.get("attention_mask"), given.get("key_value_states")
        if isinstance(mask, dict):  # of each kind of layers
            is_none = all(one is None for one in mask.values())
            mask = None if is_none else mask.get("full_attention", mask)
        if torch.is_tensor(source):  # the mask is of what is attended to
            self.source = weakref.ref(source)
            return
        outer = next((frame for frame in reversed(around) if frame.claim), None)
        if mask is not None:
            self.claim = self.with_mask(mask, given, outer)
        elif others and own is None and DECODER not in names:
            self.claim, self.several = WHOLE, False
        elif self.several:
            self.claim = ANY
        elif "attention_mask" in names:
            self.claim = self.without_mask(given, outer)
        other = [v for n, v in given.items() if OTHER_MASK.search(n) and torch.is_tensor(v) and v.dim() == 2]
        if mask is None and other and not around:
            self.stream = Stream(other[0], self.rows, False, has_meaning=False)
            self.claim = self.claim if self.several else beside(of(self.stream))

    def with_mask(self, mask, given, outer):
        alike = outer is not None and not outer.several and self.rows and outer.rows == self.rows
        if alike and not (torch.is_tensor(mask) and mask.dim() == 2):
            return outer.claim  # the module around it made it of its own, or of none: what hides more is no padding
        has_cache = any(CACHE.search(name) and not isinstance(value, bool) for name, value in given.items())
        is_wide = torch.is_tensor(mask) and mask.dim() > 1 and self.rows and mask.shape[-1] > self.rows[1]
        places = places_of(given, self.rows[1]) if is_wide else None
        self.stream = Stream(mask, self.rows, has_cache, places=places)
        self.rows = self.rows or self.stream.rows
        return ANY if self.several else of(self.stream)

    def without_mask(self, given, outer):
        if outer is None or outer.claim is WHOLE:
            return WHOLE
        if outer.several:
            if torch.is_tensor(given.get("encoder_hidden_states")) or outer.stream is None:
                return WHOLE  # a decoder: the mask outside is the encoder's
            if self.rows is None:
                return ANY
            return beside(of(outer.stream)) if outer.stream.is_like((*self.rows, 1)) else WHOLE
        own = self.own and self.own()
        masks = [n for n, v in given.items() if "mask" in n and "head" not in n and torch.is_tensor(v)]
        more = [n for n, v in given.items() if torch.is_tensor(v) and v.dim() > 2 and "mask" not in n and v is not own]
        goes_by_another_name = self.rows and self.rows == outer.rows and masks and not more
        return outer.claim if goes_by_another_name else beside(outer.claim)

    def claims(self, layer, x, shape, fits):
        """Whose rows a layer in it reads."""
        if self.several:
            if self.own and self.own() is x:
                return of(self.stream) if self.stream else WHOLE
            return WHOLE if any(other() is x for other in self.others) else ANY
        if self.claim is WHOLE and self.rows and shape[:2] != self.rows:
            return ANY  # a decoder's layer may read what it attends to
        if self.claim.how != "of":
            return self.claim
        if self.has_last(layer, shape):
            return Claim("last", self.claim.streams)
        batch, length = self.rows or self.claim.streams[0].rows or (0, 0)
        if len(shape) == 3 and shape[:2] == (batch, length):
            if batch != length or batch == 1 or layer in fits or self.is_batch_major():
                return self.claim
        within = layer[len(self.name) :] if layer.startswith(self.name) else "0"
        if len(shape) == 2 and not any(part.isdigit() for part in within.split(".")):
            if flat_rows(shape) == batch * length:
                return self.claim
            if shape[0] == batch and length > 1:
                return WHOLE
        return beside(self.claim)

    def has_last(self, layer, shape):
        """Whether a head reads as many tokens from the end of each sequence as the model was told
        to."""
        is_head = layer in ("lm_head", f"{self.name}.lm_head")
        return is_head and self.rows and 0 < self.logits < self.rows[1] and shape[:-1] == (self.rows[0], self.logits)

    def is_batch_major(self):
        """Whether all layers of its class read [batch, length]. In a square batch nothing else
        tells."""
        path = type(self.module()).__module__.split(".")
        return path[:2] == ["transformers", "models"] and not BATCH_MAJOR.isdisjoint(path[2:3])


def own_tokens(given):
    """What a module was given to work on."""
    own = next((given[name] for name in OWN_TOKENS if torch.is_tensor(given.get(name))), None)
    if own is not None:
        return own
    tensors = ((n, v) for n, v in given.items() if torch.is_tensor(v) and v.dim() > 1)
    return next((v for n, v in tensors if not NO_TOKENS.search(n) and not OTHER_STREAM.search(n)), None)


def batch_and_length(own):
    if own is None or own.dim() not in (2, 3) or own.dim() == 2 and own.is_floating_point():
        return None
    return tuple(own.shape[:2])


def flat_rows(shape):
    return torch.Size(shape[:-1]).numel()


def arguments(signature, args, kwargs):
    """What a module was given, by name."""
    given = dict(kwargs)
    if signature is not None:
        with contextlib.suppress(TypeError):  # the call fails by itself
            for name, value in signature.bind_partial(*args, **kwargs).arguments.items():
                kind = signature.parameters[name].kind
                given |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    return {name: value for name, value in given.items() if value is not None}


def version(x):
    """How often a tensor was written into, as far as torch counts that."""
    return None if not torch.is_tensor(x) or x.is_inference() else x._version


class Kept:
    """One input: a copy of its rows, on the CPU or where they are."""

    def __init__(self, x, dtype, device="cpu"):
        self.of, self.version, self.shape = weakref.ref(x), version(x), tuple(x.shape)
        dtype = dtype or (x.dtype if x.dtype in STORED else torch.float32)
        rows = x.detach().to(device or x.device, dtype, non_blocking=x.is_cuda, copy=True)
        self.stream = torch.cuda.current_stream(x.device) if x.is_cuda else None
        self.rows = rows[None] if rows.dim() == 1 else rows.flatten(1, -2) if rows.dim() > 3 else rows

    def is_still(self, x):
        """Whether x is this input. torch counts no writes through x.data and none in
        inference_mode: on a CPU the values are compared; on a GPU, which would have to wait, only
        where there is no count at all."""
        if self.of() is not x or self.version != version(x) or self.shape != tuple(x.shape):
            return False
        if self.stream and self.version is not None:
            return True
        if self.stream:
            self.stream.synchronize()
        again = x.detach().to(self.rows.device, self.rows.dtype).reshape(self.rows.shape)
        return torch.equal(*(rows.contiguous().view(BITS[rows.element_size()]) for rows in (self.rows, again)))


class Work:
    """What one thread is at."""

    def __init__(self):
        self.thread, self.stack, self.off = threading.current_thread(), [], False
        self.forget()

    def forget(self):
        """`calls`: what layers read, [(Kept, Claim)] by name."""
        self.calls, self.seen, self.foreign, self.odd, self.streams = {}, {}, {}, {}, []

    def settle(self, frame):
        """Takes away the modules that failed before they came to their end, by the frame of Python
        that goes on."""
        failed = False
        while self.stack and not self.stack[-1].is_at_work(frame):
            self.stack.pop()
            failed = True
        if failed and not self.stack:
            self.off = False
            self.forget()

    def keep(self, x, dtype, device):
        known = self.seen.get(id(x))
        if known is None or not known.is_still(x):
            known = self.seen[id(x)] = Kept(x, dtype, device)
        return known

    def claim_of_foreign(self, x):
        """That of what a decoder was given to attend to."""
        known = self.foreign.get(id(x))
        return known[1] if known and known[0]() is x else None

    def attend(self, given, names):
        """Remembers which mask is of what a decoder attends to; the outermost module that is given
        both knows it."""
        sources = [(given.get("key_value_states"), given.get("attention_mask"))]
        if "encoder_attention_mask" in names:
            sources.append((given.get("encoder_hidden_states"), given.get("encoder_attention_mask")))
        for source, mask in sources:
            if torch.is_tensor(source) and self.claim_of_foreign(source) is None:
                rows = batch_and_length(source)
                if mask is None:  # may the model have been given one of it, which goes another way?
                    outer = next((f.stream for f in self.stack if f.several and f.stream), None)
                    claim = beside(of(outer)) if outer and outer.is_like((*(rows or (0, 0)), 1)) else WHOLE
                else:
                    claim = of(Stream(mask, rows, False))
                    self.streams += claim.streams
                self.foreign[id(source)] = (weakref.ref(source), claim)


class Memory:
    """What was learned of layers by the shapes of all that they read, in any call."""

    def __init__(self):
        self.fits, self.apart, self.side = set(), set(), {}

    def learn(self, frame, layer, x, shape):
        """Whether a layer reads [batch, length] of the module that it is in; what once did not is
        never masked because the numbers happen to be equal."""
        if not frame.rows or len(shape) < 2 or frame.has_last(layer, shape):
            return
        batch, length = frame.rows
        if len(shape) == 3 and shape[:2] == frame.rows:
            if frame.claim.how == "of" and batch != length:
                self.fits.add(layer)
            if batch == 1 and frame.read.setdefault(layer, id(x)) != id(x):
                self.apart.add(layer)  # two inputs in one call: one of them may have no batch at all
        elif len(shape) > 2 or shape[0] not in (batch, batch * length):
            self.apart.add(layer)

    def side_of(self, layer, x, shape, frame, source):
        """Whether a layer of an attention to something else reads that or its own tokens; None:
        neither."""
        own, attended = frame.rows, tuple(source.shape[:2])
        is_own = frame.own and frame.own() is x
        if len(shape) != 3 or shape[:2] not in (own, attended):
            return None
        if x is source or is_own or own != attended:
            self.side[layer] = "attended" if x is source or not is_own and shape[:2] == attended else "own"
        return self.side.get(layer, "unknown")


def claim_of_rows(work, memory, layer, x):
    """Whose rows a layer reads, by what is at work around it."""
    shape, foreign = tuple(x.shape), work.claim_of_foreign(x)
    if len(shape) < 2:
        return WHOLE
    unsure = []
    for frame in reversed(work.stack):
        source = frame.source and frame.source()
        if source is not None:
            side = memory.side_of(layer, x, shape, frame, source)
            if side == "attended":
                return work.claim_of_foreign(source) or ANY
            unsure += [work.claim_of_foreign(source) or ANY] if side == "unknown" else []
        if frame.claim and foreign is None:
            memory.learn(frame, layer, x, shape)
            claim = frame.claims(layer, x, shape, memory.fits)
            return beside(claim, *unsure) if unsure else claim
    return foreign or ALONE


def marks_of(claim, shape, hiding, is_apart):
    """(Which of the rows count, None: all; whether that is in doubt), where these streams hide
    rows."""
    if not hiding or claim.how == "whole":
        return None, False
    if claim.how == "of":
        (stream,) = claim.streams
        if not stream.hides:
            return None, False
        fits = stream.seen is not None and flat_rows(shape) == stream.seen.numel() and not is_apart
        return (stream.seen, False) if fits else (None, True)
    if claim.how == "last":
        (stream,) = claim.streams
        if not stream.hides or stream.seen is None:
            return None, stream.hides
        seen = stream.seen[:, -shape[1] :]
        return None if seen.all() else seen, False
    if claim.how == "beside":
        return None, any(stream.hides for stream in claim.streams)
    if claim.how == "any":
        return None, any(stream.is_like(shape) for stream in hiding)
    return None, not any(stream.has_pooled(shape) for stream in hiding)


class ShardFolder:
    """Where shards wait for the daemon, and how many bytes of them may."""

    def __init__(self, path, max_bytes, rank):
        self.path, self.max_bytes, self.rank, self.count = pathlib.Path(path), max_bytes, rank, 0
        self.least, self.waiting, self.looked, self.took = 0, 0, None, 0.0
        if not self.path.is_dir():
            raise FileNotFoundError(f"tap: {self.path} is no folder: make the one that qera-daemon watches (mkdir -p)")
        for part in self.path.glob(f".tap-*-{rank}-*.part"):  # of a tap that was killed: who writes holds a lock
            with contextlib.suppress(OSError), open(part, "rb") as file:
                if locked(file):
                    part.unlink()

    def has_room(self, size):
        """Looks into the folder once a second; where it was full, soon again, but for a twentieth
        of the time."""
        now = time.monotonic()
        fits, rest = self.waiting + size <= self.max_bytes, 20 * self.took
        if self.looked is None or now - self.looked > (max(1.0, rest) if fits else rest):
            self.waiting, self.looked = self.bytes_that_wait(), now
            self.took = time.monotonic() - now
        return self.waiting + size <= self.max_bytes

    def bytes_that_wait(self):
        """Of shards; without end while the daemon asks for a pause."""
        waiting = 0
        for entry in os.scandir(self.path):
            if entry.name == PAUSE:
                return math.inf
            if entry.name.endswith(".safetensors") and not entry.name.startswith("."):
                with contextlib.suppress(FileNotFoundError):  # the daemon took it
                    waiting += entry.stat().st_size
        return waiting

    def put(self, tensors, metadata):
        """Writes a shard and gives it its name, where there is room: whether there was."""
        header, at = {"__metadata__": metadata}, 0
        for name, tensor in tensors.items():
            size = tensor.numel() * tensor.element_size()
            header[name] = {"dtype": KINDS[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, at + size]}
            at += size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        size = 8 + len(text) + at
        if not self.has_room(size):
            return False
        self.write(len(text).to_bytes(8, "little") + text, tensors)
        self.waiting, self.least = self.waiting + size, min(self.least or size, size)
        return True

    def write(self, head, tensors):
        self.count += 1
        name = f"{time.time_ns():020d}-{self.rank}-{os.getpid()}-{self.count:06d}"
        part, whole = self.path / f".tap-{name}.part", self.path / f"{name}.safetensors"
        try:
            with open(part, "xb") as file:
                is_locked = locked(file)
                file.write(head)
                for tensor in tensors.values():
                    size = tensor.numel() * tensor.element_size()
                    file.write((ctypes.c_char * size).from_address(tensor.data_ptr()))
                file.flush()
                if is_locked:
                    os.rename(part, whole)
            if not is_locked:  # Windows renames no file that is open
                os.rename(part, whole)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def f32_products(device):
    """Products of f32 tensors are those of f32 numbers, and sums may go on, whatever mode the model
    is called in."""
    precision, kind = torch.get_float32_matmul_precision(), device.type if device.type in ("cpu", "cuda") else "cpu"
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(kind, enabled=False):
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(precision)


class Sum:
    """What is summed of one input: x^T x by f32 products over at most 512 rows, folded in f64 where
    the rows are, and |x| of each channel, with the largest mean of it over a sequence."""

    def __init__(self, names, width, device):
        wide = {"dtype": torch.float64, "device": "cpu" if device.type == "mps" else device}  # which has no f64
        self.names, self.rows, self.xtx = names, 0, torch.zeros(width, width, **wide)
        self.abs_sum, self.batch_max = torch.zeros(width, **wide), torch.zeros(width, **wide)

    def add(self, x, marks):
        """Takes rows [sequences, length, width], or [rows, width], of which those marked count."""
        x = x.to(self.xtx.device, torch.float32)
        x = x if x.dim() == 3 else x[None]
        counts = torch.full(x.shape[:1], x.shape[1], device=x.device)
        if marks is not None:
            marks = marks.to(x.device).reshape(x.shape[:2])
            x, counts = x.masked_fill(~marks[..., None], 0), marks.sum(1)
        sums = x.abs().sum(1, dtype=torch.float64)
        self.abs_sum += sums.sum(0)
        means = sums / counts.clamp(min=1)[:, None]
        self.batch_max = torch.maximum(self.batch_max, means.amax(0))
        for rows in x.flatten(0, 1).split(AT_ONCE):
            self.xtx += rows.T @ rows
        self.rows += int(counts.sum())

    def bytes(self):
        width = len(self.xtx)
        return 4 * (width * (width + 1) // 2) + 16 * width

    def tensors(self, name):
        """The parts of it under the name of a layer."""
        packed = torch.cat([row[i:].to(torch.float32) for i, row in enumerate(self.xtx)])
        parts = {"xtx": packed, "xtx_rows": torch.tensor([self.rows])}
        parts |= {"abs_sum": self.abs_sum, "batch_max_mean_abs": self.batch_max}
        return {f"{name}::{part}": tensor.cpu().contiguous() for part, tensor in parts.items()}


class Blocks:
    """Which blocks of rows stay rows: of each sixteen one, drawn anew, and the first of all."""

    def __init__(self):
        self.drawn, self.seen, self.taken = random.Random(1), 0, 0

    def take(self):
        at, self.seen = self.seen % BLOCKS, self.seen + 1
        if not at and self.seen > 1:
            self.taken = self.drawn.randrange(BLOCKS)
        return at == self.taken


def locked(file):
    """Takes the lock of a file that is written; False where another has it, or nothing can be
    locked."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except (AttributeError, OSError):
        return False


class Hook:
    """What torch calls. A copy of the model, or a pickle of it, has a function in its place that
    does nothing."""

    def __init__(self, tap, module, function):
        self.tap, self.own, self.function = tap, weakref.ref(module), function

    @untraced
    def __call__(self, module, args, more=None):
        # A shallow copy of the model has the hooks, and is another model; a replica of DataParallel
        # is not.
        if module is self.own() or getattr(module, "_is_replica", False):
            if not HANDS_KEYWORDS:  # torch 1. Who calls a hook has them, and torch 1 does not change any more.
                more = sys._getframe(1).f_locals.get("kwargs", {})
            self.tap._guarded(lambda: self.function(module, args, more))

    def __reduce__(self):
        return getattr, (contextlib.nullcontext(), "__exit__")


class Tap:
    """Records a model from now until `close`, or to the end of a `with` block.

    include     globs of names (`model.layers.0.*`); what none matches is listed as a layer, without rows
    dtype       of stored rows: f32, f16, bf16; as they come where it is left out
    every       of each so many calls of the model one is recorded, at a place that is drawn anew
    max_rows    recording ends with the call that reaches so many tokens: of each call the rows, padding left out, of
                the longest input of a layer
    max_bytes   of shards that wait in the folder; calls for which there is no room are not recorded, and counted
    strict      what is left out, or fails, raises, instead of being said once: for tests, not for serving
    source      `full-precision` or `quantized`; found out where it is left out
    model_name  for `qera.model`: the name of the checkpoint's folder; '' leaves it out
    task_type   PEFT's word for what the model is for; by its class where it is left out
    sums        True: of each input x^T x is summed where the model computes, or on the named device ("cpu"), and one
                block of sixteen is still written as rows, which are not in the sums
    sum_rows    tokens after which what was summed is written; at the end what is left is
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
        sums=False,
        sum_rows=65_536,
    ):
        self.device, self.sums = "cpu" if sums in (False, None) else None if sums is True else torch.device(sums), {}
        self.blocks, self.sum_rows, self.summed = Blocks() if sums else None, whole_number("sum_rows", sum_rows), 0
        one_of("dtype", dtype, DTYPES)
        one_of("source", source, SOURCES)
        words("model_name", [model_name or ""])
        words("task_type", [task_type or ""])
        self.dtype, self.strict, self.every = DTYPES.get(dtype), strict, whole_number("every", every)
        self.max_rows = None if max_rows is None else whole_number("max_rows", max_rows)
        self.include = words("include", [include] if isinstance(include, str) else include)
        self.shards, self.rows, self.calls, self.dropped_shards = 0, 0, 0, 0
        self.left_out, self.said, self.handles, self.group_of, self.fed = {}, set(), [], {}, set()
        self.ended = False
        self.local, self.works, self.memory, self.drawn = threading.local(), [], Memory(), random.Random(0)
        self.lock, self.new_group, self.taken, self.spread = threading.RLock(), itertools.count(), 0, None
        self.model, self.inner = model, unwrapped(model)
        self.layers = linear_layers(self.inner, model, self.left_out)
        if not any(self._is_included(name) for name in self.layers):
            raise ValueError(f"tap: include {self.include} matches none of the layers: {kinds(self.layers)}")
        self.folder = ShardFolder(folder, whole_number("max_bytes", max_bytes), rank())
        self.metadata = self._about(source, model_name, task_type)
        self._hook()
        for name in [name for name in self.left_out if self.left_out[name].startswith("a shard")]:
            self._leave_out([name], self.left_out[name])

    def _about(self, source, model_name, task_type):
        kind, config = type(self.inner).__name__, getattr(self.inner, "config", None)
        packed = getattr(config, "quantization_config", None) is not None
        packed = packed or any(not module.weight.is_floating_point() for module, _ in self.layers.values())
        about = {
            "qera.linears": json.dumps([entry for _, entry in self.layers.values()]),
            "qera.source": source or SOURCES[packed],
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

    def _hook(self):
        with_keywords = {"with_kwargs": True} if HANDS_KEYWORDS else {}
        before = lambda m, f: self.handles.append(m.register_forward_pre_hook(Hook(self, m, f), **with_keywords))
        for name, (module, entry) in self.layers.items():
            before(module, lambda m, x, more, name=name, width=entry["in"]: self._read(name, width, x, more))
        frames = {}
        for name, module in [("", self.model), *named(self.inner)]:
            try:
                signature = inspect.signature(module.forward)
            except (TypeError, ValueError):
                signature = None
            takes = set(signature.parameters) if signature else set()
            masked = takes & {"attention_mask", *FOREIGN} or any(OTHER_STREAM.search(name) for name in takes)
            if module in (self.model, self.inner) or masked:
                frames.setdefault(id(module), (name, module, signature))
        for key, (name, module, signature) in frames.items():
            before(module, lambda m, x, more, k=key, n=name, s=signature: self._enter(k, n, s, m, x, more))
            after = Hook(self, module, lambda m, x, more, k=key: self._leave(k))
            self.handles.append(module.register_forward_hook(after))

    def _guarded(self, function):
        try:
            function()
        except Exception as error:
            if self.strict:
                raise
            text = f"{type(error).__name__}: {error}"
            self.say(text, f"{text}; what it hit is not recorded")

    def say(self, key, message):
        if self.strict:
            raise RuntimeError(f"tap: {message}")
        self._note(key, message)

    def _note(self, key, message):
        if key not in self.said:
            self.said.add(key)
            print(f"tap: {message}", file=sys.stderr, flush=True)

    def _leave_out(self, names, problem, kind=None):
        """Says once of each kind of layers why they are not in a shard."""
        new = [name for name in names if name not in self.left_out]
        self.left_out.update(dict.fromkeys(new, problem))
        said = [name for name in names if (kinds([name]), kind or problem) not in self.said]
        self.said.update((kinds([name]), kind or problem) for name in said)
        if said or self.strict:
            are = f"{kinds(said or names)} {'are' if len(names) > 1 else 'is'}"
            self.say(("left out", *said), f"{are} left out of shards: {problem}")

    def _work(self):
        if not hasattr(self.local, "work"):
            self.local.work = Work()
            with self.lock:
                self.works.append(self.local.work)
        return self.local.work

    def _enter(self, key, name, signature, module, args, kwargs):
        work, at = self._work(), calling()
        frame = Frame(key, module, at)
        try:
            self._begin(work, frame, at and at.f_back, name, signature, args, kwargs)
        except Exception:
            if frame not in work.stack:
                work.stack.append(frame)
            work.off = True  # a mask may be lost: nothing of the whole call is recorded
            raise

    def _begin(self, work, frame, caller, name, signature, args, kwargs):
        work.settle(caller)
        outermost = not work.stack
        if outermost:
            self._guarded(lambda: self._finish(work))
        around = list(work.stack)
        work.stack.append(frame)
        if outermost:
            work.off = True
            work.off = recomputing() or not self._wants_call(frame.module())
        if work.off:
            return
        given = arguments(signature, args, kwargs)
        names = set(given) | set(signature.parameters if signature else ())
        frame.look(name, names, given, around)
        work.streams += [frame.stream] if frame.stream else []
        work.attend(given, names)

    def _leave(self, key):
        work = self._work()
        work.settle(calling())
        if not work.stack or work.stack[-1].key != key:
            return
        work.stack.pop()
        if not work.stack:
            if is_spread(self.model):
                self.spread = self.spread if key != id(self.model) else None
            off, work.off = work.off, False
            if off:
                work.forget()
            self._finish(work)

    def _wants_call(self, module):
        """Whether this call is recorded. What DataParallel makes of one call is all recorded, or
        none of it."""
        with self.lock:
            if getattr(module, "_is_replica", False) and self.spread is not None:
                return self.spread
            at, self.calls = self.calls % self.every, self.calls + 1
            if not at:  # by chance, because calls may have a rhythm: those of generate, of an encoder and a decoder
                self.taken = self.drawn.randrange(self.every) if self.calls > 1 else 0
            wanted = at == self.taken and self._has_room()
            if module is self.model and is_spread(module):
                self.spread = wanted
            return wanted

    def _has_room(self):
        try:
            room = self.folder.has_room(self.folder.least)
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
        paused = self.folder.waiting == math.inf
        why = "qera-daemon asks for a pause" if paused else f"max_bytes {self.folder.max_bytes}"
        self._note("full", f"{self.folder.path} is full ({why}): calls are not recorded until there is room")

    def _read(self, name, width, args, kwargs):
        work = self._work()
        if work.stack:
            at = calling()
            work.settle(at and at.f_back)
        if work.off or not work.stack and recomputing():
            return
        if not work.stack and name in work.calls:  # nothing else says that a call has ended
            self._finish(work)
        x = args[0] if args else kwargs.get("input", kwargs.get("x"))
        problem = odd(x, width) or not work.stack and self._is_beside_a_call(work)
        if problem:
            work.odd[name] = problem
        elif x.numel():
            claim = claim_of_rows(work, self.memory, name, x)
            work.calls.setdefault(name, []).append((work.keep(x, self.dtype, self.device), claim))

    def _is_beside_a_call(self, work):
        """A thread that a model starts for its layers knows nothing of the model's masks."""
        with self.lock:
            busy = any(other.stack and other is not work and other.thread.is_alive() for other in self.works)
        return "it is called in a thread of its own, while another is in a call of the model" if busy else ""

    def _finish(self, work):
        """Writes what a thread, and any that has ended, read since the last time."""
        with self.lock:
            ended = [other for other in self.works if not other.thread.is_alive()]
            self.works = [other for other in self.works if other not in ended]
            for one in [*ended, work]:
                self._finish_one(one)

    def _finish_one(self, work):
        calls, odd_ones, streams = work.calls, work.odd, work.streams
        for kept in {id(kept): kept for parts in calls.values() for kept, _ in parts}.values():
            if kept.stream:
                kept.stream.synchronize()
        work.forget()
        if work.stack or self.ended:  # its thread ended within a call
            return
        for name in odd_ones:
            calls.pop(name, None)
        calls, doubtful = self._masked(calls, streams)
        if calls:
            self._write(self._groups(calls))
        for problem in dict.fromkeys(odd_ones.values()):
            self._leave_out([name for name, its in odd_ones.items() if its == problem], problem)
        if doubtful:
            self._doubt(doubtful, streams)

    def _masked(self, calls, streams):
        """What layers read with the marks of rows that count, [(Kept, marks)] by name, and which
        are in doubt."""
        masks, sure, doubtful = {}, {}, []
        for stream in streams if calls else ():
            stream.look(masks)
        hiding = [stream for stream in streams if calls and stream.hides]
        for name, parts in calls.items():
            is_apart = name in self.memory.apart
            found = [(kept, *marks_of(claim, kept.shape, hiding, is_apart)) for kept, claim in parts]
            if any(doubt for _, _, doubt in found):
                doubtful.append(name)
            else:
                sure[name] = [(kept, marks) for kept, marks, _ in found]
        return sure, doubtful

    def _doubt(self, names, streams):
        unread = next((stream.mask for stream in streams if stream.seen is None), None)
        why = "which of its rows are padding is in doubt"
        if unread is not None:
            form = f"{tuple(getattr(unread, 'shape', ()))} and type {getattr(unread, 'dtype', type(unread).__name__)}"
            why += f" (an attention_mask of shape {form} does not tell)"
        self._leave_out(names, f"{why}; calls without padding record it", "doubt")

    def _groups(self, calls):
        """Lists of the layers that read one input, with it: only those that did so in every call
        before, too."""
        now = {}
        for name, parts in calls.items():
            now.setdefault(tuple((id(kept), id(marks)) for kept, marks in parts), []).append(name)
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
        tensors, shares, sums, rows, infinite, hidden = {}, [], [], 0, [], []
        stays = {}  # number of blocks in this call -> which of them stay rows
        for names, parts in groups:
            self.fed.update(names)
            shares.append(names)
            name = next((name for name in names if self._is_included(name)), None)
            if name is None:
                continue
            x, marks = joined(parts)
            if marks is not None and not marks.any():
                hidden.append(name)
                continue
            if not is_finite(x, marks, LARGEST if self.blocks else None):
                infinite.append(name)
                shares.pop()
                continue
            rows = max(rows, *(flat_rows(k.rows.shape) if m is None else int(m.sum()) for k, m in parts), 0)
            if self.blocks:
                x, marks, summed = self._split(x, marks, stays)
                sums += [(tuple(names), name, *summed)] if summed else []
            if x is not None:
                tensors[name] = x.cpu()
            if marks is not None:
                tensors[f"{name}::mask"] = marks.to(torch.uint8).contiguous()
        written = False
        try:
            written = not tensors or self._put(tensors, shares)
            if not written:
                self._drop()
        except OSError as error:
            self._fail(error)
        self._add(sums)
        if tensors and written or sums:
            self._count(rows)
        if infinite:
            huge = ", or some above 2^57" if self.blocks else ""
            self._leave_out(infinite, f"its input has NaN or infinite values{huge}")
        if hidden:
            self._leave_out(hidden, "all of its rows are padding by the mask")

    def _split(self, x, marks, stays):
        """(Rows that stay, their marks, (rows that are summed, their marks)), None where there are
        none."""
        blocks = len(x) if x.dim() == 3 else 1
        if blocks not in stays:
            stays[blocks] = torch.tensor([self.blocks.take() for _ in range(blocks)])
        stay = stays[blocks]
        if not stay.any():
            return None, None, (x, marks)
        if stay.all():
            return x, marks, None
        part = lambda which: (x[which.to(x.device)], None if marks is None else marks[which])
        (kept, of_kept), summed = part(stay), part(~stay)
        if of_kept is not None and not of_kept.any():
            kept, of_kept = None, None
        return kept, of_kept, summed if summed[1] is None or summed[1].any() else None

    def _add(self, sums):
        """Sums rows of (the layers that read them, the name that they get, rows, marks). What
        layers share an input is said of a whole shard: where that is no longer so, a new one is
        begun."""
        if any(name in self.sums and self.sums[name].names != names for names, name, _, _ in sums):
            self._flush()
        for names, name, x, marks in sums:
            with f32_products(x.device):
                known = self.sums[name] = self.sums.get(name) or Sum(names, x.shape[-1], x.device)
                if known.names == names:
                    known.add(x, marks)
                else:  # there was no room for the others
                    self._drop()
        self.summed = max((sum.rows for sum in self.sums.values()), default=0)
        if self.summed >= self.sum_rows:
            self._flush()

    def _flush(self):
        """Writes what was summed; what finds no room stays and is tried again with the next
        rows."""
        while self.sums:
            part, size = [], 0
            for name, sum in self.sums.items():
                if part and size + sum.bytes() > SUM_SHARD:
                    break
                part, size = [*part, name], size + sum.bytes()
            tensors = {}
            for name in part:
                tensors |= self.sums[name].tensors(name)
            try:
                written, why = self._put(tensors, [self.sums[name].names for name in part]), "is full"
            except OSError as error:
                written, why = False, error.strerror
            if not written:
                self._note("sums", f"{self.folder.path} takes no sums of {size} bytes ({why}): they wait")
                return
            for name in part:
                del self.sums[name]
        self.summed = 0

    def _put(self, tensors, shares):
        """Writes a shard: whether there was room."""
        about = self.metadata | {"qera.shares": json.dumps(shares)}
        if self.dropped_shards:
            about["qera.dropped_shards"] = str(self.dropped_shards)
        written = self.folder.put(tensors, about)
        self.shards += written
        return written

    def _count(self, rows):
        self.rows += rows
        if self.max_rows is not None and self.rows >= self.max_rows:
            self._flush()
            self.ended = True
            self._unhook()

    def _is_included(self, name):
        return any(fnmatch.fnmatchcase(name, glob) for glob in self.include)

    def _unhook(self):
        handles, self.handles = self.handles, []
        for handle in handles:
            handle.remove()

    def close(self):
        """Takes the hooks off."""
        self._unhook()
        try:
            self._guarded(self._finish_all)
            self._guarded(self._flush_all)
        finally:
            self.ended = True
        unfed = [name for name in self.layers if name not in self.fed and name not in self.left_out]
        if unfed and (self.calls or self.shards):
            self._note("unfed", f"{len(unfed)} of {len(self.layers)} layers got no row: {kinds(unfed)}")
        if self.dropped_shards:
            self._note("end", f"{self.dropped_shards} calls were not recorded, {self.shards} were")

    def _finish_all(self):
        self._work().settle(sys._getframe())
        with self.lock:
            for work in [work for work in self.works if not work.stack]:
                self._finish(work)

    def _flush_all(self):
        with self.lock:
            self._flush()
        if self.sums:
            lost = max(sum.rows for sum in self.sums.values())
            self.say("lost", f"sums of {lost} rows are lost: {self.folder.path} does not take them")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def one_of(name, value, known):
    if value is not None and value not in known:
        raise ValueError(f"tap: {name} {value!r} is none of {', '.join(known)}")


def whole_number(name, value):
    try:
        if not isinstance(value, bool) and operator.index(value) >= 1:
            return operator.index(value)
    except TypeError:
        pass
    raise ValueError(f"tap: {name} {value!r} is no whole number above 0")


def words(name, values):
    values = list(values) if isinstance(values, (list, tuple, set)) else [values]
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"tap: {name} {values!r} is no text")
    return values


def rank():
    """Of this process among those that run the model."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank()
    number = os.environ.get("RANK", "")
    return int(number) if re.fullmatch("[0-9]+", number) else 0


def odd(x, width):
    """Why x is no rows of a layer; empty if it is."""
    if not torch.is_tensor(x):
        return f"its input is a {type(x).__name__}"
    if x.layout != torch.strided or x.is_quantized or not x.is_floating_point() or x.is_meta:
        return f"its input is of type {x.dtype}, {x.layout}, on {x.device}"
    if not x.dim() or x.shape[-1] != width:
        return f"its input has shape {tuple(x.shape)}, not [..., {width}]"
    return ""


def is_finite(x, marks, largest=None):
    """Whether all values are numbers in the rows that count, and none is larger than that."""
    if largest is None and torch.isfinite(x.sum()):  # any that is none would show, and a sum costs a fraction of a look
        return True
    finite = (torch.isfinite(x) if largest is None else x.abs() <= largest).all(-1)
    return bool((finite if marks is None else finite | ~marks.to(x.device)).all())


def joined(parts):
    """The rows of all times that a layer was called in a call of the model, and which of them
    count.

    Those of one sequence stay together: what the daemon holds out to judge by is whole
    sequences."""
    every = [kept.rows for kept, _ in parts]
    if all(rows.dim() == 3 and len(rows) == len(every[0]) for rows in every):
        axis = 1
    else:
        every, axis = [rows.flatten(0, -2) for rows in every], 0
    x = (every[0] if len(every) == 1 else torch.cat(every, axis)).contiguous()
    if all(marks is None for _, marks in parts):
        return x, None
    all_of = lambda rows: torch.ones(rows.shape[:-1], dtype=torch.bool)
    marks = [all_of(rows) if m is None else m.reshape(rows.shape[:-1]) for (_, m), rows in zip(parts, every)]
    return x, torch.cat(marks, axis)
