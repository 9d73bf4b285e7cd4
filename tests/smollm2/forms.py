"""What is measured: runs of the daemon on the recording, and the bounds that their figures must
keep."""

import dataclasses
import math

COMMON = ("--rank", 32, "--emit-base")


@dataclasses.dataclass(frozen=True)
class Within:
    low: float
    high: float

    def holds(self, figure):
        return self.low <= figure <= self.high


def about(figure):
    """Of a figure that other software has measured too: within 1 %."""
    return Within(0.99 * figure, 1.01 * figure)


def at_most(figure):
    return Within(0.0, figure)


ANY = at_most(math.inf)


@dataclasses.dataclass(frozen=True)
class Form:
    """Options of a run, and bounds of the perplexity with the adapter and of the base alone."""

    options: tuple
    corrected: Within = ANY
    base: Within = ANY
    plain: str = ""  # the form without rounding that it is compared with


# The official implementation's perplexities: 39.14 in full precision, 72.52 (exact) and 436.6 (no
# correction) at mxint3.
FULL_PRECISION = about(39.14)
MXINT3, MXINT4 = (("--quantizer", quantizer, *COMMON) for quantizer in ("mxint3", "mxint4"))
PROJECTED = ("--rounding", "projected")
FORMS = {
    "mxint3-exact": Form((*MXINT3, "--shrinkage", 0), corrected=about(72.52), base=about(436.6)),
    "mxint3": Form(MXINT3, corrected=about(72.52), base=about(436.6)),
    "mxint3-projected-0": Form((*MXINT3, *PROJECTED, "--base-share", 0), corrected=at_most(52), plain="mxint3"),
    "mxint3-projected": Form((*MXINT3, *PROJECTED), corrected=at_most(53), plain="mxint3"),
    # No other software's figures: what docs/rounding.md says.
    "mxint4": Form(MXINT4, corrected=about(44.59), base=about(59.68)),
    "mxint4-projected": Form((*MXINT4, *PROJECTED), corrected=at_most(43), plain="mxint4"),
}
# CPU seconds that rounding the whole model may take on top of the run without it.
ROUNDING_CPU = 360
