#!/usr/bin/env python3
"""Writes src/tokenizer/classes.rs: which code points are letters and numbers, as of Unicode 15.1.

The version is pinned on purpose: it is the one that llama.cpp splits words by, and a newer one would
split text differently wherever a script was added since. Needs a Python whose `unicodedata` has that
version (3.13). From the root of the checkout:

    python3.13 tools/oracle/unicode_classes.py && cargo fmt -p embodios
"""

import sys
import unicodedata
from pathlib import Path

VERSION = "15.1.0"


def ranges(initial):
    """First and last code point of each run whose general category begins with `initial`."""
    runs = []
    for point in range(sys.maxunicode + 1):
        if not unicodedata.category(chr(point)).startswith(initial):
            continue
        if runs and runs[-1][1] == point - 1:
            runs[-1][1] = point
        else:
            runs.append([point, point])
    return runs


def table(name, doc, runs):
    rows = [", ".join(f"(0x{a:x}, 0x{b:x})" for a, b in runs[i : i + 6]) + "," for i in range(0, len(runs), 6)]
    body = "\n    ".join(rows)
    return f"/// {doc}\n#[rustfmt::skip]\npub(super) static {name}: [(u32, u32); {len(runs)}] = [\n    {body}\n];\n"


if unicodedata.unidata_version != VERSION:
    sys.exit(f"this Python knows Unicode {unicodedata.unidata_version}; {VERSION} is needed (Python 3.13)")
out = Path(__file__).parents[2] / "src/tokenizer/classes.rs"
out.write_text(
    "//! Letters and numbers of Unicode 15.1, the version that llama.cpp splits words by: a newer table\n"
    "//! would split text in scripts added since differently.\n"
    "//!\n"
    "//! Written by `tools/oracle/unicode_classes.py`; first and last code point of each run, ascending.\n\n"
    + table("LETTERS", r"`\\p{L}`: general categories Lu, Ll, Lt, Lm, Lo.".replace("\\\\", "\\"), ranges("L"))
    + "\n"
    + table("NUMBERS", r"`\\p{N}`: general categories Nd, Nl, No.".replace("\\\\", "\\"), ranges("N"))
)
