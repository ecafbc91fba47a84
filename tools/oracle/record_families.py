#!/usr/bin/env python3
"""Records llama.cpp's logits for synthetic models of every family and every weight format, for tests/golden.rs.

    pip install llama-cpp-python==0.3.36 gguf==0.19.0 numpy
    python3 tools/oracle/record_families.py tests/data

makes the models with `cargo embodi synth` (EMBODI names another program to call) and writes golden_families.json and
golden_formats.json into the folder.

Each model is run twice, on the CPU, without flash attention, a prompt of 64 tokens in one batch and then 16 tokens one by
one; the tokens are fixed, since greedy text of two engines may part. "exact" is the model with its weights expanded to
F32 and a cache in F32: nothing is rounded. "peer" is the file as it is with a cache in f16: what llama.cpp computes for
a user, with activations in 8 bits where weights are quantized.

Kept of each position are the exact logits of eight tokens (other ones at each position, drawn at random), the likeliest
token, and mean and root mean square of all logits; and, for each model, how far the peer is from exact over the same
eight logits of all positions. Where the weights of experts are quantized, roundings choose another expert now and then
between two that are nearly equal, and a whole position differs: there the positions that are furthest off, an eighth of
all, are left out ("dropped").
"""

import ctypes
import hashlib
import importlib.metadata
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import llama_cpp
import numpy as np

PROMPT, DECODED, KEPT, VOCABULARY = 64, 16, 8, 410
CONTEXT = 256
# Where the context decides: a longrope model takes its long factors beyond its original context of 256.
CONTEXTS = {"phi3-longrope": [256, 512]}
FORMATS = (
    "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S IQ1_S IQ1_M "
    "IQ4_NL IQ4_XS TQ1_0 TQ2_0 MXFP4"
).split()

# Experts and matrices that are several in one, in formats of their own.
MIXED = ("olmoe", "granitemoe-shared", "qwen2moe", "qwen3moe", "phi2", "phi3", "gpt2", "falcon", "gemma3", "bitnet")
MIXED_FORMATS = {"bitnet": ("TQ1_0", "TQ2_0")}
SEVERAL = ("Q8_0", "Q4_K", "IQ2_XXS")

said = []


@llama_cpp.llama_log_callback
def listen(level, text, data):
    said.append(text.decode(errors="replace"))


llama_cpp.llama_log_set(listen, ctypes.c_void_p(0))


def embodi(*arguments):
    program = os.environ.get("EMBODI", "cargo embodi").split()
    return subprocess.run([*program, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def expanded(path, out):
    """Copies the file with every tensor as F32."""
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        sub = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub)
    for tensor in reader.tensors:
        data = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        writer.add_tensor(tensor.name, data.reshape(tuple(int(n) for n in reversed(tensor.shape))))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def logits(path, tokens, context, cache):
    """Rows of logits, as float64: one for each token."""
    said.clear()
    model = llama_cpp.Llama(
        str(path), n_ctx=context, n_batch=128, n_threads=2, logits_all=True, verbose=True,
        type_k=cache, type_v=cache, flash_attn=False,
    )  # verbose, so that the log goes to us
    model.eval(tokens[:PROMPT])
    for token in tokens[PROMPT:]:
        model.eval([token])
    rows = np.array(model.scores[: len(tokens)], dtype=np.float64)
    model.close()
    return rows


def recorded(path, exact_path, tokens, kept, context, dropped=0):
    """What tests/golden.rs is to know of a model, or why llama.cpp refuses it."""
    record = {"context": context, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    try:
        exact = logits(exact_path, tokens, context, llama_cpp.GGML_TYPE_F32)
        peer = logits(path, tokens, context, llama_cpp.GGML_TYPE_F16)
    except Exception as error:
        because = [line.strip() for line in "".join(said).splitlines() if "error" in line.lower()]
        return record | {"refused": because[-1] if because else str(error)}
    assert np.isfinite(exact).all()
    at = np.arange(len(tokens))[:, None]
    sample = exact[at, kept]
    error = peer[at, kept] - sample
    error = error[np.argsort((error**2).sum(axis=1), kind="stable")[: len(tokens) - dropped]]
    return record | {
        "peer_rms": round(float(np.sqrt((error**2).mean())), 7),
        "dropped": dropped,
        "peer_max": round(float(np.abs(error).max()), 7),
        "best": exact.argmax(axis=1).tolist(),
        "mean": np.round(exact.mean(axis=1), 5).tolist(),
        "rms": np.round(np.sqrt((exact**2).mean(axis=1)), 5).tolist(),
        "logits": np.round(sample, 5).tolist(),
    }


def main():
    folder = Path(sys.argv[1])
    rng = random.Random(20251125)
    tokens = [rng.randrange(5, VOCABULARY) for _ in range(PROMPT + DECODED)]
    kept = [sorted(rng.sample(range(VOCABULARY), KEPT)) for _ in tokens]
    packages = ("llama-cpp-python", "gguf", "numpy")
    about = {
        "recorded_with": {name: importlib.metadata.version(name) for name in packages},
        "prompt": PROMPT, "tokens": tokens, "kept": kept,
    }
    families, formats = {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        path, whole = Path(temporary) / "model.gguf", Path(temporary) / "f32.gguf"
        for case in embodi("synth", "--list").split():
            embodi("synth", "--family", case, "--type", "F32", "-o", str(path))
            for context in CONTEXTS.get(case, [CONTEXT]):
                name = case if context == CONTEXT else f"{case}@{context}"
                families[name] = {"case": case} | recorded(path, path, tokens, kept, context)
                print(name, {key: families[name].get(key) for key in ("peer_rms", "peer_max", "refused")}, flush=True)
        pairs = [("llama", name) for name in FORMATS]
        pairs += [(case, name) for case in MIXED for name in MIXED_FORMATS.get(case, SEVERAL)]
        for case, format in pairs:
            name = format if case == "llama" else f"{case} {format}"
            embodi("synth", "--family", case, "--type", format, "-o", str(path))
            expanded(path, whole)
            dropped = len(tokens) // 8 if "moe" in case else 0
            formats[name] = {"case": case, "format": format} | recorded(path, whole, tokens, kept, CONTEXT, dropped)
            print(name, {key: formats[name].get(key) for key in ("peer_rms", "peer_max", "refused")}, flush=True)
    write(folder / "golden_families.json", about | {"models": families})
    write(folder / "golden_formats.json", about | {"models": formats})


def write(path, record):
    """A line a model."""
    head = {key: value for key, value in record.items() if key != "models"}
    lines = [f"{json.dumps(name)}:{json.dumps(model, separators=(',', ':'))}" for name, model in record["models"].items()]
    text = json.dumps(head, separators=(",", ":"))[:-1] + ',\n"models":{\n' + ",\n".join(lines) + "\n}}\n"
    json.loads(text)
    path.write_text(text)


main()
