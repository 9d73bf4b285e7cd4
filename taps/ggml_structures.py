"""Structures of ggml and llama.cpp as ctypes has them, and whether a library has the same."""

import ctypes
import importlib.metadata
import pathlib
import re

XLLAMACPP = ("2026.10.11549",)  # whose llama_context_params and llama_model_params are those below
F32, F16, BF16 = 0, 1, 30  # numbers of types in ggml

EvalCallback = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_bool, ctypes.c_void_p)
LogCallback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


def fields(kinds):
    """Fields of a structure, from a text of `kind name name, kind name`."""
    of = {"u32": ctypes.c_uint32, "i32": ctypes.c_int32, "f32": ctypes.c_float, "ptr": ctypes.c_void_p}
    of |= {"size": ctypes.c_size_t, "bool": ctypes.c_bool, "cb": EvalCallback}
    words = [part.split() for part in kinds.split(",")]
    return [(name, of[kind]) for kind, *names in words for name in names]


class GgmlTensor(ctypes.Structure):
    """ggml_tensor; `check_tensors` holds it against the library."""

    _fields_ = [
        ("type", ctypes.c_int32),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int32),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
        ("extra", ctypes.c_void_p),
        ("padding", ctypes.c_char * 8),
    ]


class GgmlInit(ctypes.Structure):
    _fields_ = fields("size mem_size, ptr mem_buffer, bool no_alloc")


class ModelParams(ctypes.Structure):
    _fields_ = fields(
        "ptr devices buffer_overrides, i32 n_gpu_layers split_mode load_mode lazy_mode main_gpu, "
        "ptr tensor_split progress progress_data kv_overrides, "
        "bool vocab_only check_tensors use_extra_bufts no_host no_alloc load_mtp"
    )


class ContextParams(ctypes.Structure):
    _fields_ = fields(
        "u32 n_ctx n_batch n_ubatch n_seq_max n_rs_seq n_outputs_max n_outputs_max_per_seq, "
        "i32 n_threads n_threads_batch ctx_type rope_scaling_type pooling_type attention_type flash_attn_type, "
        "f32 rope_freq_base rope_freq_scale yarn_ext_factor yarn_attn_factor yarn_beta_fast yarn_beta_slow, "
        "u32 yarn_orig_ctx, f32 defrag_thold, cb cb_eval, ptr cb_eval_user_data, i32 type_k type_v, "
        "size moe_cache_size, ptr abort_callback abort_callback_data, "
        "bool embeddings offload_kqv no_perf op_offload swa_full kv_unified, "
        "ptr samplers, size n_samplers, ptr ctx_other"
    )


class Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


class UnknownLayout(RuntimeError):
    """The library's structures are not those that are known here."""


def check_tensors(library):
    """Makes a product in the library and looks at it. Returns what the library calls a product."""
    library.ggml_init.argtypes, library.ggml_init.restype = [GgmlInit], ctypes.c_void_p
    library.ggml_free.argtypes = [ctypes.c_void_p]
    library.ggml_new_tensor_2d.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    library.ggml_mul_mat.argtypes = [ctypes.c_void_p] * 3
    library.ggml_set_name.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    for name in ("ggml_new_tensor_2d", "ggml_mul_mat", "ggml_set_name"):
        getattr(library, name).restype = ctypes.c_void_p
    library.ggml_tensor_overhead.restype = ctypes.c_size_t
    overhead = library.ggml_tensor_overhead()
    context = library.ggml_init(GgmlInit(8 * overhead, None, True))
    weight = library.ggml_new_tensor_2d(context, F16, 64, 32)
    rows = library.ggml_new_tensor_2d(context, F32, 64, 5)
    library.ggml_set_name(weight, b"blk.0.attn_q.weight")
    product = GgmlTensor.from_address(library.ggml_mul_mat(context, weight, rows))
    seen = [GgmlTensor.from_address(address) for address in (weight, rows)] + [product]
    facts = [
        overhead == 32 + ctypes.sizeof(GgmlTensor),
        [tensor.type for tensor in seen] == [F16, F32, F32],
        [list(tensor.ne) for tensor in seen] == [[64, 32, 1, 1], [64, 5, 1, 1], [32, 5, 1, 1]],
        [list(tensor.nb) for tensor in seen[:2]] == [[2, 128, 4096, 4096], [4, 256, 1280, 1280]],
        seen[0].name == b"blk.0.attn_q.weight",
        list(product.src[:3]) == [weight, rows, None],
        [tensor.op for tensor in seen[:2]] == [0, 0] and product.op > 0,
        all(tensor.view_src is None and tensor.buffer is None for tensor in seen),
    ]
    op = product.op
    library.ggml_free(context)
    if not all(facts):
        raise UnknownLayout(f"ggml_tensor is laid out otherwise in this library (checks: {facts}); nothing is recorded")
    return op


def xllamacpp_library():
    """xllamacpp's llama.cpp, where its structures are known."""
    version = importlib.metadata.version("xllamacpp")
    if version.split("+")[0] not in XLLAMACPP:
        known = ", ".join(XLLAMACPP)
        raise UnknownLayout(f"the structures of xllamacpp {version} are not known (known: {known}); install one known")
    import xllamacpp

    folder = pathlib.Path(xllamacpp.__file__).parent
    (path,) = [path for path in folder.iterdir() if re.fullmatch(r"xllamacpp\..*(so|pyd|dylib)", path.name)]
    return ctypes.CDLL(str(path))
