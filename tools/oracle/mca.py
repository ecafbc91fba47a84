#!/usr/bin/env python3
"""Counts the cycles of the tile kernels' loops with LLVM's models of the CPUs, for the README's table.

    cargo embodi build
    python3 tools/oracle/mca.py target/aarch64-unknown-none/release/kernel8 > tools/oracle/mca.txt

Needs llvm-objdump and llvm-mca of LLVM 22 (Debian: llvm-22; their version's suffix is LLVM=-22). Loops are the firmware's own,
from its ELF file. A kernel's unit is 32 weights × 1 column; of superblocks it includes making the scales. LLVM has no model of the Cortex-A76; neoverse-n1 is the same core
for servers. Memory answers from L1 in these models, so a figure is what a core could do, not what the memory lets it.

With a name, e.g. `sixteen_neon::<Q8_0>`, prints what that loop's cycles go to instead.
"""

import os
import re
import subprocess
import sys

LLVM = os.environ.get("LLVM", "-22")
# The model for each level, and the name that the board knows it by.
CPUS = {"neon": ("cortex-a72", "A72"), "dotprod": ("neoverse-n1", "A76")}
COLUMNS = {"one": 1, "two": 2, "four": 4, "eight": 8, "sixteen": 16}
# Rows of a tile, and those that a kernel for several columns multiplies.
TILE, QUAD = 16, 4
# Cycles a unit at most, by level: format -> (one column, sixteen columns).
TARGETS = {
    "neon": {
        "Q4_0": (7.5, 5.5), "Q4_1": (7.5, 5.5), "Q8_0": (9.0, 7.0), "Q5_0": (9.0, 7.0), "Q5_1": (9.0, 7.0),
        "Q4_K": (7.5, 7.0), "Q5_K": (9.0, 7.0), "Q6_K": (9.0, 7.0), "Iq4Nl": (7.5, 7.0),
        "Mxfp4": (9.0, 7.0), "Tq2": (9.0, 7.0), "Q2_K": (9.0, 7.0), "Q3_K": (9.0, 7.0),
    },
    "dotprod": {
        "Q4_0": (3.3, 1.9), "Q4_1": (3.3, 1.9), "Q8_0": (3.3, 1.9), "Q5_0": (4.0, 2.2), "Q5_1": (4.0, 2.2),
        "Q4_K": (4.0, 2.2), "Q5_K": (4.0, 2.2), "Q6_K": (4.0, 2.2), "Iq4Nl": (4.0, 2.2),
        "Mxfp4": (4.0, 2.2), "Tq2": (4.0, 2.2), "Q2_K": (4.0, 2.2), "Q3_K": (4.0, 2.2),
    },
}
# 32 weights of a row in a superblock.
PARTS = 8
KERNEL = re.compile(r"quant::(?:block32|superblock::(?:kernels|one_column))::(\w+)_(neon|dotprod)::<.*::(\w+)>$")
# Kernels of weights that are floats, for either CPU: one row × one column, and several.
FLOATS = re.compile(r"ops::dot::(dots?)_(neon)::<(?:.*::)?(\w+)>$")
MULTIPLY = re.compile(r"^(sdot|[su]mu?l[al]l?\w*|fmla)\b")


def functions(elf):
    """The kernels: (shape, level, format) -> [(address, instruction)]."""
    listing = subprocess.run(
        [f"llvm-objdump{LLVM}", "--disassemble", "--demangle", "--no-show-raw-insn", elf],
        check=True, capture_output=True, text=True,
    ).stdout
    found, body = {}, None
    for line in listing.splitlines():
        if head := re.match(r"^[0-9a-f]+ <(.*)>:$", line):
            name = KERNEL.search(head[1]) or FLOATS.search(head[1])
            body = found.setdefault(name.groups(), []) if name else None
        elif body is not None and (code := re.match(r"^\s*([0-9a-f]+):\s+(.*)$", line)):
            body.append((int(code[1], 16), code[2].replace("\t", " ")))
    return found


