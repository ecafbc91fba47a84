#!/usr/bin/env python3
"""Records what llama.cpp's samplers make of given logits, for src/sampler/golden.rs.

    pip install llama-cpp-python==0.3.36
    python3 tools/oracle/record_samplers.py > tests/data/samplers.json

Each case is a set of our settings, logits and a history of tokens. Its samplers, in the order of llama.cpp's default chain,
are applied to all candidates. Kept are the logits that bias, penalties and DRY have changed, and what can be drawn at the
end: tokens and probabilities, the likeliest first. Cases of mirostat have the token that llama.cpp drew in each step, and
the mu that follows from its probability. DRY's breakers are looked up in the vocabulary of the synthetic model "llama", which
`cargo embodi synth` makes (EMBODI names another program to call).

That the cases can tell one order of the chain from another is made sure of here: with any two neighbours exchanged at least
one of them must come out otherwise.
"""

import ctypes
import importlib.metadata
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from llama_cpp import llama_cpp as llama

CHAIN = ["bias", "penalties", "dry", "top_n_sigma", "top_k", "typical_p", "top_p", "min_p", "xtc_probability", "temperature"]
ADJUSTERS = CHAIN[:3]
BREAKERS = ["\n", ":", '"', "*"]
A, B, C, COLON, NEWLINE = 100, 101, 102, 61, 13  # the vocabulary's bytes begin at 3

PENALTIES = {"repeat_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": 0.25, "repeat_last_n": 8}
DRY = {"dry_multiplier": 0.8, "dry_base": 1.75, "dry_allowed_length": 2, "dry_last_n": 64}
REPEATED = [A, B, C, 110, 111, 112, A, B, C, 110, 120, A, B, C]


def logits(rng, count):
    made = [round(rng.gauss(0, 3), 4) for _ in range(count)]
    assert len(set(made)) == count, "two logits are equal: their order would be anybody's"
    return made


def cases():
    def few(name, **settings):
        yield from ({"name": f"{name}, {of}", "logits": of, "settings": settings} for of in ("peaked", "flat"))

    def text(name, recent, breakers=None, bias=(), **settings):
        case = {"name": name, "logits": "whole", "settings": {"top_k": 20} | settings, "recent": recent, "bias": list(bias)}
        yield case | ({"breakers": breakers} if breakers is not None else {})

    yield from few("top-k", top_k=7)
    yield from few("top-k beyond all", top_k=1000)
    yield from few("top-p", top_p=0.8)
    yield from few("top-p of nearly all", top_p=0.99)
    yield from few("min-p", min_p=0.05)
    yield from few("typical", typical_p=0.3)
    yield from few("typical of most", typical_p=0.9)
    yield from few("top-n-sigma", top_n_sigma=1.2)
    yield from few("XTC", xtc_probability=1, xtc_threshold=0.06)
    yield from few("cool", temperature=0.4)
    yield from few("hot", temperature=1.9)
    yield from few("the defaults", top_k=40, top_p=0.95, min_p=0.05, temperature=0.8)
    yield from few("typical, top-p, min-p", top_k=30, typical_p=0.8, top_p=0.85, min_p=0.1, temperature=0.7)
    yield from few("min-p, then XTC", min_p=0.12, xtc_probability=1, xtc_threshold=0.1, temperature=1.3)
    # Min-p makes what is left likelier, so that more of it are top choices.
    yield from few("min-p, then XTC of nearly none", min_p=0.2, xtc_probability=1, xtc_threshold=0.06)
    yield from few("min-p, then XTC of still fewer", min_p=0.35, xtc_probability=1, xtc_threshold=0.3)
    yield from few("XTC, then cool", xtc_probability=1, xtc_threshold=0.1, temperature=0.3)
    yield from few("XTC, then hot", xtc_probability=1, xtc_threshold=0.05, temperature=3)
    yield from few("top-p, then XTC", top_p=0.7, min_p=0.02, xtc_probability=1, xtc_threshold=0.09)
    yield from few("top-k, then typical", top_k=5, typical_p=0.6, temperature=1.5)
    yield from few("top-k and top-n-sigma", top_n_sigma=0.9, top_k=4)
    yield from few("top-n-sigma, then the others", top_n_sigma=1.5, top_k=50, top_p=0.9, min_p=0.03)

    bias = [[A, 2.5], [B, -1.5], [290, 6.0], [C, -1e30]]
    yield from text("logit bias", [], bias=bias)
    yield from text("repetition", REPEATED, repeat_penalty=1.7, repeat_last_n=8)
    yield from text("presence", REPEATED, presence_penalty=0.9, repeat_last_n=64)
    yield from text("frequency", REPEATED, frequency_penalty=0.6, repeat_last_n=64)
    yield from text("all three penalties", REPEATED, **PENALTIES)
    yield from text("penalties that reward", REPEATED, repeat_penalty=0.6, presence_penalty=-0.5, repeat_last_n=64)
    yield from text("DRY", REPEATED, **DRY)
    yield from text("DRY, one token allowed", REPEATED, **DRY | {"dry_allowed_length": 1, "dry_base": 3.0})
    yield from text("DRY, none of it near enough", REPEATED, **DRY | {"dry_last_n": 4})
    yield from text("DRY, a cycle", [A, B] * 9, **DRY)
    broken = [A, B, C, COLON, 110, 111, 112, A, B, C, COLON, 110, 111]
    yield from text("DRY, a colon between", broken, **DRY)
    yield from text("DRY, no breakers", broken, breakers=[], **DRY)
    yield from text("DRY, the repeated one is a breaker", [A, B, NEWLINE, C, A, B], **DRY)
    yield from text("DRY, a breaker of two tokens", broken, breakers=["c:"], **DRY)
    yield from text("DRY, a breaker's first letter ends a word", [C, 110, 263, 125, A, B, 120, C, 110, 263, 125, A, B],
                    breakers=["ez"], **DRY)
    yield from text("DRY, then top-n-sigma", REPEATED, bias=[[110, 24.0]], **DRY | {"dry_multiplier": 12}, top_n_sigma=2.5)
    yield from text("all in turn", REPEATED, bias=bias, **PENALTIES, **DRY, **{
        "top_n_sigma": 2.5, "top_k": 20, "top_p": 0.9, "min_p": 0.05, "temperature": 0.9,
    })
    yield from text("bias, penalties and DRY on the same tokens", REPEATED, bias=[[110, 4.0], [A, -3.0]], **PENALTIES, **DRY,
                    typical_p=0.8, xtc_probability=1, xtc_threshold=0.08)


