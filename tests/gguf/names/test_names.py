"""Names as gguf's own tensor map has them: every Hugging Face name of rows.json, and so of the
table that is held against it, has the GGUF name there that it has here.

    test_names.py

Needs `gguf` and numpy, nothing else.
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[1] / "peft"))

from gguf.constants import MODEL_ARCH_NAMES
from gguf.tensor_mapping import get_tensor_name_map
from suites import report, run

ARCHITECTURES = {name: of for of, name in MODEL_ARCH_NAMES.items()}
#: What the converter takes off, or puts before a base class's names, ahead of the map.
TAKEN_OFF = {"bert": "bert.", "roberta": "roberta.", "bloom": "transformer."}


class NameTests:
    """One checkpoint's names."""

    def __init__(self, record):
        self.record = record
        self.map = get_tensor_name_map(ARCHITECTURES[record["architecture"]], 4)

    def test_the_tensor_map_has_these_names(self):
        assert self.record["layers"]
        for module, layer in self.record["layers"].items():
            module = module.removeprefix(TAKEN_OFF.get(self.record["model_type"], ""))
            if self.record["checkpoint"] == "llama of the base class":
                module = f"model.{module}"
            for block in range(4):
                name = module.replace(".0.", f".{block}.", 1)
                tensor = layer["tensor"].replace("blk.0.", f"blk.{block}.")
                found = self.map.get_name(f"{name}.weight", try_suffixes=(".weight",))
                assert found == tensor, f"{name}: {found}, and {tensor} here"


def main():
    records = json.loads((HERE / "rows.json").read_text())
    report("names", [run(of["checkpoint"], lambda of=of: NameTests(of)) for of in records])


if __name__ == "__main__":
    main()
