//! Jinja: the part of the template language that chat templates are written in.
//!
//! A GGUF file carries its template as a program, so it is read once ([`Program::parse`]) and run for every turn
//! ([`Program::render`]). It means what it means to Jinja2 as the transformers library sets it up: `trim_blocks`,
//! `lstrip_blocks`, loop controls, a sandbox in which nothing given can be changed, and the functions
//! `raise_exception` and `strftime_now`.
//!
//! Left out: inheritance, includes, recursive loops, `%` on strings, formats of numbers, Markup. A template that needs
//! them is refused with its line. One that would not end, or would need too much memory or stack, is stopped.

mod call;
mod compute;
mod date;
mod error;
mod evaluate;
mod filters;
mod lexer;
mod methods;
mod operands;
mod parser;
mod predicates;
mod print;
mod syntax;
#[cfg(test)]
mod tests;
mod value;

pub use date::Date;
pub use error::{Error, What};
pub use value::Value;

use alloc::string::String;

/// A template that was read.
#[derive(Clone, Debug)]
pub struct Program {
    tree: syntax::Tree,
}

impl Program {
    /// Reads a template.
    pub fn parse(source: &str) -> Result<Self, Error> {
        parser::parse(source).map(|tree| Self { tree })
    }

    /// Whether the template uses a variable, filter or attribute of this name.
    pub fn mentions(&self, name: &str) -> bool {
        self.tree.names.iter().any(|known| known == name)
    }

    /// Runs it with these variables. Without a date, `strftime_now` is not defined, but still answers with
    /// [`Date::DEFAULT`] for those who do not ask.
    pub fn render(&self, given: &[(&str, Value)], date: Option<Date>) -> Result<String, Error> {
        let length = given.iter().map(|(_, value)| value.bytes() as usize).sum();
        evaluate::Evaluator::new(&self.tree, given, date, length).run()
    }
}
