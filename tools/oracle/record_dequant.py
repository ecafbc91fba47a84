#!/usr/bin/env python3
"""Records what the gguf package dequantizes blocks to, for tests/dequantize.rs.

    pip install gguf==0.19.0 numpy
    python3 tools/oracle/record_dequant.py tests/data/dequantize.json

Blocks are not recorded: both sides make them from the generator xorshift64* (Vigna, 2016) and the rules below, which
tests/dequantize.rs follows too. Of the weights, a digest of their bits is recorded, and the first few, so that a
failure can be understood. A NaN counts as 0x7fc00000, whatever its payload and sign: they depend on the CPU.

For each format, in this order, with a generator that begins at 1 + the format's number in GGUF:

* "random": 96 blocks of random bytes.
* one case for every scale of SCALES: for every fill of FILLS a block of this byte, then one of random bytes; the n-th
  binary16 of each such block (see HALVES) is SCALES[(index of the scale + 3 n) mod len(SCALES)]. Formats whose scale is
  a byte (MXFP4) or of no block at all (floats) take the low byte, or the value itself at every place.
"""

import importlib.metadata
import json
import sys
from pathlib import Path

import gguf
import numpy as np

# One, minus one, largest, smallest subnormal, largest subnormal, both zeros, both infinities, NaN, an odd one.
SCALES = [0x3C00, 0xBC00, 0x7BFF, 0xFBFF, 0x0001, 0x83FF, 0x0000, 0x8000, 0x7C00, 0xFC00, 0x7E01, 0x2E66]
FILLS = [0x00, 0xFF, 0x80, 0x7F, 0x55, 0xAA]
RANDOM = 96
FIRST = 6

# Where in a block its binary16 numbers are.
HALVES = {
    "F16": [0], "BF16": [0], "F32": [0, 2],
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
    "IQ4_NL": [0], "IQ4_XS": [0], "TQ1_0": [52], "TQ2_0": [64],
    "IQ2_XXS": [0], "IQ2_XS": [0], "IQ2_S": [0], "IQ3_XXS": [0], "IQ3_S": [0], "IQ1_S": [0],
}
# A scale of one byte.
BYTES = {"MXFP4": 0}
# A binary16 in the high nibbles of four 16-bit numbers from here on, its lowest nibble first.
NIBBLES = {"IQ1_M": 48}


class Random:
    def __init__(self, seed):
        self.state = seed

    def next(self):
        mask = (1 << 64) - 1
        self.state ^= self.state >> 12
        self.state ^= self.state << 25 & mask
        self.state ^= self.state >> 27
        return self.state * 0x2545F4914F6CDD1D & mask

    def bytes(self, count):
        return bytearray(self.next() >> 56 for _ in range(count))


def with_scale(name, block, index):
    scale = lambda n: SCALES[(index + 3 * n) % len(SCALES)]
    for n, at in enumerate(HALVES.get(name, [])):
        block[at : at + 2] = scale(n).to_bytes(2, "little")
    if name in BYTES:
        block[BYTES[name]] = scale(0) & 0xFF
    if name in NIBBLES:
        for nibble in range(4):
            at = NIBBLES[name] + 2 * nibble + 1
            block[at] = block[at] & 0x0F | (scale(0) >> 4 * nibble & 0xF) << 4
    return block


def digest(bits):
    # FNV-1a, 64 bits, as embodios::digest.
    value = 0xCBF29CE484222325
    for byte in bits.astype("<u4").tobytes():
        value = (value ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return value


def case(kind, name, blocks):
    data = np.frombuffer(b"".join(bytes(block) for block in blocks), dtype=np.uint8).reshape(len(blocks), -1)
    with np.errstate(all="ignore"):
        weights = gguf.quants.dequantize(data, kind).astype(np.float32).ravel()
    bits = weights.view(np.uint32).copy()
    bits[np.isnan(weights)] = 0x7FC00000
    return {"case": name, "digest": f"{digest(bits):016x}", "first": [f"{b:08x}" for b in bits[:FIRST]]}


def main():
    formats = []
    for kind in gguf.GGMLQuantizationType:
        if kind.name not in HALVES and kind.name not in BYTES and kind.name not in NIBBLES:
            continue
        size = gguf.GGML_QUANT_SIZES[kind][1]
        random = Random(1 + int(kind))
        cases = [case(kind, "random", [random.bytes(size) for _ in range(RANDOM)])]
        for index, scale in enumerate(SCALES):
            blocks = [bytearray([fill]) * size for fill in FILLS] + [random.bytes(size)]
            blocks = [with_scale(kind.name, block, index) for block in blocks]
            cases.append(case(kind, f"scale 0x{scale:04x}", blocks))
        formats.append({"name": kind.name, "id": int(kind), "cases": cases})
    versions = {package: importlib.metadata.version(package) for package in ("gguf", "numpy")}
    layout = {"halves": HALVES, "bytes": BYTES, "nibbles": NIBBLES}
    lines = ",\n".join(json.dumps(f) for f in formats)
    head = json.dumps({"versions": versions, "scales": SCALES, "fills": FILLS, "random": RANDOM, "layout": layout})
    Path(sys.argv[1]).write_text(f'{head[:-1]}, "formats": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
