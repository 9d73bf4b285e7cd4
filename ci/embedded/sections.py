"""Reads `readelf -SW` and prints two sums: bytes that a program takes of flash (what is loaded:
code, constants, initial values) and of RAM (what is written: .data and .bss)."""

import re
import sys

flash = ram = 0
for line in sys.stdin:
    found = re.match(r"\s*\[\s*\d+\]\s+(\S+)\s+(PROGBITS|NOBITS)\s+\S+\s+\S+\s+([0-9a-f]+)\s+\S+\s+(\S*A\S*)", line)
    if not found:
        continue
    _, kind, size, flags = found.groups()
    flash += int(size, 16) if kind == "PROGBITS" else 0
    ram += int(size, 16) if "W" in flags else 0
print(flash, ram)
