"""An independent recording: what the forward of each linear layer was really given, and what shards
hold."""

import json

import torch
from safetensors import safe_open
from safetensors.torch import load_file


class Truth:
    """Replaces the forward of each of a model's linear layers by one that keeps a copy of its
    input, call by call."""

    def __init__(self, model, is_linear):
        self.calls, self.replaced = {}, []
        for name, module in model.named_modules():
            if is_linear(module):
                self.calls[name] = []
                self.replace(name, module)

    def replace(self, name, module):
        forward = module.forward

        def keeping(x):
            self.calls[name].append(x.detach().clone())
            return forward(x)

        module.forward = keeping
        self.replaced.append(module)

    def stop(self):
        for module in self.replaced:
            del module.forward

    def fed(self):
        return {name for name, calls in self.calls.items() if calls}

    def rows(self, name, counts=lambda name, x: None):
        """All rows of a layer; `counts` says which of an input are no padding, None: all."""
        parts = []
        for x in self.calls[name]:
            kept = counts(name, x)
            rows = x.reshape(-1, x.shape[-1])
            parts.append(rows if kept is None else rows[kept.reshape(-1).bool()])
        return torch.cat(parts) if parts else None


def shards(folder):
    return sorted(folder.glob("*.safetensors"))


def said(shard):
    with safe_open(shard, "pt") as file:
        return file.metadata()


def recorded(folder):
    """Name of each layer that is fed -> all of its rows that count, as the daemon takes them."""
    rows = {}
    for shard in shards(folder):
        tensors = load_file(shard)
        for group in json.loads(said(shard)["qera.shares"]):
            (key,) = [name for name in group if name in tensors]
            x = tensors[key].flatten(0, -2)
            mask = tensors.get(f"{key}::mask")
            kept = x if mask is None else x[mask.flatten().bool()]
            for name in group:
                rows.setdefault(name, []).append(kept)
    return {name: torch.cat(parts) for name, parts in rows.items()}


def in_order(rows):
    """Rows sorted by their bits: in which order a shard has those of several calls says nothing."""
    data, width = rows.contiguous().view(torch.uint8).numpy().tobytes(), rows.shape[-1] * rows.element_size()
    return sorted(data[at : at + width] for at in range(0, len(data), width))


def check_same(folder, truth, counts=lambda name, x: None, names=None):
    """The shards hold every row that the layers were given, no other, and not one bit differs."""
    found = recorded(folder)
    expected = truth.fed() if names is None else set(names)
    assert found.keys() == expected, f"not in both: {sorted(found.keys() ^ expected)}"
    for name, rows in found.items():
        real = truth.rows(name, counts)
        assert rows.dtype == real.dtype, f"{name}: {rows.dtype}, not {real.dtype}"
        assert rows.shape == real.shape, f"{name}: {list(rows.shape)}, not {list(real.shape)}"
        assert in_order(rows) == in_order(real), f"{name}: {len(rows)} other rows"
