"""Files that ggml quantized, corrected: the divergence from the model that they were made of."""

import functools

import gguf
from corrected import Run

FORMS = {"r32 f16": ("--rank", 32, "--dtype", "f16"), "r64 q8_0": ("--rank", 64, "--dtype", "q8_0")}


def corrected(name, base, form):
    """Name and options of a run for a base."""
    return (f"{name}-{form.replace(' ', '-')}", "--quantized", base, *FORMS[form])


class DivergenceTests:
    KINDS = ("Q4_0",)
    WEIGHED = (False,)

    def __init__(self, measured):
        self.measured, self.rows = measured, {}

    @functools.cached_property
    def importance(self):
        """Tensor -> E[x^2] of each input channel, as an imatrix has it."""
        path = self.measured.folder / "imatrix.gguf"
        if not path.exists():
            state = self.measured.states.of(self.measured.size.recorded)
            Run(self.measured.binary, "export", "imatrix", "--state", state, "--out", path).expect(0)
        arrays = {tensor.name: tensor.data.ravel() for tensor in gguf.GGUFReader(path).tensors}
        return {name: arrays[f"{name}.in_sum2"] / arrays[f"{name}.counts"] for name in self.measured.layers}

    def row(self, kind, weighed):
        """Divergence and bits a weight: alone, and with each form of adapter."""
        name = f"{kind}{'-importance' if weighed else ''}"
        if name not in self.rows:
            base = self.measured.quantized(kind, self.importance if weighed else None)
            cells = {"alone": self.cell(name, base)}
            for form in FORMS:
                run = self.measured.solved(*corrected(name, base, form))
                cells[form] = self.cell(f"{name}-{form}", base, run)
            self.rows[name] = cells
        return self.rows[name]

    def cell(self, name, base, run=None):
        adapter = run and run.adapter
        count = self.measured.size.diverging
        figures = self.measured.judge.judge(name.replace(" ", "-"), base, adapter, count)
        bits = self.measured.bits(base, adapter)
        if run:
            said = run.manifest["bits_per_weight"]["both"]
            assert abs(said / bits - 1) < 1e-9, f"{name}: the manifest says {said} bits, the files have {bits}"
        return figures | {"bits": bits}

    def test_each_is_nearer_than_the_one_before(self):
        for kind in self.KINDS:
            for weighed in self.WEIGHED:
                row = self.row(kind, weighed)
                divergence = [cell["kld"] for cell in row.values()]
                assert divergence == sorted(divergence, reverse=True) and len(set(divergence)) == 3, (kind, row)

    def test_rank_64_in_q8_0_takes_the_bytes_of_rank_34_in_f16(self):
        """8.5 bits a number: 64 * 8.5 = 34 * 16, and no layer of these went to f16."""
        alone, half, bytes_ = (cell["bits"] for cell in self.row(self.KINDS[0], False).values())
        assert abs((bytes_ - alone) / (half - alone) / (34 / 32) - 1) < 1e-6, (alone, half, bytes_)


class WholeDivergenceTests(DivergenceTests):
    KINDS = ("Q4_0", "IQ4_NL", "Q3_K", "Q2_K")
    WEIGHED = (False, True)
