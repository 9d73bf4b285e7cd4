"""The error that a generation leaves on rows that were never in the watched folder, relative to no
correction."""

import mxint
import torch
from daemon import correction
from fixture import BLOCK_SIZE, linear_names, load_model
from safetensors.torch import load_file


class UnseenRows:
    """What every layer of the fixture model reads of `tokens`, as sums of x^T x, and E = W - W~ in
    f64."""

    def __init__(self, tokens, bits):
        model = load_model()
        names = linear_names(model)
        self.sums, self.errors = dict.fromkeys(names, 0.0), {}
        for name in names:
            layer = model.get_submodule(name)
            weight = layer.weight.detach().double()
            self.errors[name] = weight - torch.from_numpy(mxint.quantize(weight.numpy(), bits, BLOCK_SIZE))
            layer.register_forward_pre_hook(lambda _, inputs, name=name: self.add(name, inputs[0]))
        with torch.no_grad():
            for batch in tokens.split(16):
                model(input_ids=batch)

    def add(self, name, x):
        rows = x.flatten(0, 1).double()
        self.sums[name] = self.sums[name] + rows.T @ rows

    def squares(self, name, weight):
        """Sum over the rows of |x weight^T|^2."""
        return ((weight @ self.sums[name]) * weight).sum().item()

    def error(self, generation):
        """Mean over the layers of |x (E - A B)|^2 / |x E|^2."""
        adapter = load_file(generation / "adapter_model.safetensors")
        shares = [
            self.squares(name, error - correction(adapter, name)) / self.squares(name, error)
            for name, error in self.errors.items()
        ]
        return sum(shares) / len(shares)
