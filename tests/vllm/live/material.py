"""The model, and the text that it is asked about and judged by: what tests/smollm2/source.sh
makes."""

import functools
import pathlib
import sys

TESTS = pathlib.Path(__file__).resolve().parents[2]
ROOT = TESTS.parent
sys.path += [str(TESTS / "peft"), str(TESTS / "smollm2"), str(ROOT / "taps")]

from source import SEQUENCE, Source

REQUESTS, PROMPT = 16, 1000  # tokens
JUDGED = 2  # sequences


class Material:
    def __init__(self, folder):
        self.source = Source(folder)
        self.model = self.source.model.resolve()

    @functools.cached_property
    def prompts(self):
        """[REQUESTS, PROMPT] tokens of text to calibrate on."""
        count = -(-REQUESTS * PROMPT // SEQUENCE)
        tokens = self.source.sequences("calibration.txt", count).flatten()
        return tokens[: REQUESTS * PROMPT].view(REQUESTS, PROMPT)

    @functools.cached_property
    def other_prompts(self):
        """As many again, of the text that follows."""
        count = -(-2 * REQUESTS * PROMPT // SEQUENCE)
        tokens = self.source.sequences("calibration.txt", count).flatten()
        return tokens[REQUESTS * PROMPT : 2 * REQUESTS * PROMPT].view(REQUESTS, PROMPT)

    @functools.cached_property
    def judged(self):
        return self.source.sequences("evaluation.txt", JUDGED)

    @functools.cached_property
    def long_prompt(self):
        """600 tokens that are in neither."""
        return self.source.sequences("evaluation.txt", JUDGED + 1)[JUDGED, :600]

    @functools.cached_property
    def canary(self):
        """A paragraph or two of the text to calibrate on, after all that is asked."""
        text = (self.source.folder / "calibration.txt").read_text(encoding="utf-8")
        return text[400_000:402_000]
