"""The daemon's decoders of GGUF blocks against Python's `gguf` and ggml, bit for bit on random
blocks of every type.

    python3 tests/gguf/blocks/test_blocks.py

Needs the packages gguf, numpy, xllamacpp and blake3. QERA_GGUF_BLOCKS names the program that
decodes (tests/src/bin/gguf_blocks.rs) in place of the one built here.
"""

import os
import pathlib
import re
import subprocess
import sys

import numpy
import write_golden
import write_grids
from oracle import OF_GGML, OF_GGUF, REMOVED, by_ggml, by_gguf, traits

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.append(str(ROOT / "tests" / "peft"))

from suites import report, run  # noqa: E402

BLOCKS = 2000  # random ones of each type
REFUSED_BLOCKS = 25  # of those that are not finite, how many of each type are given to the decoder
NEVER_REFUSED = ("NVFP4",)  # its scales have no infinity
NO_WEIGHTS = {9: (32, 36), 15: (256, 292), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8)}
FIRST_UNKNOWN, FIRST_OF_FORKS = 43, 133


def build():
    """The program, built when none is named."""
    if named := os.environ.get("QERA_GGUF_BLOCKS"):
        return named
    command = ("cargo", "build", "--quiet", "--release", "--locked", "-p", "qera-tests", "--bin", "gguf_blocks")
    subprocess.run(command, cwd=ROOT, check=True)
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "gguf_blocks"


class BlocksTests:
    def __init__(self):
        self.program = build()
        self.types = {number: (name, by_gguf) for number, name in OF_GGUF.items()}
        self.types |= {number: (name, by_ggml) for number, name in OF_GGML.items()}
        assert len(self.types) == 28, self.types

    def decode(self, number, blocks):
        """The numbers that the daemon reads, or what it says when it refuses."""
        result = subprocess.run((self.program, str(number)), input=blocks.tobytes(), capture_output=True, check=False)
        if result.returncode == 0:
            return numpy.frombuffer(result.stdout, "<f4").reshape(len(blocks), -1)
        return result.stderr.decode()

    def random_blocks(self, number):
        """Random blocks, what they hold, and which of them are finite."""
        shape = (BLOCKS, traits(number).block_bytes)
        blocks = numpy.random.default_rng(number).integers(0, 256, shape, dtype=numpy.uint8)
        values = self.types[number][1](number, blocks)
        return blocks, values, numpy.isfinite(values).all(axis=1)

    def test_finite_blocks_are_read_bit_for_bit(self):
        for number, (name, _) in self.types.items():
            blocks, values, finite = self.random_blocks(number)
            assert finite.sum() >= 1000, f"{name}: {finite.sum()} finite blocks"
            read = self.decode(number, blocks[finite])
            assert not isinstance(read, str), f"{name}: {read}"
            differing = (read.view(numpy.uint32) != values[finite].view(numpy.uint32)).any(axis=1)
            assert not differing.any(), f"{name}: {differing.sum()} blocks differ, block {differing.argmax()} first"

    def test_blocks_that_are_not_finite_are_refused_by_their_number(self):
        for number, (name, _) in self.types.items():
            blocks, values, finite = self.random_blocks(number)
            bad = numpy.flatnonzero(~finite)[:REFUSED_BLOCKS]
            assert (len(bad) > 0) == (name not in NEVER_REFUSED), f"{name}: {len(bad)} blocks are not finite"
            start = 0
            for block in bad:
                first = values[block][~numpy.isfinite(values[block])][0]
                expected = f"block {block - start} decodes to {str(first).replace('nan', 'NaN')}"
                said = self.decode(number, blocks[start:])
                assert isinstance(said, str) and re.search(rf"\b{expected}\b", said), f"{name}: {said} not {expected}"
                start = block + 1

    def test_ggml_reads_the_same(self):
        for number, (name, _) in self.types.items():
            if number != 0:  # ggml has no function for F32
                blocks, values, finite = self.random_blocks(number)
                same = by_ggml(number, blocks).view(numpy.uint32) == values.view(numpy.uint32)
                assert same[finite].all(), name

    def test_sizes_are_those_of_ggml(self):
        for number, (name, _) in self.types.items():
            of = traits(number)
            assert of.type_name.decode().upper() == name.upper(), (number, of.type_name)
            read = self.decode(number, numpy.zeros((3, of.block_bytes), numpy.uint8))
            assert read.shape == (3, of.block_len), f"{name}: {read}"
            if of.block_bytes > 1:
                said = self.decode(number, numpy.zeros((1, of.block_bytes + 1), numpy.uint8))
                expected = f"whose blocks of {of.block_len} numbers take {of.block_bytes} "
                assert isinstance(said, str) and expected in said, f"{name}: {said}"

    def test_other_numbers_are_refused(self):
        known = set(self.types) | set(NO_WEIGHTS) | set(REMOVED)
        assert known == set(range(FIRST_UNKNOWN)), "ggml has other types by now"
        for number, (block_len, block_bytes) in NO_WEIGHTS.items():
            of = traits(number)
            assert (of.block_len, of.block_bytes) == (block_len, block_bytes), number
        for numbers, phrase in (
            (NO_WEIGHTS, "holds no weights"),
            (REMOVED, "was removed from ggml"),
            ((FIRST_UNKNOWN, FIRST_OF_FORKS - 1), "is not known"),
            ((FIRST_OF_FORKS, 2**32 - 1), "is of a fork"),
        ):
            for number in numbers:
                said = self.decode(number, numpy.zeros((0, 1), numpy.uint8))
                assert isinstance(said, str) and f"type {number} " in said and phrase in said, said

    def test_tables_in_the_sources_are_as_written(self):
        for path, text in {**write_grids.files(), write_golden.PATH: write_golden.text()}.items():
            assert path.read_text(encoding="utf-8") == text, f"{path}: run the script that writes it"


if __name__ == "__main__":
    report("blocks", [run("blocks", BlocksTests)])
