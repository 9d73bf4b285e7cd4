"""The table of docs/numbers.md: what each method leaves of the damage that quantization does to the
fixture model."""

import re

import peft
from fixture import BLOCK_SIZE, ROOT, divergence, evaluation_tokens, load_model, logits, perplexity

METHODS = ("w-only", "zeroquant-v2", "lqer", "approx", "exact")
# Each column's options; the last is `exact` again, on weights that were rounded for it.
COLUMNS = {method: ("--method", method) for method in METHODS} | {"projected": ("--rounding", "projected")}
QUANTIZERS = ("mxint3", "mxint2")
RANKS = (4, 8)
TOLERANCE = 0.03  # of a number on the page against the one measured here
PAGE = "docs/numbers.md"
BEGIN, END = "<!-- table -->", "<!-- /table -->"


def measure(daemon):
    """{(quantizer, rank, column): (divergence, perplexity)}, and the perplexity of the unquantized
    model."""
    tokens = evaluation_tokens()
    reference = logits(load_model(), tokens)
    results = {}
    for quantizer in QUANTIZERS:
        for rank in RANKS:
            for column, column_options in COLUMNS.items():
                options = ("--quantizer", quantizer, "--block-size", BLOCK_SIZE, "--rank", rank, *column_options)
                out = daemon.once(*options, "--emit-base")
                model = peft.PeftModel.from_pretrained(load_model(out / "base"), out / "current").eval()
                changed = logits(model, tokens)
                results[quantizer, rank, column] = divergence(reference, changed), perplexity(changed, tokens)
    return results, perplexity(reference, tokens)


def markdown(results, unquantized):
    lines = [f"| quantizer | rank | measure | {' | '.join(COLUMNS)} |", "|---" * (3 + len(COLUMNS)) + "|"]
    for quantizer in QUANTIZERS:
        for rank in RANKS:
            cells = [results[quantizer, rank, column] for column in COLUMNS]
            for measure_number, measure_name, digits in ((0, "divergence (nats)", 4), (1, "perplexity", 2)):
                numbers = " | ".join(f"{cell[measure_number]:.{digits}f}" for cell in cells)
                lines.append(f"| {quantizer} | {rank} | {measure_name} | {numbers} |")
    lines.append("")
    lines.append(f"Perplexity of the unquantized model: {unquantized:.2f}.")
    return "\n".join(lines)


def numbers(table):
    """Every decimal fraction of the table with the row that it stands in."""
    return [(line, float(n)) for line in table.splitlines() for n in re.findall(r"(?<![\w.])\d+\.\d+(?![\w])", line)]


class TableTests:
    def __init__(self, daemon, write_table):
        self.results, self.unquantized = measure(daemon)
        self.table = markdown(self.results, self.unquantized)
        if write_table:
            print(self.table)

    def settings(self):
        for quantizer in QUANTIZERS:
            for rank in RANKS:
                yield f"{quantizer} rank {rank}", {c: self.results[quantizer, rank, c] for c in COLUMNS}

    def test_exact_is_the_best_method_by_divergence(self):
        for setting, by_column in self.settings():
            best = min(METHODS, key=lambda method: by_column[method][0])
            assert best == "exact", f"{setting}: {best} is best\n{self.table}"

    def test_rounding_for_the_adapter_is_better_than_exact(self):
        for setting, by_column in self.settings():
            for projected, exact in zip(by_column["projected"], by_column["exact"]):
                assert projected < exact, f"{setting}: projected is no better than exact\n{self.table}"

    def test_every_correction_is_better_than_none(self):
        for setting, by_column in self.settings():
            for name in list(COLUMNS)[1:]:
                for number in (0, 1):
                    worse = by_column[name][number] >= by_column["w-only"][number]
                    assert not worse, f"{setting}: {name} is no better than w-only\n{self.table}"

    def test_page_states_what_is_measured(self):
        page = (ROOT / PAGE).read_text(encoding="utf-8")
        assert page.count(BEGIN) == 1 and page.count(END) == 1, f"{PAGE} needs one {BEGIN} ... {END}"
        stated = numbers(page[page.index(BEGIN) : page.index(END)])
        measured = numbers(self.table)
        assert len(stated) == len(measured), f"{PAGE} has {len(stated)} numbers, the table {len(measured)}"
        for (line, old), (row, new) in zip(stated, measured):
            assert abs(old - new) <= TOLERANCE * new, f"{PAGE} says {old} in {line!r}, measured is\n{row}"
