#!/usr/bin/env python3
"""Writes the grids of the IQ formats, which define them, as the table src/quant/grids.rs.

    pip install gguf==0.19.0 numpy
    python3 tools/oracle/iq_grids.py src/quant/grids.rs && cargo fmt
"""

import importlib.metadata
import sys
from pathlib import Path

import numpy as np
from gguf import quants

HEAD = f"""//! Grids of the IQ formats: the groups of eight or four weights that a block may name by number. Numbers that define
//! the formats; made by `tools/oracle/iq_grids.py` from the gguf package {importlib.metadata.version("gguf")}.
//!
//! An entry holds, of eight weights, 2 bits each; of four weights, 4 bits each; the first weight in the lowest bits. Each
//! is a level, and the format says which magnitude or value that is.
"""

GRIDS = [
    ("IQ2_XXS", "IQ2_XXS: levels 0 to 2."),
    ("IQ2_XS", "IQ2_XS: levels 0 to 2."),
    ("IQ2_S", "IQ2_S: levels 0 to 2."),
    ("IQ3_XXS", "IQ3_XXS: levels 0 to 7."),
    ("IQ3_S", "IQ3_S: levels 0 to 7."),
    ("IQ1_S", "IQ1_S and IQ1_M: levels 0 to 2 are −1 to 1."),
]


def main():
    text = HEAD
    for name, about in GRIDS:
        kind = getattr(quants, name)
        kind.init_grid()
        grid = kind.grid.reshape(kind.grid_shape)
        levels = np.searchsorted(kind.grid_map, grid)
        assert (np.array(kind.grid_map)[levels] == grid).all()
        bits = 16 // grid.shape[1]
        entries = (levels << (bits * np.arange(grid.shape[1]))).sum(axis=1)
        numbers = ", ".join(f"0x{entry:04x}" for entry in entries)
        text += f"\n/// {about}\npub static {name}: [u16; {len(entries)}] = [{numbers}];\n"
    Path(sys.argv[1]).write_text(text)


if __name__ == "__main__":
    main()
