"""Code blocks of README.md, which the suites run as they stand."""

import re

TAP = "<!-- run: peft: tap -->"
LIVE_DAEMON = "<!-- run: peft: live daemon -->"
LIVE_ENGINE = "<!-- run: peft: live engine -->"


def code_block(readme, marker, language):
    assert readme.count(marker) == 1, f"README.md needs one {marker} before a code block"
    block = re.match(rf"\s*```{language}\n(.*?)```", readme[readme.index(marker) + len(marker) :], re.DOTALL)
    assert block, f"no {language} code block follows {marker}"
    return block[1]
