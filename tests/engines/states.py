"""Statistics of a model's inputs, recorded by the tap in llama.cpp and folded by the daemon as they
come."""

import json
import shutil

from corrected import Run
from engine import THREADS
from llama_cpp import RecordedModel

BATCH = 2  # sequences in the watched folder at a time: 0.8 GB of the whole SmolLM2-135M


class States:
    """`folder/N` is the state of the first N of `sequences`; one that was cut goes on where it
    was."""

    def __init__(self, binary, model, folder, sequences, layers=("blk.*",)):
        self.binary, self.model, self.folder = binary, model, folder
        self.sequences, self.layers = sequences, list(layers)

    def of(self, count):
        """The state of the first `count` sequences."""
        out = self.folder / str(count)
        out.mkdir(parents=True, exist_ok=True)
        stamp = out / "sequences.json"
        done = json.loads(stamp.read_text()) if stamp.exists() else 0
        for first in range(done, count, BATCH):
            last = min(first + BATCH, count)
            shards = out / f"shards-{first}"
            if not shards.exists():
                self._record(self.sequences[first:last], shards)
            Run(self.binary, "--watch", shards, "--out", out, "--once", "--consume", "delete").expect(0)
            stamp.write_text(json.dumps(last))
            shutil.rmtree(shards)
        assert json.loads(stamp.read_text()) == count, f"{out} is of more than {count} sequences"
        return out / "state"

    def _record(self, sequences, shards):
        part = shards.with_name(f"{shards.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        options = {"sequence": len(sequences[0]), "threads": THREADS, "include": self.layers}
        with RecordedModel(self.model, part, **options) as running:
            for sequence in sequences:
                running.feed_tokens([int(token) for token in sequence])
            assert running.tap.shards == len(sequences) and not running.tap.dropped_shards
        part.rename(shards)
