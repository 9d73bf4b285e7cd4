"""llama.cpp as a server runs it: a GGUF, LoRA adapters over it, and the logits of sequences of
tokens."""

import ctypes
import os

import numpy as np
from ggml_structures import F32, ModelParams, xllamacpp_library
from llama_cpp import Llama

NO_FLASH_ATTENTION = 0
THREADS = int(os.environ.get("QERA_THREADS", "2"))


class LoraLlama(Llama):
    """The functions that adapters and logits take, beside those that the tap has."""

    def __init__(self, library):
        super().__init__(library)
        ptr = ctypes.c_void_p
        of = {
            "adapter_lora_init": (ptr, ptr, ctypes.c_char_p),
            "set_adapters_lora": (ctypes.c_int32, ptr, ptr, ctypes.c_size_t, ptr),
            "get_logits": (ctypes.POINTER(ctypes.c_float), ptr),
        }
        for name, (result, *arguments) in of.items():
            function = getattr(library, f"llama_{name}")
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)


class Engine:
    """`model` with `adapter` over it. `exact`: keys and values are kept in f32, where a server
    keeps f16."""

    PASS = 512  # tokens of a pass, llama.cpp's default

    def __init__(self, model, adapter=None, sequence=1024, exact=False):
        self.llama = LoraLlama(xllamacpp_library())
        self.llama.backend_init()
        params = self.llama.model_default_params()
        assert isinstance(params, ModelParams)
        self.context, self.adapter = None, None
        self.model = self.llama.model_load_from_file(os.fsencode(model), params)
        if not self.model:
            raise RuntimeError(f"llama.cpp does not load {model}: {self.llama.problems}")
        self.vocabulary = self.llama.model_get_vocab(self.model)
        self.tokens = self.llama.vocab_n_tokens(self.vocabulary)
        if adapter:
            self.adapter = self.llama.adapter_lora_init(self.model, os.fsencode(adapter))
            if not self.adapter:
                raise RuntimeError(f"llama.cpp does not load {adapter}: {self.llama.problems}")
        params = self.llama.default_context()
        params.n_ctx, params.n_batch, params.n_ubatch = sequence, self.PASS, self.PASS
        params.n_threads = params.n_threads_batch = THREADS
        if exact:
            params.type_k = params.type_v = F32
            params.flash_attn_type = NO_FLASH_ATTENTION
        self.context = self.llama.init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError(f"llama.cpp makes no context for {model}: {self.llama.problems}")
        if adapter:
            adapters, scales = (ctypes.c_void_p * 1)(self.adapter), (ctypes.c_float * 1)(1.0)
            assert self.llama.set_adapters_lora(self.context, adapters, 1, scales) == 0, adapter

    def tokenize(self, text):
        """No token is added, and no text is a special token."""
        data = text.encode()
        tokens = (ctypes.c_int32 * len(data))()
        count = self.llama.tokenize(self.vocabulary, data, len(data), tokens, len(data), False, False)
        assert count >= 0, count
        return list(tokens[:count])

    def logits(self, sequence, first=0):
        """[tokens, vocabulary] of one sequence in f32, from the token `first` on."""
        self.llama.memory_clear(self.llama.get_memory(self.context), True)
        starts = range(0, len(sequence), self.PASS)
        return np.concatenate([self._decode(sequence[at : at + self.PASS], at, first) for at in starts])

    def _decode(self, tokens, start, first):
        batch = self.llama.batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for at, token in enumerate(tokens):
            batch.token[at], batch.pos[at], batch.n_seq_id[at], batch.seq_id[at][0] = int(token), start + at, 1, 0
            batch.logits[at] = start + at >= first
        result = self.llama.decode(self.context, batch)
        self.llama.batch_free(batch)
        if result:
            raise RuntimeError(f"llama_decode returned {result}: {self.llama.problems}")
        rows = min(len(tokens), max(0, start + len(tokens) - first))
        if not rows:
            return np.empty((0, self.tokens), np.float32)
        return np.ctypeslib.as_array(self.llama.get_logits(self.context), (rows, self.tokens)).copy()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.context:
            self.llama.free(self.context)
        self.llama.model_free(self.model)  # and its adapters
        self.context = self.model = None
