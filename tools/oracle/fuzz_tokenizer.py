#!/usr/bin/env python3
"""Compares tokens of random strings with llama.cpp's, for one vocabulary after the other.

    pip install llama-cpp-python==0.3.36 gguf==0.19.0
    cargo embodi setup
    python3 tools/oracle/fuzz_tokenizer.py [--count 100000] [--seed 1] [NAME…]

A NAME is that of one of llama.cpp's vocabulary-only files ("qwen2"), or a pre-tokenizer's, which is then tried with the
vocabulary of command-r, whose merges know most scripts: a wrong cut shows. Without names: all. Prints a line for each, and
the first differences. Half of the strings are read with special tokens parsed.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import llama_cpp
from vocabulary import Vocabulary, with_pre

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "models/cache/llama-cpp-python-0.3.36"
FILES = (
    "aquila baichuan command-r deepseek-coder deepseek-llm falcon gemma-4 gpt-2 gpt-neox llama-bpe llama-spm mpt phi-3 qwen2 "
    "qwen35 refact starcoder"
).split()
# One name for each way to cut that no file above has.
NAMES = (
    "dbrx chatglm-bpe glm4 minicpm5 jais-2 gpt-4o granite-embed-multi-97m tiny_aya youtu kimi-k2 deepseek-v3 spark2_5 afmoe "
    "tekken poro-chat viking superbpe chameleon laguna ufakzeka seed-coder bailingmoe exaone-moe stablelm2 exaone4 smaug-bpe sarvam-moe"
).split()

WORDS = """the of and Hello WORLD don't I'm you'RE she'll we'Ve IMGIMGABCZ <sentinel:12> camelCase PascalCase XMLHttp iPhone
snake_case naïve Größe ÉCOLE élève ПРИВЕТ привет Ελλάδα ελληνικά ΑΣ עברית العربية فارسی हिन्दी ক্ষত্রিয় ไทย ភាសា မြန်မာ
中文字符 日本語テスト ひらがな カタカナ ｶﾀｶﾅ 한국어 ㄱㄴ ㄅㄆ ﬁﬂ Ǆǅǆ ʰʲ ª º ǈ ᾈ Ⅷ ½ ²³ ٣٤٥ १२३ ๑๒ 〇 ① 𝟘𝟙 𠮷 😀 👨‍👩‍👧 🇩🇪 e\u0301 ø\u0338
a\u200bb \u200d \ufeff \u00ad \ue000 \u0378 \U000e0001 \U0010ffff 0 1 12 123 1234 12345 123456 1234567 3.14 1,000 0x1F
' 's 'S 'll 'LL 've 'Re 'd 'M 't ''s .. ... !? /// // / ~ ` ^ $ $$ + ++ <= >= == | || \\ \\n # @ & % - -- — … 。，、！？：； “” ‘’ «»
「」 （） । ۔ ؟ ، ﹏ ︰ € £ ¥ ₿ © ® ™ → ∑ ▁ Ġ <0x0A> <s> </s> [INST] <|x|>""".split()
SPACES = [" ", "  ", "   ", "    ", "\n", "\n\n", "\r\n", "\t", "\t\t", " \n", "\n ", "\u00a0", "\u3000", "\u2003", "\u0085", "\u2028", "\x0b", "\x0c", "\r", "\x1c", "\u180e"]
BLOCKS = [(0, 0x80), (0x20, 0x7F), (0x80, 0x250), (0x250, 0x530), (0x530, 0x1000), (0x1000, 0x2000), (0x2000, 0x3000), (0x3000, 0x3400), (0x3400, 0xA000), (0xA000, 0xD800), (0xE000, 0x10000), (0x10000, 0x11000), (0x1D400, 0x1D800), (0x1F000, 0x1FB00), (0x20000, 0x30000), (0, 0x110000)]


def string(rng, specials):
    """A random string of at most some 150 characters; std::regex recurses by the character, and a long one crashes it."""
    kind = rng.random()
    if kind < 0.25:
        first, last = rng.choice(BLOCKS)
        points = (rng.randrange(first, last) for _ in range(rng.randint(1, 30)))
        return "".join(chr(p) for p in points if not 0xD800 <= p < 0xE000)
    out = []
    for _ in range(rng.randint(1, 14)):
        part = rng.random()
        if part < 0.45:
            word = rng.choice(WORDS)
            out.append(word.upper() if part < 0.04 else word.title() if part < 0.08 else word)
        elif part < 0.75:
            out.append(rng.choice(SPACES) if part < 0.6 else " ")
        elif part < 0.80 and specials:
            out.append(rng.choice(specials))
        elif part < 0.9:
            first, last = rng.choice(BLOCKS)
            point = rng.randrange(first, last)
            out.append("" if 0xD800 <= point < 0xE000 else chr(point) * rng.choice([1, 1, 1, 2, 5]))
        else:
            out.append(rng.choice("aZ0 '.\n\u00e9中ا") * rng.randint(1, 9))
    return "".join(out)


def ours(model, lines, literal):
    command = [ROOT / "target/tool/embodi", "tokenize", model, "--json", "--batch", "-"]
    command += ["--literal"] if literal else ["--special"]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        sys.exit(f"embodi failed: {done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def compare(title, path, count, seed):
    vocabulary = Vocabulary(path)
    control = [t for t in range(vocabulary.len) if llama_cpp.llama_vocab_get_attr(vocabulary.vocab, t) & (8 | 16 | 1)]
    specials = [s for s in (vocabulary.piece(t).decode("utf-8", "replace") for t in control[:400]) if s]
    rng = random.Random(f"{seed} {title}")
    different = 0
    for literal in (True, False):
        texts = [string(rng, specials) for _ in range(count // 2)]
        got = ours(path, "".join(json.dumps(text) + "\n" for text in texts), literal)
        assert len(got) == len(texts)
        for text, tokens in zip(texts, got):
            expected = vocabulary.tokenize(text, not literal, not literal)
            if tokens != expected:
                different += 1
                if different <= 3:
                    print(f"  {title}: {text!r} literal={literal}\n    llama.cpp {expected}\n    ours      {tokens}")
    vocabulary.close()
    print(f"{title}: {count // 2 * 2 - different} of {count // 2 * 2} equal", flush=True)
    return different


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    subprocess.run(["cargo", "embodi", "--version"], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    different = 0
    for name in args.names or FILES + NAMES:
        if name in FILES:
            different += compare(name, FOLDER / f"ggml-vocab-{name}.gguf", args.count, args.seed)
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "vocabulary.gguf"
            with_pre(FOLDER / "ggml-vocab-command-r.gguf", name, path)
            different += compare(name, path, args.count, args.seed)
    sys.exit(different > 0)


if __name__ == "__main__":
    main()
