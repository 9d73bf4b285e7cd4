"""Rows that the tap recorded, and f computed from them: the oracle of what the daemon says."""

import json

import numpy as np
from safetensors import safe_open


class Recorded:
    """The rows of a folder of shards, by the GGUF's names."""

    def __init__(self, folder):
        self.folder, self.shards, self.first = folder, sorted(folder.glob("*.safetensors")), {}
        for shard in self.shards:
            with safe_open(shard, "np") as file:
                groups = json.loads(file.metadata()["qera.shares"])
            self.first |= {name: group[0] for group in groups for name in group}

    def rows(self, name):
        """Every row that layer `name` read, in f64."""
        parts = []
        for shard in self.shards:
            with safe_open(shard, "np") as file:
                parts.append(file.get_tensor(self.first[name]))
        return np.concatenate(parts).astype(np.float64)

    def sums(self, name):
        """The sum of squares of each channel, and how many rows that are."""
        rows = self.rows(name)
        return np.square(rows).sum(0), len(rows)


def mean_square(rows, error):
    """f: the mean over rows x of |x P|^2, P given as [out, in]."""
    return np.square(rows @ error.astype(np.float64).T).sum(1).mean()
