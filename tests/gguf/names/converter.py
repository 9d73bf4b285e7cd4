"""llama.cpp's own converter on the pinned Transformers and Debian's torch, from the folder of its
source. What is changed: no vocabulary is written, and dtypes that this torch lacks are named."""

import json
import logging
import pathlib
import sys

import torch

#: Dtypes that the converter names when it is imported; no checkpoint here has one of them.
NEWER_DTYPES = (
    "float8_e4m3fn float8_e5m2 float8_e8m0fnu float8_e4m3fnuz float8_e5m2fnuz uint16 uint32 uint64"
).split()


class Converter:
    """The converter in this folder: of llama.cpp's source, or of what contains it."""

    def __init__(self, source):
        found = sorted(pathlib.Path(source).rglob("convert_hf_to_gguf.py"))
        if not found:
            raise SystemExit(f"{source}: no convert_hf_to_gguf.py in it")
        for name in NEWER_DTYPES:
            if not hasattr(torch, name):
                setattr(torch, name, name)
        root = found[0].parent
        sys.path[:0] = [str(root), str(root / "gguf-py")]
        import conversion
        import gguf

        logging.disable(logging.WARNING)
        self.conversion, self.gguf = conversion, gguf

    def convert(self, folder, out):
        """Converts a checkpoint to f32; returns the GGUF's reader."""
        base = self.conversion
        hparams = base.ModelBase.load_hparams(folder, False)
        name = base.get_model_architecture(hparams, base.ModelType.TEXT)
        model_class = base.get_model_class(name)
        # Gemma 3 asks how many tokens there are.
        (folder / "tokenizer.json").write_text(
            json.dumps({"model": {"vocab": {str(n): n for n in range(160)}}, "added_tokens": []})
        )
        with torch.inference_mode():
            model = model_class(folder, self.gguf.LlamaFileType.ALL_F32, out, eager=True)
            model.set_vocab = lambda: None
            model.prepare_tensors()
            model.prepare_metadata(vocab_only=False)
            writer = model.gguf_writer
            writer.write_header_to_file(path=out)
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file(progress=False)
            writer.close()
        return self.gguf.GGUFReader(out)
