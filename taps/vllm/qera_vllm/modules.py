"""Which of a served model's modules are linear layers, and what their checkpoint calls them."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Kinds:
    """The serving engine's classes: a linear layer; what wraps one for adapters; one whose input
    may be sliced."""

    linear: type
    wrapper: type
    row_parallel: type


@dataclass
class Site:
    """One input: the module that reads it, and the checkpoint's layers in that module."""

    module: object
    names: list
    width: int
    index: int = 0
    left_out: bool = False
    step: int = 0  # the last one in which it was read

    @property
    def key(self):
        return self.names[0]


@dataclass
class Found:
    sites: list = field(default_factory=list)
    linears: list = field(default_factory=list)  # as `qera.linears` has them
    left_out: dict = field(default_factory=dict)  # name -> reason


def is_experts(module):
    names = [kind.__name__ for kind in type(module).__mro__]
    return any("FusedMoE" in name or name.startswith("MoERunner") for name in names)


def is_router(module, name, parent):
    if any(kind.__name__ == "GateLinear" for kind in type(module).__mro__):
        return True
    siblings = parent._modules.values() if parent is not None else ()
    return name.rsplit(".", 1)[-1] in ("gate", "router") and any(map(is_experts, siblings))


def walk(module, kinds, name="", parent=None):
    """Every linear layer, wrapped or not, and every module of experts, as (name, module,
    parent)."""
    if isinstance(module, (kinds.linear, kinds.wrapper)) or is_experts(module):
        yield name, module, parent
        return
    for key, child in module._modules.items():
        if child is not None:
            yield from walk(child, kinds, f"{name}.{key}" if name else key, module)


def output_widths(layer):
    """Widths of the parts that a fused layer was made of."""
    heads = getattr(layer, "total_num_heads", None)
    if heads is not None:  # `output_sizes` counts a key's or value's head once a rank
        size, pairs = layer.head_size, layer.total_num_kv_heads
        return [heads * size, pairs * size, pairs * getattr(layer, "v_head_size", size)]
    return list(getattr(layer, "output_sizes", None) or [layer.output_size])


def parts(name, layer, packed):
    """The checkpoint's layers in a module, as `qera.linears` has them; None where that is not
    known."""
    stem, _, last = name.rpartition(".")
    names, widths = packed.get(last) or [last], output_widths(layer)
    if len(names) == 1:
        widths = [sum(widths)]
    if len(names) != len(widths):
        return None
    prefix = f"{stem}." if stem else ""
    return [{"name": prefix + part, "in": layer.input_size, "out": out} for part, out in zip(names, widths)]


def checkpoint_name(name, mapper):
    """What the checkpoint calls what the served class calls `name`; None where that cannot be
    told."""
    if mapper is None:
        return name
    prefixes = getattr(mapper, "orig_to_new_prefix", None) or {}
    candidates = [name] + [
        old + name[len(new) :] for old, new in prefixes.items() if new is not None and name.startswith(new)
    ]
    fitting = [old for old in dict.fromkeys(candidates) if mapper.map_name(f"{old}.weight") == f"{name}.weight"]
    if name in fitting and not any(new and name.startswith(new) for new in prefixes.values()):
        return name
    fitting = [old for old in fitting if old != name] or fitting
    return fitting[0] if len(fitting) == 1 else None


def inner_model(model):
    """The text model of one that has towers for other media beside it, and its name in it."""
    get = getattr(model, "get_language_model", None)
    inner = get() if callable(get) else model
    name = next((name for name, module in model.named_modules() if module is inner), "")
    return name, inner


def find(model, kinds):
    """The sites of a model, what `qera.linears` says of it, and what is left out."""
    found = Found()
    prefix, inner = inner_model(model)
    packed = dict(getattr(inner, "packed_modules_mapping", None) or {})
    packed.update(getattr(model, "packed_modules_mapping", None) or {})
    mapper = getattr(model, "hf_to_vllm_mapper", None)
    if mapper is not None:
        mapper = mapper.get_rename_mapper()  # without what fuses layers
    for served, module, parent in walk(inner, kinds, prefix):
        layer = getattr(module, "base_layer", module) if isinstance(module, kinds.wrapper) else module
        if is_experts(module) or is_experts(layer):
            found.left_out[served] = "experts: no tensor holds what one of them reads"
        elif not isinstance(layer, kinds.linear):
            pass  # embeddings and output layers, wrapped
        elif is_router(layer, served, parent):
            found.left_out[served] = "a router"
        else:
            add(found, served, module, layer, kinds, packed, mapper)
    for index, site in enumerate(found.sites):
        site.index = index
    return found


def add(found, served, module, layer, kinds, packed, mapper):
    entries = parts(served, layer, packed)
    if entries is None:
        found.left_out[served] = "its parts are not those of packed_modules_mapping"
        return
    for entry in entries:
        entry["name"] = checkpoint_name(entry["name"], mapper)
    if any(entry["name"] is None for entry in entries):
        found.left_out[served] = "its name in the checkpoint is not known"
        return
    found.linears += entries
    sliced = isinstance(layer, kinds.row_parallel) and getattr(layer, "tp_size", 1) > 1
    if sliced and getattr(layer, "input_is_parallel", True):
        found.left_out[served] = "its input is sliced by tensor parallelism"
        return
    found.sites.append(Site(module, [entry["name"] for entry in entries], layer.input_size))
