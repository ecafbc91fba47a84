#!/usr/bin/env python3
"""Writes src/tokenizer/classes.rs: which code points are letters, numbers, punctuation, marks and symbols, as of
Unicode 15.1.

The version is pinned on purpose: it is the one that llama.cpp splits words by, and a newer one would
split text differently wherever a script was added since. Needs a Python whose `unicodedata` has that
version (3.13). From the root of the checkout:

    python3.13 tools/oracle/unicode_classes.py
"""

import sys
import unicodedata
from pathlib import Path

VERSION = "15.1.0"
# The first letter of a general category, in the order of `Class`.
CLASSES = "LNPMS"
HEAD = """\
//! Classes of characters in Unicode 15.1, the version that llama.cpp splits words by: a newer table
//! would split text in scripts added since differently.
//!
//! Written by `tools/oracle/unicode_classes.py`.

/// Where a run of characters of one class begins, ascending, from U+0080 on: code point × 8 + class, which is the
/// place of the general category's first letter in "LNPMS", or 5 for all others.
#[rustfmt::skip]
pub(super) static RUNS: [u32; %d] = [
"""


def runs():
    """Code point × 8 + class wherever the class changes."""
    found, before = [], None
    for point in range(0x80, sys.maxunicode + 1):
        index = CLASSES.find(unicodedata.category(chr(point))[0])
        index = len(CLASSES) if index < 0 else index
        if index != before:
            found.append(point * 8 + index)
        before = index
    return found


if unicodedata.unidata_version != VERSION:
    sys.exit(f"this Python knows Unicode {unicodedata.unidata_version}; {VERSION} is needed (Python 3.13)")
numbers = [f"0x{run:x}," for run in runs()]
lines = ["    " + " ".join(numbers[i : i + 12]) for i in range(0, len(numbers), 12)]
out = Path(__file__).parents[2] / "src/tokenizer/classes.rs"
out.write_text(HEAD % len(numbers) + "\n".join(lines) + "\n];\n")