def sampler(name, case, vocabulary, size):
    """llama.cpp's sampler for a step, or None where it is not asked for."""
    get = case["settings"].get
    if name == "bias":
        bias = case.get("bias") or []
        if not bias:
            return None
        entries = (llama.llama_logit_bias * len(bias))(*[llama.llama_logit_bias(token, added) for token, added in bias])
        return llama.llama_sampler_init_logit_bias(size, len(bias), entries)
    if name == "penalties":
        values = (get("repeat_penalty", 1.0), get("frequency_penalty", 0.0), get("presence_penalty", 0.0))
        if values == (1.0, 0.0, 0.0):
            return None
        return llama.llama_sampler_init_penalties(size, get("repeat_last_n", 64), *values)
    if name == "dry":
        if "dry_multiplier" not in case["settings"]:
            return None
        words = [word.encode() for word in case.get("breakers", BREAKERS)]
        pointers = (ctypes.c_char_p * max(len(words), 1))(*words)
        values = (get("dry_multiplier"), get("dry_base"), get("dry_allowed_length"), get("dry_last_n"))
        return llama.llama_sampler_init_dry(vocabulary, *values, pointers, len(words))
    if name not in case["settings"]:
        return None
    return {
        "top_n_sigma": lambda value: llama.llama_sampler_init_top_n_sigma(value),
        "top_k": lambda value: llama.llama_sampler_init_top_k(value),
        "typical_p": lambda value: llama.llama_sampler_init_typical(value, 0),
        "top_p": lambda value: llama.llama_sampler_init_top_p(value, 0),
        "min_p": lambda value: llama.llama_sampler_init_min_p(value, 0),
        "xtc_probability": lambda value: llama.llama_sampler_init_xtc(value, get("xtc_threshold"), 0, 1),
        "temperature": lambda value: llama.llama_sampler_init_temp_ext(value, 0.0, 1.0),
    }[name](get(name))


def candidates(row):
    data = (llama.llama_token_data * len(row))(*[llama.llama_token_data(i, logit, 0.0) for i, logit in enumerate(row)])
    return data, llama.llama_token_data_array(data, len(row), -1, False)


def left(case, order, row, vocabulary):
    """Tokens that are left and their logits."""
    chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
    for name in order:
        step = sampler(name, case, vocabulary, len(row))
        if step is not None:
            llama.llama_sampler_chain_add(chain, step)
    for token in case.get("recent", []):
        llama.llama_sampler_accept(chain, token)
    data, array = candidates(row)
    llama.llama_sampler_apply(chain, ctypes.byref(array))
    kept = [(array.data[i].id, array.data[i].logit) for i in range(array.size)]
    llama.llama_sampler_free(chain)
    return [(token, logit) for token, logit in kept if logit > -math.inf]


