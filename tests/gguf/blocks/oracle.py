"""What other programs read in a block: Python's `gguf` (numpy), and ggml's own `to_float`, which
the package `xllamacpp` carries in its library."""

import ctypes
import pathlib

import gguf
import numpy
import xllamacpp

# Types by their numbers. Of Q1_0 gguf knows the size only, of Q2_0 nothing.
OF_GGUF = {
    int(of): of.name
    for of in gguf.GGMLQuantizationType
    if of.name in ("F32", "F16") or of in gguf.quants._type_traits
}
OF_GGML = {41: "Q1_0", 42: "Q2_0"}
REMOVED = (4, 5, 31, 32, 33, 36, 37, 38)  # ggml keeps their places in its table


class Traits(ctypes.Structure):
    """`ggml_type_traits` of ggml.h, as far as it is read here."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("block_len", ctypes.c_int64),
        ("interleaved", ctypes.c_int64),
        ("block_bytes", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
    )


def _library():
    (path,) = pathlib.Path(xllamacpp.__file__).parent.glob("xllamacpp*.so")
    library = ctypes.CDLL(str(path))
    library.ggml_get_type_traits.restype = ctypes.POINTER(Traits)
    return library


LIBRARY = _library()


def traits(number):
    return LIBRARY.ggml_get_type_traits(number).contents


def by_gguf(number, blocks):
    """[blocks, block_len] f32 of [blocks, block_bytes] u8."""
    with numpy.errstate(all="ignore"):
        return gguf.dequantize(numpy.ascontiguousarray(blocks), gguf.GGMLQuantizationType(number))


def by_ggml(number, blocks):
    blocks = numpy.ascontiguousarray(blocks)
    of = traits(number)
    assert blocks.shape[1] == of.block_bytes, (number, blocks.shape)
    values = numpy.empty((len(blocks), of.block_len), numpy.float32)
    of.to_float(blocks.ctypes.data, values.ctypes.data, values.size)
    return values
