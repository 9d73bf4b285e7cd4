"""Graphs of ggml made by hand, and computed node by node under a tap's callback, as llama.cpp's
scheduler does it."""

import ctypes

import numpy as np
from ggml_structures import GgmlInit


class Graph:
    def __init__(self, library):
        self.library = library
        pointer, size, i64 = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64
        makers = {
            "new_tensor_2d": [ctypes.c_int, i64, i64],
            "new_tensor_3d": [ctypes.c_int, i64, i64, i64],
            "view_2d": [pointer, i64, i64, size, size],
            "permute": [pointer, *[ctypes.c_int] * 4],
            "mul_mat": [pointer, pointer],
            "mul_mat_id": [pointer, pointer, pointer],
        }
        for name, arguments in makers.items():
            function = getattr(library, f"ggml_{name}")
            function.restype, function.argtypes = pointer, [pointer, *arguments]
            setattr(self, name, lambda *given, function=function: function(self.context, *given))
        for name, (result, *arguments) in {
            "ggml_new_graph": (pointer, pointer),
            "ggml_build_forward_expand": (None, pointer, pointer),
            "ggml_graph_n_nodes": (ctypes.c_int, pointer),
            "ggml_graph_node": (pointer, pointer, ctypes.c_int),
            "ggml_backend_cpu_init": (pointer,),
            "ggml_backend_free": (None, pointer),
            "ggml_backend_alloc_ctx_tensors": (pointer, pointer, pointer),
            "ggml_backend_buffer_free": (None, pointer),
            "ggml_backend_graph_compute": (ctypes.c_int, pointer, pointer),
            "ggml_backend_tensor_set": (None, pointer, pointer, size, size),
        }.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        library.ggml_init.restype, library.ggml_init.argtypes = pointer, [GgmlInit]
        self.context = library.ggml_init(GgmlInit(1 << 20, None, True))
        self.backend, self.graph = library.ggml_backend_cpu_init(), library.ggml_new_graph(self.context)
        self.buffer = None

    def named(self, name, tensor):
        self.library.ggml_set_name(tensor, name.encode())
        return tensor

    def expand(self, node):
        self.library.ggml_build_forward_expand(self.graph, node)
        return node

    def allocate(self):
        self.buffer = self.library.ggml_backend_alloc_ctx_tensors(self.context, self.backend)

    def put(self, tensor, array):
        array = np.ascontiguousarray(array)
        self.library.ggml_backend_tensor_set(tensor, array.ctypes.data, 0, array.nbytes)

    def run(self, tap):
        """Every node is asked about, then everything is computed, then what was wanted is shown."""
        count = self.library.ggml_graph_n_nodes(self.graph)
        nodes = [self.library.ggml_graph_node(self.graph, at) for at in range(count)]
        wanted = [node for node in nodes if tap._callback(node, True, None)]
        assert self.library.ggml_backend_graph_compute(self.backend, self.graph) == 0
        for node in wanted:
            assert tap._callback(node, False, None)

    def close(self):
        self.library.ggml_backend_buffer_free(self.buffer)
        self.library.ggml_backend_free(self.backend)
        self.library.ggml_free(self.context)
