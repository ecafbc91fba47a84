#!/usr/bin/env python3
"""Records what llama.cpp makes of odd strings with each of its own vocabularies, for tests/vocabularies.rs.

    pip install llama-cpp-python==0.3.36 gguf==0.19.0
    cargo embodi setup
    python3 tools/oracle/record_vocabularies.py > tests/data/vocabularies.json

The strings are those of tests/data/tokenizer_smollm2.json. Of each string's tokens there are 16 bits of their FNV-1a (over
4 bytes a token) as hexadecimal digits: enough to see which string differs. "cuts" are other pre-tokenizers' names given to the
vocabulary of command-r, whose merges know most scripts.
"""

import importlib.metadata
import json
import tempfile
from pathlib import Path

import llama_cpp
from fuzz_tokenizer import FILES, FOLDER, NAMES, ROOT
from vocabulary import Vocabulary, with_pre

# SentencePiece: others' spaces llama.cpp cleans when it puts a text together, though not when it streams one.
DECODED = ["baichuan", "llama-spm", "phi-3"]
# LLAMA_TOKEN_ATTR_UNKNOWN, LLAMA_TOKEN_ATTR_CONTROL: not shown unless asked for.
HIDDEN = 1 | 8


def fnv(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def digits(data):
    return f"{fnv(data) & 0xFFFF:04x}"


def of(tokens):
    return digits(b"".join(token.to_bytes(4, "little") for token in tokens))


def bytes_of_characters():
    """GPT-2's table of characters that stand for bytes."""
    prints = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in prints]
    return {chr(byte): byte for byte in prints} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


TABLE = bytes_of_characters()


def piece(v, token):
    """A character outside the table (command-r has 1,403 such tokens) stands for itself with us; llama.cpp shows a note."""
    shown = v.piece(token)
    if b"[UNK_BYTE_0x" not in shown:
        return shown
    text = llama_cpp.llama_vocab_get_text(v.vocab, token).decode()
    return b"".join(bytes([TABLE[c]]) if c in TABLE else c.encode() for c in text)


def main():
    cases = json.loads((ROOT / "tests/data/tokenizer_smollm2.json").read_text())["cases"]
    texts = [case["text"] for case in cases]
    vocabularies = {}
    for name in FILES:
        v = Vocabulary(FOLDER / f"ggml-vocab-{name}.gguf")
        pieces = [piece(v, token) for token in range(v.len)]
        parsed = [v.tokenize(text, True, True) for text in texts]
        vocabularies[name] = {
            "tokens": v.len,
            "bos": llama_cpp.llama_vocab_bos(v.vocab),
            "eos": llama_cpp.llama_vocab_eos(v.vocab),
            "ends": [t for t in range(v.len) if llama_cpp.llama_vocab_is_eog(v.vocab, t)],
            "special": of([t for t in range(v.len) if llama_cpp.llama_vocab_get_attr(v.vocab, t) & HIDDEN]),
            "pieces": f"{fnv(b''.join(len(p).to_bytes(4, 'little') + p for p in pieces)):016x}",
            "plain": "".join(of(v.tokenize(text, False, False)) for text in texts),
            "parsed": "".join(map(of, parsed)),
        }
        if name in DECODED:
            vocabularies[name]["decoded"] = "".join(digits(v.detokenize(tokens, False)) for tokens in parsed)
        v.close()
    cuts = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            path = Path(folder) / "vocabulary.gguf"
            with_pre(FOLDER / "ggml-vocab-command-r.gguf", name, path)
            v = Vocabulary(path)
            cuts[name] = "".join(of(v.tokenize(text, False, False)) for text in texts)
            v.close()
    record = {
        "recorded_with": {name: importlib.metadata.version(name) for name in ("llama-cpp-python", "gguf")},
        "vocabularies": vocabularies,
        "cuts": cuts,
    }
    print(json.dumps(record, indent=1))


main()