def innermost(body):
    """The loop with most multiplications among those that hold no other: its instructions, but the jump back."""
    loops = []
    for index, (address, code) in enumerate(body):
        jump = re.match(r"^(?:b|b\.\w+|cbn?z \w+,|tbn?z \w+, #\S+,)\s*(?:0x)?([0-9a-f]+) <", code)
        if jump and body[0][0] <= int(jump[1], 16) <= address:
            loops.append(((int(jump[1], 16) - body[0][0]) // 4, index))
    inner = [a for a in loops if not any(a != b and a[0] <= b[0] and b[1] <= a[1] for b in loops)]
    texts = [[code for _, code in body[first:last]] for first, last in inner]
    return max(texts, key=lambda loop: sum(bool(MULTIPLY.match(code)) for code in loop))


# Turns of the loop that makes a format's scales, if the compiler left one.
SCALE_TURNS = {"Q4_K": 4, "Q5_K": 4, "Q6_K": 16, "Iq4Xs": 8, "Q3_K": 8, "Q2_K": 16, "Tq2": 8}


def scale_cycles(body, kind, cpu):
    """Cycles of the function that makes the scales of a superblock of 16 rows, with its loop unrolled."""
    plain = lambda code: not re.match(r"^(b|b\.\w+|cbn?z|tbn?z|ret|bl|udf|nop|adrp?)\b", code)
    texts = [re.sub(r" <.*>", "", code) for _, code in body if plain(code)]
    back = lambda code: re.match(r"^b\.\w+\s+0x([0-9a-f]+)", code)
    loops = [i for i, (a, code) in enumerate(body) if (to := back(code)) and int(to[1], 16) <= a]
    if not loops:
        return cycles(texts, cpu)
    (last,) = loops
    first = (int(back(body[last][1])[1], 16) - body[0][0]) // 4
    loop = [code for _, code in body[first:last] if plain(code)]
    return cycles(texts, cpu) + (SCALE_TURNS[kind] - 1) * cycles(loop, cpu)


def simulate(loop, cpu, turns, *options):
    """What llvm-mca says of so many turns. The jump back is there as what counts down and jumps."""
    source = "top:\n" + "\n".join(loop) + "\nb.ne top\n"
    command = [f"llvm-mca{LLVM}", "-mtriple=aarch64", f"-mcpu={cpu}", "-mattr=+dotprod", f"-iterations={turns}"]
    run = subprocess.run([*command, *options], input=source, capture_output=True, text=True)
    if run.returncode:
        sys.exit(run.stderr)
    return run.stdout


def cycles(loop, cpu):
    """Cycles a turn once the pipeline is full."""
    total = lambda turns: int(re.search(r"Total Cycles:\s+(\d+)", simulate(loop, cpu, turns))[1])
    return (total(300) - total(100)) / 200


def main():
    kernels = functions(sys.argv[1])
    # Superblocks' scales are made by a function of their own, for 16 rows at once: no loop, or one that is unrolled.
    scales = {kind: kernels.pop(("scales", "neon", kind)) for shape, _, kind in list(kernels) if shape == "scales"}
    # The linker keeps one of two functions with the same code.
    scales.setdefault("Q5_K", scales.get("Q4_K"))
    scales.setdefault("Q4_K", scales.get("Q5_K"))
    floats = {name: kernels.pop(name) for name in list(kernels) if name[0] in ("dot", "dots")}
    order = list(COLUMNS)
    names = sorted(kernels, key=lambda name: (name[1] != "neon", order.index(name[0]), name[2]))
    if len(sys.argv) > 2:
        for shape, level, kind in names:
            if sys.argv[2] == f"{shape}_{level}::<{kind}>":
                loop = innermost(kernels[shape, level, kind])
                print(simulate(loop, CPUS[level][0], 100, "-bottleneck-analysis"))
        return
    print("| kernel | format | CPU | rows × columns | instructions a turn | cycles a turn | cycles a unit | target |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    missed = 0
    for shape, level, kind in names:
        columns = COLUMNS[shape]
        rows = TILE if columns == 1 else QUAD
        loop = innermost(kernels[shape, level, kind])
        cpu, board = CPUS[level]
        turn = cycles(loop, cpu)
        unit = turn / (rows * columns)
        if kind in scales and columns > 1:
            # Once for eight parts of 16 rows, whatever the number of columns; with one column it is in the loop.
            unit += scale_cycles(scales[kind], kind, cpu) / (PARTS * TILE * columns)
        targets = TARGETS[level].get(kind)
        target = targets[0 if columns == 1 else 1] if targets and columns in (1, 16) else None
        missed += target is not None and unit > target
        said = "" if target is None else f"{target}" if unit <= target else f"{target}, missed"
        print(f"| {shape}_{level} | {kind} | {board} | {rows} × {columns} | {len(loop) + 1} | {turn:.1f} | {unit:.2f} | {said} |")
    for (shape, level, kind), body in sorted(floats.items()):
        loop = innermost(body)
        # Four products each; a unit has 32.
        units = sum(code.startswith("fmla") for code in loop) / 8
        for cpu, board in CPUS.values():
            turn = cycles(loop, cpu)
            print(f"| {shape}_{level} | {kind.upper()} | {board} | {'2 × 4' if shape == 'dots' else '1 × 1'} "
                  f"| {len(loop) + 1} | {turn:.1f} | {turn / units:.2f} |  |")
    print(f"\n{missed} missed. Models: {', '.join(f'{b} = {c}' for c, b in CPUS.values())}.")


if __name__ == "__main__":
    main()
