"""Writes what the daemon's unit test holds every decoder to: digests of what Python's `gguf` (of
Q1_0 and Q2_0: ggml) reads in blocks of SplitMix64's bytes.

    python3 write_golden.py            # writes the file
"""

import blake3
import numpy
from oracle import OF_GGML, OF_GGUF, by_ggml, by_gguf, traits
from write_grids import FOLDER

PATH = FOLDER / "golden.rs"
BLOCKS = 512  # so many that every point of every grid is likely among them
GAMMA = 0x9E3779B97F4A7C15
# In each block the bytes whose second highest bit is cleared, so that no scale is an infinity or a
# NaN.
EXPONENTS = {
    "F32": (3,), "F16": (1,), "BF16": (1,), "Q4_0": (1,), "Q4_1": (1, 3), "Q5_0": (1,), "Q5_1": (1, 3), "Q8_0": (1,),
    "Q2_K": (81, 83), "Q3_K": (109,), "Q4_K": (1, 3), "Q5_K": (1, 3), "Q6_K": (209,), "IQ2_XXS": (1,),
    "IQ2_XS": (1,), "IQ3_XXS": (1,), "IQ1_S": (1,), "IQ4_NL": (1,), "IQ3_S": (1,), "IQ2_S": (1,), "IQ4_XS": (1,),
    "IQ1_M": (55,), "TQ1_0": (53,), "TQ2_0": (65,), "MXFP4": (0,), "NVFP4": (), "Q1_0": (1,), "Q2_0": (1,),
}  # fmt: skip
HEAD = """//! Digests of what Python's `gguf` 0.19 decodes from blocks (for `Q1_0` and `Q2_0`: what ggml
//! does), written by `tests/gguf/blocks/write_golden.py`.

use crate::formats::gguf::block_type::BlockType;

/// The number of blocks of each type. Their bytes are from SplitMix64, seeded with the type's
/// number.
pub(super) const BLOCKS: usize = {blocks};

/// A type, and the digest of its decoded blocks.
pub(super) struct Golden {{
    pub(super) of: BlockType,
    /// The bytes of a block whose second highest bit is cleared, so that every number is finite.
    pub(super) exponents: &'static [usize],
    /// BLAKE3 of the decoded numbers, as little-endian f32.
    pub(super) digest: &'static str,
}}

pub(super) const GOLDEN: [Golden; {types}] = [
"""
ROW = """    Golden {{
        of: BlockType::{name},
        exponents: &[{exponents}],
        digest: "{digest}",
    }},
"""


def random_bytes(seed, count):
    """The bytes of SplitMix64's first numbers, each little-endian."""
    with numpy.errstate(over="ignore"):
        z = numpy.uint64(seed) + numpy.arange(1, -(-count // 8) + 1, dtype=numpy.uint64) * numpy.uint64(GAMMA)
        z = (z ^ z >> numpy.uint64(30)) * numpy.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> numpy.uint64(27)) * numpy.uint64(0x94D049BB133111EB)
        z ^= z >> numpy.uint64(31)
    return z.astype("<u8").view(numpy.uint8)[:count]


def digest(number, name, decode):
    block_bytes = traits(number).block_bytes
    blocks = random_bytes(number, BLOCKS * block_bytes).reshape(BLOCKS, block_bytes)
    blocks[:, EXPONENTS[name]] &= 0xBF
    values = decode(number, blocks)
    assert values.dtype == numpy.float32 and numpy.isfinite(values).all(), name
    return blake3.blake3(values.astype("<f4").tobytes()).hexdigest()


def text():
    rows = []
    for names, decode in ((OF_GGUF, by_gguf), (OF_GGML, by_ggml)):
        for number, name in names.items():
            exponents = ", ".join(map(str, EXPONENTS[name]))
            rows.append(ROW.format(name=name, exponents=exponents, digest=digest(number, name, decode)))
    return HEAD.format(blocks=BLOCKS, types=len(rows)) + "".join(rows) + "];\n"


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
