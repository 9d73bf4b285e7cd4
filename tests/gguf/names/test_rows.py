"""Names and row orders as llama.cpp's own converter makes them: small checkpoints of every family
are converted, and each two-dimensional weight is looked for among the GGUF's tensors by its rows,
bit for bit. What is found has to be what rows.json records, and the unit tests of
weights/gguf/family/ hold the table against that.

    test_rows.py SOURCE [--record]

SOURCE is a folder that contains llama.cpp's source (an unpacked sdist of xllamacpp, 38 MB: too
large to be fetched in every run of the gate). --record writes rows.json anew. Needs what
tests/peft/setup.sh installs.
"""

import argparse
import json
import pathlib
import sys
import tempfile
import warnings

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "peft")]

import numpy as np
import tiny
import transformers
from converter import Converter
from suites import report, run

RECORDED = HERE / "rows.json"
#: Beside the blocks: what may be multiplied with.
BESIDE = ("token_embd.weight", "output.weight")


class RowTests:
    """One checkpoint, converted."""

    def __init__(self, converter, name, recorded):
        self.recorded = recorded
        with tempfile.TemporaryDirectory() as work:
            folder = pathlib.Path(work) / "model"
            config, weights = tiny.save(name, folder)
            reader = converter.convert(folder, pathlib.Path(work) / "model.gguf")
            self.found = {"checkpoint": name, "model_type": config["model_type"]}
            self.found |= metadata(reader)
            self.found["layers"] = layers(reader, weights)

    def test_names_and_rows_are_those_that_are_recorded(self):
        assert self.found["layers"], "no weight was found"
        assert self.recorded == self.found, f"recorded {self.recorded}\nfound {self.found}"


def metadata(reader):
    architecture = reader.fields["general.architecture"].contents()
    counts = {}
    for name in ("head_count", "head_count_kv"):
        field = reader.fields.get(f"{architecture}.attention.{name}")
        if field is not None:
            counts[name] = field.contents()
    return {"architecture": architecture, "heads": counts}


def layers(reader, weights):
    """By module: the tensor that has its rows, and for each stored row which of them it is. Blocks
    are alike, and the first speaks for all."""
    tensors = {
        frozenset(rows(of.data)): of for of in reader.tensors if len(of.shape) == 2
    }
    found = {}
    for module, weight in sorted(weights.items()):
        keys = rows(weight.numpy())
        tensor = tensors.get(frozenset(keys))
        # What is no linear layer: a norm that has a row for each head, positions.
        if tensor is None or "norm" in module:
            continue
        if not tensor.name.startswith("blk.0.") and tensor.name not in BESIDE:
            continue
        assert len(set(keys)) == len(keys), f"{module} has equal rows"
        places = {key: row for row, key in enumerate(keys)}
        order = [places[key] for key in rows(tensor.data)]
        as_they_lie = order == list(range(len(order)))
        found[module] = {
            "tensor": tensor.name,
            "rows": len(order),
            "order": None if as_they_lie else order,
        }
    return found


def rows(matrix):
    return [row.tobytes() for row in np.ascontiguousarray(matrix, dtype=np.float32)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    converter = Converter(arguments.source)
    if arguments.record:
        found = [RowTests(converter, name, None).found for name in tiny.names()]
        lines = ",\n".join(json.dumps(of) for of in found)
        RECORDED.write_text(f"[\n{lines}\n]\n")
        return
    recorded = {of["checkpoint"]: of for of in json.loads(RECORDED.read_text())}
    assert sorted(recorded) == sorted(tiny.names()), "rows.json has other checkpoints"
    suite = lambda name: run(name, lambda: RowTests(converter, name, recorded[name]))
    report("rows", [suite(name) for name in tiny.names()])


if __name__ == "__main__":
    main()
