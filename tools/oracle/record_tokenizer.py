#!/usr/bin/env python3
"""Records how llama.cpp tokenizes and detokenizes odd strings, for tests/tokenizers.rs.

    pip install llama-cpp-python==0.3.36 gguf==0.19.0
    python3 tools/oracle/record_tokenizer.py MODEL.gguf > tests/data/tokenizer_smollm2.json

Beside the model's own pre-tokenizer, every other name in NAMES is recorded with the same vocabulary: the
metadata is copied to a temporary file with `tokenizer.ggml.pre` replaced.
"""

import hashlib
import importlib.metadata
import json
import random
import sys
import tempfile
from pathlib import Path

import llama_cpp
from vocabulary import Vocabulary, with_pre

# One name for each way to cut text, and some that share one.
NAMES = (
    "default llama-bpe dbrx minicpm5 jais-2 gpt-2 phi-2 mpt olmo starcoder refact command-r codeshell qwen2 laguna qwen35 ufakzeka "
    "seed-coder bailingmoe exaone-moe tekken gpt-4o granite-embed-multi-97m tiny_aya youtu kimi-k2 deepseek-llm deepseek-coder "
    "deepseek-v3 spark2_5 afmoe falcon poro-chat viking superbpe chameleon"
).split()

SENTENCES = r"""
Hello
Hello world
 Hello
  Hello
Hello\x20
Hello \x20
Hello world!
Hello, y'all! How are you 😁 ?我想在apple工作1314151天～
The quick brown fox jumps over the lazy dog.
THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG.
tHe QuIcK bRoWn
I'm you're he's she'll we've they'd don't
I'M YOU'RE HE'S SHE'LL WE'VE THEY'D DON'T
i’m you’re he’s (curly)
'tis 'twas o'clock rock'n'roll
's 't 're 've 'm 'll 'd
''s '' ''' 's's's
x'sy 'sx 'rex 'r 'v 'l
don''t can' 't
"quoted" 'quoted' `quoted` «quoted» „quoted“ 「quoted」
What is 2 + 2? It's 4.
3.14159265358979323846
1,000,000.00
1 12 123 1234 12345 123456 1234567
0x1F600 0b1010 1e-10 1_000_000
007 +49 (0)30 123456-78
٠١٢٣٤٥٦٧٨٩ ०१२३ 一二三 ①②③ Ⅷ ½ ¾ ² ³ ₂
x²+y²=z² H₂O CO₂ m³
2024-01-31T23:59:59.999Z
192.168.0.1:8080 ::1 fe80::1%eth0
$100 €50 £30 ¥2000 ₹500 ₿1
100% 50‰ #1 @user a&b a|b a^b ~a
a+b-c*d/e=f<g>h
!@#$%^&*()_+-=[]{};':",./<>?\\|`~
... … .... ?! !!! ??? ---- ==== ####
https://example.org/path?query=1&b=%20#frag
user.name+tag@example.co.uk
C:\\Users\\name\\file.txt /usr/local/bin ~/.config
snake_case camelCase PascalCase kebab-case SCREAMING_CASE
__init__ _private $var @decorator #include <stdio.h>
fn main() { println!("Hello, {}!", name); }
def f(x): return x ** 2  # square
for (int i = 0; i < 10; ++i) { a[i] += b[i]; }
SELECT * FROM t WHERE id = 'x' AND y <> 3;
<html><body class="a">text</body></html>
{"key": [1, 2.5, null, true], "nested": {"a": "b"}}
let x = a?.b ?? c; const y = `${x}`;
\\frac{1}{2} \\alpha $x_1^2$
if x == 1 and y != 2 or z >= 3 then
Grüße aus München, Straße, ÄÖÜäöüß
Ça va ? Où êtes-vous ? Noël, cœur, naïve
El niño comió piñatas. ¿Qué? ¡Sí!
Não há coração, pão, avó
Zażółć gęślą jaźń
Příliš žluťoučký kůň úpěl ďábelské ódy
Árvíztűrő tükörfúrógép
Þetta er íslenska, ð og þ
İstanbul ığdır şçö
Съешь же ещё этих мягких французских булок
Українська мова: їжак, ґанок
Ξεσκεπάζω την ψυχοφθόρα βδελυγμία
Հայերեն լեզու
ქართული ენა
שלום עולם
שָׁלוֹם עִבְרִית מְנֻקֶּדֶת
مرحبا بالعالم
السَّلَامُ عَلَيْكُم
سلام دنیا، فارسی
اردو زبان
नमस्ते दुनिया
हिन्दी में लिखना क्षत्रिय
বাংলা ভাষা
தமிழ் மொழி
తెలుగు భాష
ಕನ್ನಡ മലയാളം ગુજરાતી ਪੰਜਾਬੀ
සිංහල
ภาษาไทยไม่มีช่องว่าง
ລາວ ខ្មែរ မြန်မာ
བོད་སྐད
አማርኛ ቋንቋ
ᏣᎳᎩ ᐃᓄᒃᑎᑐᑦ
你好，世界！
我喜欢吃苹果。
漢字かな交じり文、カタカナ、ひらがな
ｶﾀｶﾅ ＡＢＣ１２３
안녕하세요 세계
한글 자모 ㄱㄴㄷ
𠮷野家 𩸽 𪚥
Tiếng Việt: Đường, nghĩa, ưỡn
Vie\u0302\u0323t Nam e\u0301 a\u030a
Z̸̧̢͎̗̫̝̭̖͗̂a̶̛̠l̷̡̛g̸̢o̵
😀
😀😃😄😁
I ❤️ Rust 🦀🚀
👨‍👩‍👧‍👦 👩🏽‍💻 🏳️‍🌈 🏴‍☠️
🇩🇪🇫🇷🇯🇵🇺🇳
👍👍🏻👍🏼👍🏽👍🏾👍🏿
1️⃣2️⃣#️⃣*️⃣
♥︎ ♥️ ☺︎ ☺️
→ ← ↑ ↓ ⇒ ∀∃∈∉⊂⊃∪∩ ∑∏∫√∞≈≠≤≥
░▒▓█ ┌─┐│└┘ ■□▪▫
℃ № ™ © ® § ¶ † ‡ •
ﬁ ﬂ ﬃ ﷺ ㈱ ㎏
𝐇𝐞𝐥𝐥𝐨 𝓗𝓮𝓵𝓵𝓸 𝕳𝖊𝖑𝖑𝖔 𝟙𝟚𝟛
𝄞 𝅘𝅥𝅮 🜁 🀄 🂡
ˈfɒnətɪks ʃʒθð
nǐ hǎo ā á ǎ à
a\u00adb a\u200bb a\u200cb a\u200db a\u2060b a\ufeffb
\u202eright to left\u202c \u2066isolate\u2069
\ufeffBOM first
\ue000\ue001\uf8ff private use
\U000f0000\U0010fffd private planes
\ufffd replacement \ufffe\uffff noncharacters
\U0001e900\U0001e922 𐐀𐐨 𐌰𐌱 𒀀 𓀀
\u1c89 \U0001faea unassigned in Unicode 15
word\u2028line\u2029paragraph
a\u00a0b a\u2003b a\u3000b a\u1680b a\u202fb a\u0085b
\u00a0\u00a0a \u3000\u3000a \u2003 a
tab\tseparated\tvalues
\t\tindented
a \t b\t c \t
 \t \n \t x
line one\nline two
line one\r\nline two\r\n
\r\r\n\n\r
a\n\nb\n\n\nc\n\n\n\nd
\n
\n\n
\n\n\n
\n \n
 \n \n\x20
x\n\x20
x \nx
\t
\t\t
\t\n
\n\t
a\x0bb\x0cc
\x00
a\x00b
\x01\x02\x03\x1b[31mred\x1b[0m\x7f
\x80\x81\x9f controls
\x20
 \x20
  \x20
   \x20
    \x20
       \x20
               \x20
                               \x20
 a  b   c    d     e      f
a\x20
a \x20
a  \x20
  a
   a \x20
 1  2   3
1\x20
 1
  1 \x20
a1b2c3
1a 2b 3c
 12345 67890
½a ½½ ²x
. a  . b   .
 .  ..   ...
 '  ''  's  'll
 !\n !\n\n !
x  !x   ?
<|endoftext|>
<|im_start|>
<|im_end|>
<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n
<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n
 <|im_end|>\x20
a<|im_end|>b
<|im_end|><|im_end|>
<|im_end|>\n<|im_end|>
<|im_start|<|im_end|>
<|im_<|im_start|>start|>
<|im_start|><|im_start
<<|im_end|>>
<repo_name>a<file_sep>b<reponame>
<filename>x.py<gh_stars>10-100
<issue_start><issue_comment><issue_closed>
<jupyter_start><jupyter_text><jupyter_code><jupyter_output><jupyter_script><empty_output>
<|IM_END|> <|im_end |> < |im_end|>
<unk> <s> </s> <pad> [INST] [/INST] <<SYS>>
<0x0A> <0x41>
Ġhello Ċ ĉ
[EMPTY_0] [UNK_BYTE_0x]
antidisestablishmentarianism
pneumonoultramicroscopicsilicovolcanoconiosis
Donaudampfschifffahrtsgesellschaftskapitän
supercalifragilisticexpialidocious
asdfghjklqwertyuiopzxcvbnm
zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
abababababababababababababababab
hahahahahaha
!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!
================================
--------------------------------
________________________________
. . . . . . . . . .
,,,,;;;;::::
((((((((()))))))))
[[[]]]{{{}}}<<<>>>
iPhone14Pro MacOSX10.15.7
v1.2.3-beta.4+build.5
SHA256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
SGVsbG8gd29ybGQh== YmFzZTY0
550e8400-e29b-41d4-a716-446655440000
ATGCGTACGTTAGC
C6H12O6 + 6O2 -> 6CO2 + 6H2O
P(A|B) = P(B|A)P(A)/P(B)
E = mc^2; F=ma
Once upon a time, there was a little girl who lived in a village near the forest.
The capital of France is Paris. The capital of Germany is Berlin.
To be, or not to be, that is the question:
    def method(self):\n        return self.value\n
\tif (x) {\n\t\treturn;\n\t}\n
- item one\n- item two\n  - nested\n1. first\n2. second
# Title\n\n## Section\n\nText with **bold** and *italic* and `code`.
| a | b |\n|---|---|\n| 1 | 2 |
```python\nprint("hi")\n```
Name:\tJohn\r\nAge:\t42\r\n\r\n
Mixed русский and English и 中文 with العربية
emoji😀in🎉the🚀middle
CamelCaseWithNumbers123AndMore456
e\u0301e\u0301e\u0301 \u0301 \u0301a
\u0e33\u0e33 \u0f71\u0f72
क\u094dष क\u094d\u200dष क\u094d\u200cष
\u1100\u1161\u11a8 \uac01
\u0300\u0301\u0302
a\u20dd \u20e3
ǅ ǈ ǋ ᾈ
ʰ ʲ ˀ ๆ ー 々 〆
〇 ㊀ ㊿ 𐄇 𑁒
՚՛ ؟ ، ۔ । ॥ 。、
‐‑‒–—― ‘’‚‛“”„‟
 ‘a’ “b” –c—\x20
¡¿ ª º ¹
"""

