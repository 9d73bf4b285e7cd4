"""ggml's own quantizers, and GGUF files of what they give."""

import ctypes

import gguf
import numpy as np


class Quantizer:
    def __init__(self, library):
        self.quantize_chunk = library.ggml_quantize_chunk
        self.quantize_chunk.restype = ctypes.c_size_t
        pointer, i64 = ctypes.c_void_p, ctypes.c_int64
        self.quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, i64, i64, i64, pointer]

    def quantize(self, weight, kind, importance=None):
        """Bytes of `weight`, [out, in], as `kind`; `importance`: what an error in each input
        channel weighs."""
        weight = np.ascontiguousarray(weight, np.float32)
        out, width = weight.shape
        stored = np.empty(gguf.quant_shape_to_byte_shape(weight.shape, kind), np.uint8)
        if importance is not None:
            importance = np.ascontiguousarray(importance, np.float32)
            assert importance.shape == (width,)
        weighed = None if importance is None else importance.ctypes.data
        written = self.quantize_chunk(kind, weight.ctypes.data, stored.ctypes.data, 0, out, width, weighed)
        assert written == stored.nbytes, f"{kind.name}: {written} bytes of {stored.nbytes}"
        return stored


def write_gguf(path, like, tensors):
    """Writes a GGUF with the metadata and tensors of the reader `like`, some of them others: name
    -> (kind, bytes)."""
    part = path.with_suffix(".part")
    writer = gguf.GGUFWriter(part, like.fields["general.architecture"].contents())
    for field in like.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            kind, item = field.types[0], field.types[-1]
            writer.add_key_value(field.name, field.contents(), kind, item if kind == gguf.GGUFValueType.ARRAY else None)
    for tensor in like.tensors:
        kind, data = tensors.get(tensor.name, (tensor.tensor_type, tensor.data))
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.rename(path)
    return path
