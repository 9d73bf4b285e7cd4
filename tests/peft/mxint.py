"""MXINT, written from its definition and independent of the daemon's Rust.

A block of `block_size` successive elements of a row of the [out, in] weight shares the exponent e,
the largest of floor(log2 |x|) in it. An element is sign * M * 2^(e - (bits - 2)), where M is |x| /
2^(e - (bits - 2)) rounded half to even and clamped to 2^(bits - 1) - 1. Magnitudes below 2^-126
count as zero; the tail of a row is padded with zeros.
"""

import numpy


def quantize(weight, bits, block_size):
    weight = numpy.asarray(weight, dtype=numpy.float64)  # every f32 is one; all steps below are exact in f64
    rows, columns = weight.shape
    padded = numpy.zeros((rows, -(-columns // block_size) * block_size))
    padded[:, :columns] = weight
    blocks = padded.reshape(rows, -1, block_size)
    magnitude = numpy.abs(blocks)
    magnitude[magnitude < 2.0**-126] = 0.0
    largest = magnitude.max(axis=2, keepdims=True)
    # frexp: largest = fraction * 2^power with fraction in [1/2, 1), so that floor(log2 largest) =
    # power - 1.
    exponent = numpy.where(largest > 0.0, numpy.frexp(largest)[1] - 1, -126)
    step = numpy.ldexp(1.0, exponent - (bits - 2))
    code = numpy.minimum(numpy.rint(magnitude / step), 2.0 ** (bits - 1) - 1.0)
    return (numpy.sign(blocks) * code * step).reshape(rows, -1)[:, :columns]


# (bits, block_size, input, output): ties, saturation, a power of two as the largest, a padded tail,
# zeros.
KNOWN = (
    (4, 4, [0.1, -0.25, 0.3, 0.9], [0.125, -0.25, 0.25, 0.875]),
    (4, 8, [1, 0.125, 0.375, 0.625, -0.875, -0.125, 1.125, 1.375], [1, 0, 0.5, 0.5, -1, 0, 1, 1.5]),
    (4, 4, [1.99, -1.99, 1.9, 1.8749], [1.75, -1.75, 1.75, 1.75]),
    (2, 5, [1, 0.5, -0.75, 0.49, -1.6], [1, 0, -1, 0, -1]),
    (3, 7, [1, 0.5, -0.75, 0.24, -1.6, 0.25, 0.75], [1, 0.5, -1, 0, -1.5, 0, 1]),
    (8, 4, [0.7, -0.123, 0.011, -0.699], [0.703125, -0.125, 0.0078125, -0.6953125]),
    (4, 4, [0.5, 0.25, -0.4375, 0.03125], [0.5, 0.25, -0.5, 0]),
    (4, 4, [0.1, 0.2, 0.3, 0.4, 0.05, -0.06], [0.125, 0.1875, 0.3125, 0.375, 0.046875, -0.0546875]),
    (4, 4, [0, 0, 0, 0], [0, 0, 0, 0]),
    (4, 4, [1e-39, -5e-39, 2e-38, 1.2e-38], [0, 0, 7 * 2.0**-128, 4 * 2.0**-128]),
)


def check_known():
    for bits, block_size, given, expected in KNOWN:
        result = quantize(numpy.float32([given]), bits, block_size)
        assert numpy.array_equal(result, [expected]), f"mxint{bits}/{block_size} of {given}: {result}"
