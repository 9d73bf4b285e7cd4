"""Records what a model's linear layers read, as shards with all that a shard can say of itself."""

import json
import re

import torch
from safetensors.torch import save_file
from transformers.pytorch_utils import Conv1D


def is_linear(module):
    return isinstance(module, (torch.nn.Linear, Conv1D))


def linears(model):
    """Every linear layer by name, but those whose weight is an embedding's."""
    tables = [m.weight for m in model.modules() if isinstance(m, torch.nn.Embedding)]
    return {
        name: module
        for name, module in model.named_modules()
        if is_linear(module) and not any(module.weight is table for table in tables)
    }


def listed(model, rename=lambda name: name):
    """What `qera.linears` says of a model."""
    entries = []
    for name, module in linears(model).items():
        transposed = isinstance(module, Conv1D)
        axes = ("in", "out") if transposed else ("out", "in")
        shape = dict(zip(axes, module.weight.shape))
        entries.append({"name": rename(name), **shape, "transposed": transposed})
    return entries


def metadata(model, task_type=None):
    """All but `qera.shares`, which the calls decide."""
    about = {
        "qera.source": "full-precision",
        "qera.class": type(model).__name__,
        "qera.linears": json.dumps(listed(model)),
    }
    return about | ({"qera.task_type": task_type} if task_type else {})


class Recorder:
    """The inputs of every linear layer of a model, call by call, since they were last taken."""

    def __init__(self, model):
        self.model, self.calls, self.seen = model, {}, {}
        self.handles = [
            layer.register_forward_pre_hook(lambda _, x, name=name: self.keep(name, x[0]))
            for name, layer in linears(model).items()
        ]

    def keep(self, name, x):
        """One object with one content is one input. It is kept, so that no other gets its id, and
        so is a copy, because what follows may write into it."""
        key = (id(x), x._version)
        if key not in self.seen:
            self.seen[key] = (x, x.detach().clone())
        self.calls.setdefault(name, []).append(key)

    def run(self, **inputs):
        with torch.no_grad():
            return self.model(**inputs)

    def take(self):
        """[(names, rows)]: the layers that read the same in every call, and that."""
        groups = {}
        for name, keys in self.calls.items():
            groups.setdefault(tuple(keys), []).append(name)
        taken = [(names, self.rows(keys)) for keys, names in groups.items()]
        self.calls, self.seen = {}, {}
        return [(names, rows) for names, rows in taken if rows.numel() > 0]

    def rows(self, keys):
        """[batch, seq, in_features] where it came so in one call, else [rows, in_features]."""
        parts = [self.seen[key][1] for key in keys]
        if len(parts) == 1 and parts[0].dim() == 3:
            return parts[0].contiguous()
        return torch.cat([part.flatten(0, -2) for part in parts])

    def stop(self):
        for handle in self.handles:
            handle.remove()


def apart(groups, part):
    """The same groups, cut where `part` of the names differs."""
    for names, rows in groups:
        parts = {}
        for name in names:
            parts.setdefault(part(name), []).append(name)
        yield from ((names, rows) for names in parts.values())


def block_of(name):
    """The path up to its first number: all of a model's blocks have one."""
    return re.match(r"(\D*\d+\.)?", name)[0]


def record(
    model,
    batches,
    folder,
    about,
    rename=lambda n: n,
    keep=lambda n: True,
    part=block_of,
    shared=True,
):
    """A shard for each batch. With `about`, its metadata, `qera.shares` is written too if `shared`;
    without, none at all, and no group reaches beyond a `part` of the model, as nothing would say
    that it does. A group is written under its first name that `keep` takes."""
    folder.mkdir()
    recorder = Recorder(model)
    for number, batch in enumerate(batches):
        recorder.run(**batch)
        rows, shares = {}, []
        groups = recorder.take()
        for names, x in groups if about and shared else apart(groups, part):
            kept = [rename(name) for name in names if keep(name)]
            if kept:
                rows[kept[0]] = x.clone()  # the file format has no two names for one tensor
                shares.append(kept)
        said = about and about | ({"qera.shares": json.dumps(shares)} if shared else {})
        save_file(rows, folder / f"shard-{number:02}.part", said)
        (folder / f"shard-{number:02}.part").rename(folder / f"shard-{number:02}.safetensors")
    recorder.stop()
    return folder