CODE_LINES = ["import os, sys", "    x = [i for i in range(10)]", "\t\treturn x->y;", "}  // end", "", "", "@a.b(c=1)"]


def strings():
    """At least 300 different strings; the random ones are the same each time."""
    found = [unescape(line) for line in SENTENCES.strip("\n").split("\n")]
    found += ["", "\n".join(CODE_LINES), "\r\n".join(CODE_LINES)]
    found += [" " * n for n in (9, 17, 63, 64, 65, 200)] + ["\n" * n for n in (5, 8, 64, 65)] + ["\t" * n for n in (3, 4, 9)]
    found += ["a" * 1000, "ab" * 700, "1" * 100, "!" * 300, "é" * 200, "中" * 300, "😀" * 100, " a" * 200, "\u200d" * 20]
    found += ["".join(map(chr, range(first, first + 64))) for first in (0x20, 0x80, 0xC0, 0x250, 0x300, 0x600, 0x900, 0x2000, 0x2040, 0x2150, 0x3000, 0xFF00, 0x1F600)]
    found += [chr(point) for point in (0x7F, 0x80, 0xAD, 0x378, 0xD7FF, 0xE000, 0xFDD0, 0xFFFD, 0x10000, 0x1FFFF, 0x2EBF0, 0x10FFFF)]
    rng = random.Random(20250207)
    pool = "aeiou bcd XYZ 0123 .,!?'\"-  \n\t\r<|>éüñ中文あア한😀\u200d\u0301\u00a0أبजि"
    names = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<file_sep>"]
    for _ in range(60):
        found.append("".join(rng.choice(names) if rng.random() < 0.04 else rng.choice(pool) for _ in range(rng.randint(5, 60))))
    for _ in range(25):
        points = (rng.randrange(0x110000 if rng.random() < 0.3 else 0x3000) for _ in range(20))
        found.append("".join(chr(p) for p in points if not 0xD800 <= p < 0xE000))
    return list(dict.fromkeys(found))


