#!/usr/bin/env python3
"""Records llama.cpp's logits and perplexity for a model, for tests/real_models.rs.

    pip install llama-cpp-python==0.3.36 gguf==0.19.0 numpy
    python3 tools/oracle/record_logits.py MODEL.gguf tests/data/perplexity.txt tests/data smollm2

writes logits_smollm2.json and perplexity_smollm2.json into the last folder (or gemma3 instead of smollm2). "f32" is
the exact reference:
the same weights expanded to F32 in a temporary file, run with an F32 cache and without flash attention, so
that neither weights nor activations nor keys and values are rounded. "quantized" is the file as it is, as
llama.cpp runs it on a CPU: activations in 8 bits, an f16 cache; without flash attention as well. "quantized_q8_0" (SmolLM2's
perplexity only) is that with a q8_0 cache, which llama.cpp has with flash attention only.
"""

import hashlib
import importlib.metadata
import json
import os
import random
import sys
import tempfile
from pathlib import Path

import gguf
import llama_cpp
import numpy as np

PLAIN = [
    # (name, text, special tokens parsed)
    ("english", "The history of the small town began long before the first railway was built. In those days, the river was", False),
    ("code", "def fibonacci(n):\n    if n < 2:\n        return n\n    return fibonacci(n - 1) + ", False),
]
CHAT = [
    (
        "chat",
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
        True,
    ),
]
PROMPTS = {"smollm2": PLAIN + CHAT, "gemma3": PLAIN}
TOP = 8
SAMPLE = 64


def expanded(path, out):
    """Copies the file with every tensor as F32."""
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
            continue
        sub = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for tensor in reader.tensors:
        data = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        writer.add_tensor(tensor.name, data.reshape(tuple(int(n) for n in reversed(tensor.shape))))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


CACHES = {
    "f32": {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32, "flash_attn": False},
    "f16": {},
    "q8_0": {"type_k": llama_cpp.GGML_TYPE_Q8_0, "type_v": llama_cpp.GGML_TYPE_Q8_0, "flash_attn": True},
}


def load(path, cache):
    return llama_cpp.Llama(
        str(path), n_ctx=2048, n_batch=512, n_threads=os.cpu_count(), logits_all=True, verbose=False, **CACHES[cache]
    )


def logits(model, tokens):
    """One row of logits for every position, as float64."""
    model.reset()
    model.eval(tokens)
    return np.array(model.scores[: len(tokens)], dtype=np.float64)


def log_sum_exp(rows):
    best = rows.max(axis=1, keepdims=True)
    return (best + np.log(np.exp(rows - best).sum(axis=1, keepdims=True)))[:, 0]


def negative_log_likelihoods(model, tokens):
    """Of each token but the first, given all before it."""
    model.reset()
    model.eval(tokens)
    rows = model.scores[: len(tokens) - 1]
    # A row at a time: all of them as float64 would be gigabytes.
    losses = [log_sum_exp(row[None].astype(np.float64))[0] - row[token] for row, token in zip(rows, tokens[1:])]
    return np.array(losses, dtype=np.float64)


def main():
    path, text, folder, model_name = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    about = {
        "recorded_with": {name: importlib.metadata.version(name) for name in ("llama-cpp-python", "gguf", "numpy")},
        "model": path.name,
        "model_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    with tempfile.TemporaryDirectory() as temporary:
        whole = Path(temporary) / "f32.gguf"
        expanded(path, whole)
        exact, quantized = load(whole, "f32"), load(path, "f16")
        vocabulary = exact.n_vocab()
        rng = random.Random(20250207)
        sample = sorted(rng.sample(range(vocabulary), SAMPLE))

        prompts = []
        for name, prompt, special in PROMPTS[model_name]:
            tokens = exact.tokenize(prompt.encode(), add_bos=True, special=special)
            assert 16 <= len(tokens) <= 48, len(tokens)
            rows, rough = logits(exact, tokens), logits(quantized, tokens)
            prompts.append(
                {
                    "name": name,
                    "tokens": tokens,
                    "log_sum_exp": [round(x, 6) for x in log_sum_exp(rows)],
                    "top": [[[int(i), round(row[i], 6)] for i in np.argsort(-row, kind="stable")[:TOP]] for row in rows],
                    "sample": [[round(row[i], 6) for i in sample] for row in rows],
                    # How far llama.cpp itself is from the exact figure, with 8-bit activations.
                    "quantized_error": {
                        "max": round(float(np.abs(rough - rows).max()), 6),
                        "rms": round(float(np.sqrt(((rough - rows) ** 2).mean())), 6),
                    },
                }
            )
        write(folder / f"logits_{model_name}.json", about | {"reference": "f32", "sample_tokens": sample, "prompts": prompts})

        words = text.read_bytes()
        tokens = exact.tokenize(words, add_bos=True, special=False)
        assert 1100 <= len(tokens) <= 2000, len(tokens)
        record = about | {"text": text.name, "text_sha256": hashlib.sha256(words).hexdigest(), "tokens": tokens}
        models = [("f32", exact), ("quantized", quantized)]
        if model_name == "smollm2":
            models.append(("quantized_q8_0", load(path, "q8_0")))
        for name, model in models:
            losses = negative_log_likelihoods(model, tokens)
            record[name] = {
                "perplexity": round(float(np.exp(losses.mean())), 6),
                "nll": [round(float(x), 5) for x in losses],
            }
        write(folder / f"perplexity_{model_name}.json", record)


def write(path, record):
    text = json.dumps(record, separators=(",", ":"))
    path.write_text(text.replace('{"name"', '\n{"name"').replace(',"nll"', ',\n"nll"') + "\n")


main()
