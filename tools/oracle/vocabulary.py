"""A vocabulary opened by llama.cpp, and copies of one with another pre-tokenizer's name."""

import ctypes
import sys

import gguf
import llama_cpp

# It warns of each text that begins with a start token of its own.
silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
llama_cpp.llama_log_set(silent, None)


class Vocabulary:
    def __init__(self, path):
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not self.model:
            sys.exit(f"llama.cpp cannot read {path}")
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.len = llama_cpp.llama_vocab_n_tokens(self.vocab)

    def close(self):
        llama_cpp.llama_model_free(self.model)

    def tokenize(self, text, add_special, parse_special):
        raw = text.encode()
        room = len(raw) + 16
        ids = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(self.vocab, raw, len(raw), ids, room, add_special, parse_special)
        assert count >= 0
        return list(ids[:count])

    def detokenize(self, ids, special):
        room = 64 * len(ids) + 64
        buffer = ctypes.create_string_buffer(room)
        array = (llama_cpp.llama_token * max(1, len(ids)))(*ids)
        count = llama_cpp.llama_detokenize(self.vocab, array, len(ids), buffer, room, False, special)
        assert count >= 0
        return buffer.raw[:count]

    def piece(self, token):
        buffer = ctypes.create_string_buffer(4096)
        count = llama_cpp.llama_token_to_piece(self.vocab, token, buffer, 4096, 0, True)
        assert count >= 0
        return buffer.raw[:count]


def with_pre(path, name, out):
    """Copies metadata only, with another pre-tokenizer's name."""
    reader = gguf.GGUFReader(path)
    arch = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(out, arch)
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        value = name if field.name == "tokenizer.ggml.pre" else field.contents()
        sub = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, value, field.types[0], sub)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