def unescape(line):
    r"""Turns \n, \t, \xHH, \uHHHH, \UHHHHHHHH and \\ into what they say; other text may be any Unicode."""
    out, at = [], 0
    widths = {"x": 2, "u": 4, "U": 8}
    plain = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
    while at < len(line):
        if line[at] != "\\":
            out.append(line[at])
            at += 1
        elif line[at + 1] in plain:
            out.append(plain[line[at + 1]])
            at += 2
        else:
            width = widths[line[at + 1]]
            out.append(chr(int(line[at + 2 : at + 2 + width], 16)))
            at += 2 + width
    return "".join(out)


def main():
    path = Path(sys.argv[1])
    texts = strings()
    assert len(texts) >= 300, len(texts)
    vocabulary = Vocabulary(path)
    cases = []
    for text in texts:
        plain, parsed = (vocabulary.tokenize(text, False, parse) for parse in (False, True))
        assert vocabulary.tokenize(text, True, True) == parsed, "this model adds nothing at the ends"
        case = {"text": text, "plain": plain}
        if parsed != plain:
            case["parsed"] = parsed
        decoded = {special: vocabulary.detokenize(parsed, special) for special in (True, False)}
        # Bytes that the vocabulary lacks are lost: only then is the text not what went in.
        if decoded[True] != text.encode():
            case["decoded"] = decoded[True].hex()
        if decoded[False] != decoded[True]:
            case["decoded_without_special"] = decoded[False].hex()
        cases.append(case)
    others = {}
    for name in NAMES:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "vocabulary.gguf"
            with_pre(path, name, copy)
            other = Vocabulary(copy)
            ids = [other.tokenize(text, False, False) for text in texts]
        others[name] = {str(i): got for i, (got, case) in enumerate(zip(ids, cases)) if got != case["plain"]}
    # One digest for groups of names with the same answers keeps the file small.
    rules = {}
    for name, different in others.items():
        key = json.dumps(different, sort_keys=True)
        rules.setdefault(key, {"names": [], "different": different})["names"].append(name)
    fnv = 0xCBF29CE484222325
    for token in range(vocabulary.len):
        piece = vocabulary.piece(token)
        for byte in len(piece).to_bytes(4, "little") + piece:
            fnv = (fnv ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    record = {
        "recorded_with": {name: importlib.metadata.version(name) for name in ("llama-cpp-python", "gguf")},
        "model": path.name,
        "model_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "tokens": vocabulary.len,
        "bos": llama_cpp.llama_vocab_bos(vocabulary.vocab),
        "eos": llama_cpp.llama_vocab_eos(vocabulary.vocab),
        "ends": [t for t in range(vocabulary.len) if llama_cpp.llama_vocab_is_eog(vocabulary.vocab, t)],
        "special": [t for t in range(vocabulary.len) if llama_cpp.llama_vocab_is_control(vocabulary.vocab, t)],
        "pieces_fnv1a64": f"{fnv:016x}",
        "cases": cases,
        "other_pre_tokenizers": list(rules.values()),
    }
    text = json.dumps(record, ensure_ascii=True, separators=(",", ":"))
    print(text.replace('{"text"', '\n{"text"').replace('{"names"', '\n{"names"'))


main()
