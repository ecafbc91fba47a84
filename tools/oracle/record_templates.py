#!/usr/bin/env python3
"""Records how Jinja renders the templates that llama.cpp ships, for tests/chats.rs.

    pip install jinja2==3.1.6
    python3 tools/oracle/record_templates.py models/cache/llama-cpp-python-0.3.36/templates > tests/data/templates.json

Jinja is set up as the transformers library does it (`_compile_jinja_template` of 4.5x). What comes out is recorded as
FNV-1a hashes, as the texts of the templates are other people's; where Jinja raises, the exception's class is recorded.
"""

import datetime
import importlib.metadata
import json
import sys
from pathlib import Path

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

BOS, EOS, DATE = "<s>", "</s>", datetime.date(2026, 11, 25)
CHATS = [
    [("user", "Hello")],
    [("system", "You are a pirate."), ("user", "Who are you?")],
    [("user", "What is the capital of France?"), ("assistant", "Paris."), ("user", "And of Germany?")],
    [
        ("system", "Be brief."),
        ("user", "What is 17 * 23?"),
        ("assistant", "<think>\n17 * 23 = 391\n</think>\n\n391"),
        ("user", "  Are you sure?  \n"),
        ("assistant", "Yes.\n"),
        ("user", "Why?"),
    ],
    [("user", ""), ("assistant", ""), ("user", "\n")],
    [
        ("system", "Grüße 😀 世界 \u00a0 مرحبا"),
        ("user", "{{ not jinja }} {% nor this %} <|im_end|> </s> <s>[INST] 'quotes' \"and\" \\n <b>&amp;</b>"),
    ],
]
# add_generation_prompt, enable_thinking
STYLES = [(True, None), (False, None), (True, True), (True, False)]


class Generation(jinja2.ext.Extension):
    """`{% generation %}` marks what the model said; what it encloses is put out as if it were not there."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        call = self.call_method("support")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    @jinja2.pass_eval_context
    def support(self, context, caller):
        return caller()


class Raised(Exception):
    pass


def raise_exception(message):
    raise Raised(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = DATE.strftime
    return env


def fnv(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def rendered(program, chat, style):
    given = {
        "messages": [{"role": role, "content": content} for role, content in chat],
        "tools": None,
        "documents": None,
        "add_generation_prompt": style[0],
        "bos_token": BOS,
        "eos_token": EOS,
    }
    if style[1] is not None:
        given |= {"enable_thinking": style[1], "thinking": style[1]}
    try:
        return fnv(program.render(**given))
    except Raised as error:
        return f"Raised {fnv(str(error))}"
    except Exception as error:
        return type(error).__name__


def main():
    env = environment()
    templates = {}
    for path in sorted(Path(sys.argv[1]).glob("*.jinja")):
        source = path.read_text()
        entry = {"source": fnv(source)}
        try:
            program = env.from_string(source)
            entry["rendered"] = [[rendered(program, chat, style) for style in STYLES] for chat in CHATS]
        except jinja2.TemplateError as error:
            entry["refused"] = type(error).__name__
        templates[path.name] = entry
    record = {
        "recorded_with": {"jinja2": importlib.metadata.version("jinja2")},
        "templates_from": "llama-cpp-python 0.3.36, vendor/llama.cpp/models/templates",
        "bos": BOS,
        "eos": EOS,
        "date": DATE.isoformat(),
        "chats": CHATS,
        "styles": STYLES,
        "templates": templates,
    }
    lines = json.dumps(record, ensure_ascii=False, indent=1)
    print(lines)


main()
