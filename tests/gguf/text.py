"""English text out of the fixture's tokens, so that no text has to be fetched."""

import json

from safetensors.numpy import load_file


def of_bytes():
    """The characters by which a byte-level vocabulary writes bytes, and the bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + at): byte for at, byte in enumerate(others)}


def fixture_text(root, name, count):
    """The first `count` sequences of `fixtures/NAME.safetensors`, one after the other."""
    model = json.loads((root / "fixtures/model/tokenizer.json").read_text(encoding="utf-8"))["model"]
    words, byte_of = {token: word for word, token in model["vocab"].items()}, of_bytes()
    tokens = load_file(root / f"fixtures/{name}.safetensors")["tokens"][:count]
    lines = ("".join(words[int(token)] for token in sequence) for sequence in tokens)
    text = "\n".join(bytes(byte_of[char] for char in line).decode(errors="replace") for line in lines)
    return text.replace("<|end|>", "")
