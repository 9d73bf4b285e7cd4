"""What the environment says of the tap."""

import re
from dataclasses import dataclass

GIB = 2**30
WHICH = ("all", "base", "adapter")


@dataclass(frozen=True)
class Settings:
    """The folder of shards, and what goes into it.

    max_bytes  of shards that wait there, those of all processes together
    every      of so many requests one is recorded, whole
    rows       recording ends with so many rows; None: it goes on
    which      requests of the bare base, with an adapter of qera's, or both ('all')
    """

    folder: str
    max_bytes: int = 8 * GIB
    every: int = 1
    rows: int | None = None
    which: str = "all"


def number(environment, name, default, least=1):
    text = environment.get(name, "")
    if not text:
        return default
    if not re.fullmatch("[0-9]+", text) or int(text) < least:
        raise ValueError(f"{name}={text!r} is no whole number of at least {least}")
    return int(text)


def number_of_bytes(environment, name, default):
    text = environment.get(name, "")
    if not text:
        return default
    found = re.fullmatch("([0-9]+)(?:([KMGT])(I?B)?|B)?", text.upper()) if text.isascii() else None
    if not found or not int(found[1]):
        raise ValueError(f"{name}={text!r} is no number of bytes, such as 500M, 8G, 8GiB or 8GB")
    unit = 1000 if found[3] == "B" else 1024  # as the daemon reads sizes
    return int(found[1]) * unit ** " KMGT".index(found[2] or " ")


def from_environment(environment):
    """The settings, or None where `QERA_TAP` does not ask for a recording."""
    folder = environment.get("QERA_TAP", "")
    if not folder:
        return None
    which = environment.get("QERA_TAP_WHICH", "") or "all"
    if which not in WHICH:
        raise ValueError(f"QERA_TAP_WHICH={which!r} is none of {', '.join(WHICH)}")
    return Settings(
        folder,
        number_of_bytes(environment, "QERA_TAP_MAX_BYTES", Settings.max_bytes),
        number(environment, "QERA_TAP_EVERY", Settings.every),
        number(environment, "QERA_TAP_ROWS", Settings.rows),
        which,
    )
