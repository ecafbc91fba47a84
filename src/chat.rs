//! Chat templates: how turns become one prompt.
//!
//! A GGUF file carries its template as a Jinja program. The board has no Jinja: [`TEMPLATES`] has a row for
//! each form of prompt we write ourselves, recognised by the text of the program, never by a file's name,
//! and checked against Jinja's own rendering.

use crate::gguf::{GgufError, Metadata};
use alloc::string::String;
use core::fmt;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sets the scene.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The role's name inside prompts.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One thing said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn<'a> {
    /// Who said it.
    pub role: Role,
    /// What was said.
    pub content: &'a str,
}

/// One form of prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    /// What people call it.
    pub name: &'static str,
    /// Texts that all occur in the Jinja programs which write this form.
    pub marks: &'static [&'static str],
    /// The system turn that is put before a chat which does not begin with one.
    pub default_system: Option<&'static str>,
    /// Before a turn's role.
    pub before_role: &'static str,
    /// Between the role and what was said.
    pub after_role: &'static str,
    /// After what was said.
    pub after_content: &'static str,
}

/// Qwen's ChatML: `<|im_start|>role`, a line break, what was said, `<|im_end|>` and a line break.
const CHATML: Template = Template {
    name: "chatml",
    marks: &["<|im_start|>", "<|im_end|>"],
    default_system: None,
    before_role: "<|im_start|>",
    after_role: "\n",
    after_content: "<|im_end|>\n",
};

/// Templates we write. The first row whose marks all occur is taken, so the more particular come first.
pub static TEMPLATES: &[Template] = &[
    Template {
        name: "smollm2",
        marks: &["<|im_start|>", "<|im_end|>", SMOLLM2_SYSTEM],
        default_system: Some(SMOLLM2_SYSTEM),
        ..CHATML
    },
    CHATML,
];

const SMOLLM2_SYSTEM: &str = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";

/// What stands in for a template that we do not know.
const FALL_BACK: &Template = &CHATML;

impl Template {
    /// The template of a model. One that is missing or unknown is an error that carries a
    /// [fall-back](ChatError::fall_back): going on with it is for the caller to decide, and to say.
    pub fn from_metadata(metadata: &Metadata) -> Result<&'static Self, ChatError> {
        match metadata.opt_string("tokenizer.chat_template")? {
            None => Err(ChatError::Missing),
            Some(program) => Self::recognise(program).ok_or(ChatError::Unknown),
        }
    }

    /// The template that a Jinja program writes, if it is one we know.
    pub fn recognise(program: &str) -> Option<&'static Self> {
        TEMPLATES.iter().find(|template| template.marks.iter().all(|mark| program.contains(mark)))
    }

    /// The template of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TEMPLATES.iter().find(|template| template.name == name)
    }

    /// The prompt of a chat. With `generation_prompt` it ends where the model is to speak.
    ///
    /// Tokenize it with special tokens parsed: what a person typed is in it too, so a control token's name
    /// typed by them counts as that token, as it does with every engine that goes through Jinja.
    pub fn render(&self, turns: &[Turn], generation_prompt: bool) -> String {
        let mut prompt = String::new();
        let first = turns.first();
        if let (Some(content), Some(first)) = (self.default_system, first)
            && first.role != Role::System
        {
            self.write(&mut prompt, Turn { role: Role::System, content });
        }
        turns.iter().for_each(|turn| self.write(&mut prompt, *turn));
        if generation_prompt {
            self.open(&mut prompt, Role::Assistant);
        }
        prompt
    }

    fn open(&self, prompt: &mut String, role: Role) {
        prompt.extend([self.before_role, role.name(), self.after_role]);
    }

    fn write(&self, prompt: &mut String, turn: Turn) {
        self.open(prompt, turn.role);
        prompt.extend([turn.content, self.after_content]);
    }
}

/// Why a model's own template cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChatError {
    /// The key is not text.
    Metadata(GgufError),
    /// The file has none: probably it is a base model, which was never taught to chat.
    Missing,
    /// No row of [`TEMPLATES`] writes it.
    Unknown,
}

impl ChatError {
    /// What to chat with all the same.
    pub fn fall_back(&self) -> &'static Template {
        FALL_BACK
    }
}

impl fmt::Display for ChatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.fall_back().name;
        match self {
            Self::Metadata(error) => write!(f, "{error}: chatting with the template '{name}' instead"),
            Self::Missing => write!(
                f,
                "the model has no chat template and may never have learnt to chat: using '{name}', but completing text may suit it better"
            ),
            Self::Unknown => {
                write!(
                    f,
                    "the model's chat template is not one that is supported: using '{name}' instead (supported:"
                )?;
                TEMPLATES.iter().try_for_each(|template| write!(f, " {}", template.name))?;
                f.write_str("); answers may be odd")
            }
        }
    }
}

impl core::error::Error for ChatError {}

impl From<GgufError> for ChatError {
    fn from(error: GgufError) -> Self {
        Self::Metadata(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    const HELLO: Turn = Turn { role: Role::User, content: "Hello" };

    #[test]
    fn a_chat_that_does_not_begin_with_a_system_turn_gets_smollm2s() {
        let smollm2 = Template::named("smollm2").expect("a row");
        assert_eq!(
            smollm2.render(&[HELLO], true),
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
             <|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
        );
        let system = Turn { role: Role::System, content: "" };
        assert_eq!(
            smollm2.render(&[system, HELLO], false),
            "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
        );
        assert_eq!(smollm2.render(&[], true), "<|im_start|>assistant\n");
        assert_eq!(CHATML.render(&[HELLO], false), "<|im_start|>user\nHello<|im_end|>\n");
    }

    #[test]
    fn a_template_is_recognised_by_what_it_writes_and_an_unknown_one_falls_back_with_words() {
        let named = |program| Template::recognise(program).map(|template| template.name);
        assert_eq!(named("{{'<|im_start|>' + message['role'] + '<|im_end|>'}}"), Some("chatml"));
        assert_eq!(named("{{ '[INST] ' + message['content'] }}"), None);
        let words = ChatError::Unknown.to_string();
        assert!(words.contains("'chatml'") && words.contains("smollm2"), "{words}");
        assert_eq!(ChatError::Missing.fall_back().name, "chatml");
        assert_eq!(Template::from_metadata(&Metadata::default()), Err(ChatError::Missing));
    }
}
