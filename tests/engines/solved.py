"""What `qera-daemon solve` publishes for llama.cpp: an adapter, and the base that it made."""

import hashlib
import json
import shutil

from corrected import Run


class Solved:
    """A run of `solve` into `out`; made when it is not there, or another binary's, or of other
    options."""

    def __init__(self, binary, out, *options):
        self.out, stamp = out, out.with_suffix(".json")
        with open(binary, "rb") as file:
            made_by = [hashlib.file_digest(file, "sha256").hexdigest(), *map(str, options)]
        if not stamp.exists() or json.loads(stamp.read_text()) != made_by:
            shutil.rmtree(out, ignore_errors=True)
            Run(binary, "solve", "--out", out, *options).expect(0)
            stamp.write_text(json.dumps(made_by))
        self.adapter = out / "current/adapter.gguf"
        self.base = out / "base-gguf/model.gguf"
        self.manifest = json.loads((out / "current/qera_manifest.json").read_text())
