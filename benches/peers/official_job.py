"""The official side of `run --job`: the whole job by the official implementation's steps, in this
process.

Reads shards and a checkpoint, writes A and B of every layer to OUT/AB_dict.safetensors, and prints
the CPU seconds of its steps as JSON. `job.py` runs it.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path

import numpy
import scipy.linalg
import torch
from peers import count, mxint, official_fold, timed
from safetensors import safe_open
from safetensors.torch import save_file

WIDTH = 3  # bits of an element of MXINT
RANK = 32
STEPS = ("read", "accumulate", "sqrtm", "quantize", "svd", "solve", "write")


class Shards:
    """Files of recorded inputs, in the order of their names."""

    def __init__(self, folder):
        self.paths = sorted(Path(folder).glob("*.safetensors"))
        if not self.paths:
            sys.exit(f"{folder} holds no shard")
        with safe_open(self.paths[0], "pt") as first:
            keys, shares = set(first.keys()), json.loads(first.metadata()["qera.shares"])
        # By the key of its rows, the layers that read an input.
        self.layers = {next(name for name in names if name in keys): names for names in shares}
        if set(self.layers) != keys:
            sys.exit(f"{self.paths[0]}: keys without an entry in qera.shares")

    @staticmethod
    def rows(path, key):
        """An input's rows in one shard, as they are stored."""
        with safe_open(path, "pt") as shard:
            rows = shard.get_tensor(key)
        return rows.view(-1, rows.shape[-1])


class Weights:
    """The checkpoint's tensors by name."""

    def __init__(self, folder):
        files = [safe_open(path, "pt") for path in sorted(Path(folder).glob("*.safetensors"))]
        self.file_of = {name: file for file in files for name in file.keys()}

    def layer(self, name):
        """A layer's weight, [out, in], f32."""
        return self.file_of[f"{name}.weight"].get_tensor(f"{name}.weight").float()


class Steps:
    """CPU seconds of the steps."""

    def __init__(self):
        self.seconds = dict.fromkeys(STEPS, 0.0)

    def take(self, step, work, *arguments):
        result, cost = timed(lambda: work(*arguments))
        self.seconds[step] += cost["cpu_s"]
        return result


def scale_of(r, rows):
    """The square root of the mean of x^T x, f32. Where it is complex its imaginary part goes, as
    the official code's cast has it."""
    root = scipy.linalg.sqrtm(r.numpy())
    return torch.from_numpy(numpy.ascontiguousarray(root.real) / rows**0.5).float()


def quantization_error(weight):
    return weight - torch.from_numpy(mxint(weight.numpy(), WIDTH))


def inverse_times(scale, u):
    """Where the scale is singular its singular values that are not positive become eps, as the
    official code has it."""
    try:
        return torch.linalg.solve(scale, u)
    except RuntimeError:
        left, sigma, right = torch.linalg.svd(scale)
        sigma[sigma <= 0] = torch.finfo(sigma.dtype).eps
        return torch.linalg.solve(left @ torch.diag(sigma) @ right, u)


def decompose(scale, error):
    """Full matrices, which is torch's default and what the official code uses."""
    return torch.linalg.svd(scale @ error.T)


def run(arguments):
    """The steps in their order: all shards, then all square roots, then layer by layer."""
    steps, shards = Steps(), Shards(arguments.shards)
    weights = Weights(arguments.checkpoint)
    sums, rows_of = {}, dict.fromkeys(shards.layers, 0)
    for path in shards.paths:
        for key in shards.layers:
            x = steps.take("read", shards.rows, path, key)
            if key not in sums:
                sums[key] = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
            steps.take("accumulate", official_fold, sums[key], x)
            rows_of[key] += len(x)
    scales = {key: steps.take("sqrtm", scale_of, r, rows_of[key]) for key, r in sums.items()}
    factors = {}
    for key, names in shards.layers.items():
        for name in names:
            weight = steps.take("read", weights.layer, name)
            error = steps.take("quantize", quantization_error, weight)
            u, sigma, v_t = steps.take("svd", decompose, scales[key], error)
            a = steps.take("solve", inverse_times, scales[key], u[:, :RANK])
            b = torch.diag(sigma[:RANK]) @ v_t[:RANK]
            factors |= {f"{name}.A": a.contiguous(), f"{name}.B": b.contiguous()}
    steps.take("write", save_file, factors, Path(arguments.out) / "AB_dict.safetensors")
    return steps.seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for option in ("--shards", "--checkpoint", "--out"):
        parser.add_argument(option, required=True)
    parser.add_argument("--threads", type=count, required=True)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    torch.set_num_threads(arguments.threads)
    print(json.dumps(run(arguments)))


if __name__ == "__main__":
    main()
