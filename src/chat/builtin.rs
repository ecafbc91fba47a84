//! Built-in templates: the forms that model families were taught, for files that carry none, or one that can't be used.
//!
//! Jinja like any other, of our own writing, after what each family's authors publish. `tests/chats.rs` renders each.

/// One form of prompt.
#[derive(Debug)]
pub struct BuiltIn {
    /// What people call it.
    pub name: &'static str,
    /// Texts that all occur in programs or vocabularies of this form; none where nothing tells.
    pub marks: &'static [&'static str],
    /// The program.
    pub program: &'static str,
}

/// Refuses a system turn, so that it is told to the user's first turn instead.
macro_rules! no_system {
    ($program:literal) => {
        concat!(
            "{% if messages and messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}",
            $program
        )
    };
}

/// All of them. Of several whose marks occur the first is taken, so the more particular come first.
pub static BUILT_IN: &[BuiltIn] = &[
    BuiltIn {
        name: "phi4",
        marks: &["<|im_start|>", "<|im_sep|>"],
        program: "{% for m in messages %}{{ '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}",
    },
    BuiltIn {
        name: "chatml",
        marks: &["<|im_start|>", "<|im_end|>"],
        program: "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    },
    BuiltIn {
        name: "llama3",
        marks: &["<|start_header_id|>", "<|eot_id|>"],
        program: "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    },
    BuiltIn {
        name: "gemma",
        marks: &["<start_of_turn>", "<end_of_turn>"],
        program: no_system!(
            "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
        ),
    },
    BuiltIn {
        name: "granite",
        marks: &["<|start_of_role|>", "<|end_of_role|>"],
        program: "{% for m in messages %}{{ '<|start_of_role|>' + m.role + '<|end_of_role|>' + m.content + '<|end_of_text|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}",
    },
    BuiltIn {
        name: "command-r",
        marks: &["<|START_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>"],
        program: "{{ bos_token }}{% for m in messages %}{{ '<|START_OF_TURN_TOKEN|>' + ('<|CHATBOT_TOKEN|>' if m.role == 'assistant' else '<|' + m.role | upper + '_TOKEN|>') + m.content | trim + '<|END_OF_TURN_TOKEN|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}",
    },
    BuiltIn {
        name: "deepseek3",
        marks: &["<｜User｜>", "<｜Assistant｜>"],
        program: "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% elif m.role == 'user' %}{{ '<｜User｜>' + m.content }}{% else %}{{ '<｜Assistant｜>' + m.content.split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}",
    },
    BuiltIn {
        name: "exaone",
        marks: &["[|assistant|]", "[|endofturn|]"],
        program: "{% for m in messages %}{{ '[|' + m.role + '|]' + m.content + ('\n' if m.role == 'user' else '[|endofturn|]\n') }}{% endfor %}{% if add_generation_prompt %}{{ '[|assistant|]' }}{% endif %}",
    },
    BuiltIn {
        name: "phi3",
        marks: &["<|user|>", "<|assistant|>", "<|end|>"],
        program: "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
    },
    BuiltIn {
        name: "tulu",
        marks: &["<|user|>", "<|assistant|>", "<|endoftext|>"],
        program: "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + (eos_token + '\n' if m.role == 'assistant' else '\n') }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
    },
    BuiltIn {
        name: "zephyr",
        marks: &["<|user|>", "<|assistant|>"],
        program: "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
    },
    BuiltIn {
        name: "mistral-v7",
        marks: &["[INST]", "[SYSTEM_PROMPT]"],
        program: "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ '[SYSTEM_PROMPT] ' + m.content + '[/SYSTEM_PROMPT]' }}{% elif m.role == 'user' %}{{ '[INST] ' + m.content + '[/INST]' }}{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}",
    },
    BuiltIn {
        name: "llama2",
        marks: &["[INST]", "<<SYS>>"],
        program: "{% if messages and messages[0].role == 'system' %}{% set system = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + (system if loop.first else '') + m.content | trim + ' [/INST]' }}{% else %}{{ ' ' + m.content | trim + ' ' + eos_token }}{% endif %}{% endfor %}",
    },
    BuiltIn {
        name: "mistral",
        marks: &["[INST]"],
        program: no_system!(
            "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + '[/INST]' }}{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
        ),
    },
    BuiltIn {
        name: "minicpm",
        marks: &["<用户>", "<AI>"],
        program: "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '<用户>' + m.content | trim + '<AI>' }}{% else %}{{ m.content | trim }}{% endif %}{% endfor %}",
    },
    BuiltIn {
        name: "openchat",
        marks: &["GPT4 Correct"],
        program: "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content + '<|end_of_turn|>' }}{% else %}{{ 'GPT4 Correct ' + m.role | title + ': ' + m.content + '<|end_of_turn|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}GPT4 Correct Assistant:{% endif %}",
    },
    BuiltIn {
        name: "vicuna",
        marks: &["USER: ", "ASSISTANT:"],
        program: "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content + '\n\n' }}{% elif m.role == 'user' %}{{ 'USER: ' + m.content + '\n' }}{% else %}{{ 'ASSISTANT: ' + m.content + eos_token + '\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}",
    },
    BuiltIn {
        name: "deepseek",
        marks: &["### Instruction:", "<|EOT|>"],
        program: "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content + '\n' }}{% elif m.role == 'user' %}{{ '### Instruction:\n' + m.content + '\n' }}{% else %}{{ '### Response:\n' + m.content + '\n<|EOT|>\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}",
    },
    BuiltIn {
        name: "alpaca",
        marks: &["### Instruction:", "### Response:"],
        program: "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content + '\n\n' }}{% elif m.role == 'user' %}{{ '### Instruction:\n' + m.content + '\n\n' }}{% else %}{{ '### Response:\n' + m.content + eos_token + '\n\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}",
    },
];

/// The row of this name.
pub fn named(name: &str) -> Option<&'static BuiltIn> {
    BUILT_IN.iter().find(|row| row.name.eq_ignore_ascii_case(name))
}

/// The first row all of whose marks are `there`.
pub fn recognised(there: impl Fn(&str) -> bool) -> Option<&'static BuiltIn> {
    BUILT_IN.iter().find(|row| row.marks.iter().all(|mark| there(mark)))
}
