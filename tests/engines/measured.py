"""A model, what was recorded of it, and the cells of a table: bases and adapters, each judged in
llama.cpp."""

import dataclasses

import gguf
from engine import Engine
from ggml_structures import xllamacpp_library
from judged import Judge
from quantizing import Quantizer, write_gguf
from smollm2 import LINEAR, SmolLM2
from solved import Solved
from states import States

SEQUENCE = 1024  # tokens, none of them special
TYPES = {kind.name: kind for kind in gguf.GGMLQuantizationType}


@dataclasses.dataclass(frozen=True)
class Size:
    """What of the model and of the texts is taken."""

    blocks: tuple
    recorded: int  # sequences
    judged: int
    diverging: int  # sequences of those, where models are compared by divergence


class Measured:
    """`folder` keeps everything, and what is there is not made again. `texts`: calibration and
    evaluation."""

    def __init__(self, binary, folder, noise, size, texts):
        folder.mkdir(parents=True, exist_ok=True)
        self.binary, self.folder, self.size = binary, folder, size
        self.model = SmolLM2(folder, noise)
        calibration, evaluation = self._sequences(texts)
        names = [f"blk.{block}.*" for block in size.blocks]
        self.states = States(binary, self.model.gguf, folder / "states", calibration, names)
        self.judge = Judge(folder / "judged", self.model.gguf, evaluation)
        self.layers = [f"blk.{block}.{name}.weight" for block in size.blocks for name in LINEAR]
        self.weights = sum(self.model.tensors[name].n_elements for name in self.layers)

    def _sequences(self, texts):
        counts = {"calibration": self.size.recorded, "evaluation": self.size.judged}
        with Engine(self.model.gguf) as engine:
            for name, count in counts.items():
                tokens = engine.tokenize(texts[name])[: count * SEQUENCE]
                assert len(tokens) == count * SEQUENCE, f"the text '{name}' has {len(tokens)} tokens only"
                yield [tokens[at : at + SEQUENCE] for at in range(0, len(tokens), SEQUENCE)]

    def solved(self, name, *options, sequences=None):
        """What `solve` publishes of the state of so many sequences."""
        state = self.states.of(sequences or self.size.recorded)
        common = ["--state", state, "--checkpoint", self.model.gguf]
        included = [f"--include=model.layers.{block}.*" for block in self.size.blocks]
        return Solved(self.binary, self.folder / "solved" / name, *common, *included, *options)

    def quantized(self, kind, importance=None):
        """A GGUF that ggml quantizes: what `kind` cannot hold, because rows are no multiple of 256,
        is IQ4_NL, as llama-quantize has it. `importance`: of each input channel, by tensor."""
        path = self.folder / f"{kind}{'-importance' if importance else ''}.gguf"
        if not path.exists():
            quantizer, tensors = Quantizer(xllamacpp_library()), {}
            for name in self.layers:
                of, weight = TYPES[kind], self.model.weight(name)
                of = of if weight.shape[1] % gguf.GGML_QUANT_SIZES[of][0] == 0 else TYPES["IQ4_NL"]
                weighed = importance[name] if importance else None
                tensors[name] = (of, quantizer.quantize(weight, of, weighed))
            write_gguf(path, gguf.GGUFReader(self.model.gguf), tensors)
        return path

    def bits(self, base, adapter=None):
        """Bits a weight of the corrected layers, in the files as they are."""
        taken = {tensor.name: int(tensor.n_bytes) for tensor in gguf.GGUFReader(base).tensors}
        total = sum(taken[name] for name in self.layers)
        if adapter:
            total += sum(int(tensor.n_bytes) for tensor in gguf.GGUFReader(adapter).tensors)
        return 8 * total / self.weights