def shares(kept):
    best = max(logit for _, logit in kept)
    total = sum(math.exp(logit - best) for _, logit in kept)
    kept = sorted(kept, key=lambda entry: -entry[1])
    return [[token, float(f"{math.exp(logit - best) / total:.7g}")] for token, logit in kept]


def changes(case, adjusters, row, vocabulary):
    """Tokens whose logits these have changed, and what to."""
    adjusted = dict(left(case, adjusters, row, vocabulary))
    plain = [ctypes.c_float(logit).value for logit in row]
    return [[i, float(f"{adjusted[i]:.7g}")] for i in range(len(row)) if adjusted[i] != plain[i]]


def tokens(pairs):
    return [token for token, _ in pairs]


def rounded(pairs):
    return [(token, round(number, 3)) for token, number in pairs]


def mirostat(row, settings, steps):
    chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
    llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_temp_ext(settings["temperature"], 0.0, 1.0))
    tau, eta = settings["mirostat_tau"], settings["mirostat_eta"]
    llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_mirostat_v2(11, tau, eta))
    mu, done = 2 * tau, []
    for _ in range(steps):
        data, array = candidates(row)
        llama.llama_sampler_apply(chain, ctypes.byref(array))
        token, share = array.data[array.selected].id, array.data[array.selected].p
        mu -= eta * (-math.log2(share) - tau)
        done.append({"left": array.size, "token": token, "share": float(f"{share:.7g}"), "mu_after": round(mu, 5)})
    llama.llama_sampler_free(chain)
    return done


def main():
    rng = random.Random(20251126)
    rows = {"peaked": logits(rng, 64), "flat": [round(x / 4, 5) for x in logits(rng, 64)], "whole": logits(rng, 300)}
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "model.gguf"
        program = os.environ.get("EMBODI", "cargo embodi").split()
        subprocess.run([*program, "synth", "--family", "llama", "--type", "F32", "-o", str(path)], check=True, stdout=sys.stderr)
        parameters = llama.llama_model_default_params()
        parameters.vocab_only = True
        model = llama.llama_model_load_from_file(str(path).encode(), parameters)
        vocabulary = llama.llama_model_get_vocab(model)
        recorded = []
        for case in cases():
            row = rows[case["logits"]]
            changed = changes(case, ADJUSTERS, row, vocabulary)
            recorded.append(case | {"changed": changed, "drawn_from": shares(left(case, CHAIN, row, vocabulary))})
        for at in range(len(CHAIN) - 1):
            other = CHAIN[:at] + [CHAIN[at + 1], CHAIN[at]] + CHAIN[at + 2:]
            told = []
            for case in recorded:
                drawn = shares(left(case, other, rows[case["logits"]], vocabulary))
                adjusters = [name for name in other if name in ADJUSTERS]
                changed = changes(case, adjusters, rows[case["logits"]], vocabulary)
                if tokens(drawn) != tokens(case["drawn_from"]) or rounded(changed) != rounded(case["changed"]):
                    told.append(case["name"])
            print(f"{CHAIN[at]} and {CHAIN[at + 1]} exchanged: {told}", file=sys.stderr)
            assert told, f"no case tells whether {CHAIN[at]} comes before {CHAIN[at + 1]}"
        llama.llama_model_free(model)
    steered = []
    for of, tau, eta, temperature in [("flat", 2.0, 0.3, 1.0), ("peaked", 2.5, 0.9, 2.5), ("whole", 1.2, 0.4, 1.5)]:
        settings = {"mirostat": 2, "mirostat_tau": tau, "mirostat_eta": eta, "temperature": temperature}
        steps = mirostat(rows[of], settings, 12)
        assert len({step["left"] for step in steps}) > 2, f"mu has to move: {steps}"
        steered.append({"logits": of, "settings": settings, "steps": steps})
    about = {"recorded_with": {"llama-cpp-python": importlib.metadata.version("llama-cpp-python")}}
    lines = lambda items: "[\n" + ",\n".join(json.dumps(item, separators=(",", ":")) for item in items) + "\n]"
    print(f'{json.dumps(about)[:-1]},\n"logits":{json.dumps(rows, separators=(",", ":"))},')
    print(f'"cases":{lines(recorded)},\n"mirostat":{lines(steered)}}}')


main()
