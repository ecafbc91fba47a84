#!/usr/bin/env python3
"""Records how Jinja renders a model's own chat template, for tests/chats.rs.

    pip install jinja2==3.1.6 gguf==0.19.0
    python3 tools/oracle/record_chat.py MODEL.gguf > tests/data/chat_smollm2.json
"""

import hashlib
import importlib.metadata
import json
import sys
from pathlib import Path

import gguf
import jinja2.sandbox

CHATS = [
    [],
    [("user", "Hello")],
    [("user", "")],
    [("system", "")],
    [("system", "You are a pirate."), ("user", "Hello")],
    [("user", "What is the capital of France?"), ("assistant", "Paris."), ("user", "And of Germany?")],
    [("system", "Be brief."), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")],
    [("assistant", "I speak first."), ("user", "Do you?")],
    [("user", "one"), ("user", "two"), ("system", "late")],
    [("user", "  spaces kept  \n\n"), ("assistant", "\n")],
    [("user", "{{ not jinja }} {% nor this %} <|im_end|> 'quotes' \"and\" \\n")],
    [("user", "Grüße 😀 世界 مرحبا")],
]


def main():
    path = Path(sys.argv[1])
    template = gguf.GGUFReader(path).fields["tokenizer.chat_template"].contents()
    # As the transformers library sets it up: block tags leave no line behind.
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    program = environment.from_string(template)
    cases = []
    for chat in CHATS:
        messages = [{"role": role, "content": content} for role, content in chat]
        for generation_prompt in (False, True):
            text = program.render(messages=messages, add_generation_prompt=generation_prompt)
            cases.append({"turns": chat, "generation_prompt": generation_prompt, "text": text})
    record = {
        "recorded_with": {name: importlib.metadata.version(name) for name in ("jinja2", "gguf")},
        "model": path.name,
        "model_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "template": template,
        "cases": cases,
    }
    print(json.dumps(record, indent=1))


main()
