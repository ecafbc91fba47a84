//! Parser: tokens to a tree. Statements here, expressions in `operands.rs`.

use super::error::{Error, What};
use super::lexer::{self, Token};
use super::syntax::{Body, Expression, Id, Parameters, Statement, Symbol, Target, Tree};
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Bytes a template may have; the longest known has a ninth of it.
const LENGTH: usize = 192 << 10;
/// Blocks within blocks, brackets within brackets.
const DEPTH: usize = 50;
/// Different names, which are looked for one after the other.
const NAMES: usize = 4096;
/// Statements of Jinja that a chat template has no use for.
const UNSUPPORTED: [&str; 9] =
    ["block", "extends", "include", "import", "from", "autoescape", "trans", "do", "debug"];

/// Where parsing is.
pub struct Parser {
    tokens: Vec<(Token, u32)>,
    at: usize,
    depth: usize,
    pub(super) tree: Tree,
}

/// Reads a template.
pub fn parse(source: &str) -> Result<Tree, Error> {
    if source.len() > LENGTH {
        return Err(What::Limit { what: "192 KiB of template" }.at(1));
    }
    let mut parser = Parser { tokens: lexer::lex(source)?, at: 0, depth: 0, tree: Tree::default() };
    let (body, _) = parser.body(&[])?;
    parser.tree.body = body;
    Ok(parser.tree)
}

impl Parser {
    pub(super) fn line(&self) -> u32 {
        let token = self.tokens.get(self.at).or(self.tokens.last());
        token.map_or(1, |(_, line)| *line)
    }
    pub(super) fn peek(&self) -> Option<&Token> {
        self.peek_at(0)
    }
    pub(super) fn peek_at(&self, ahead: usize) -> Option<&Token> {
        self.tokens.get(self.at + ahead).map(|(token, _)| token)
    }
    pub(super) fn next(&mut self) -> Option<Token> {
        let token = self.peek().cloned();
        self.at += usize::from(token.is_some());
        token
    }
    pub(super) fn is_mark(&self, mark: &str) -> bool {
        matches!(self.peek(), Some(Token::Mark(found)) if *found == mark)
    }
    pub(super) fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Token::Name(found)) if found == word)
    }
    pub(super) fn take_mark(&mut self, mark: &str) -> bool {
        let found = self.is_mark(mark);
        self.at += usize::from(found);
        found
    }
    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.at += usize::from(found);
        found
    }
    pub(super) fn want_mark(&mut self, mark: &'static str) -> Result<(), Error> {
        if self.take_mark(mark) { Ok(()) } else { Err(self.expected(mark)) }
    }
    fn want_end(&mut self) -> Result<(), Error> {
        match self.next() {
            Some(Token::BlockEnd) => Ok(()),
            _ => {
                self.at -= 1;
                Err(self.expected("%}"))
            }
        }
    }

    /// The error that something else should be here.
    pub(super) fn expected(&self, expected: &'static str) -> Error {
        let found = match self.peek() {
            None => "the end of the template".into(),
            Some(Token::Text(_)) => "text".into(),
            Some(Token::OutputBegin) => "{{".into(),
            Some(Token::OutputEnd) => "}}".into(),
            Some(Token::BlockBegin) => "{%".into(),
            Some(Token::BlockEnd) => "%}".into(),
            Some(Token::Name(name)) => name.clone(),
            Some(Token::Quoted(text)) => alloc::format!("{text:?}"),
            Some(Token::Integer(number)) => number.to_string(),
            Some(Token::Float(number)) => number.to_string(),
            Some(Token::Mark(mark)) => (*mark).into(),
        };
        What::Syntax { expected, found }.at(self.line())
    }

    /// Goes a level deeper; `ascend` when back.
    pub(super) fn descend(&mut self) -> Result<(), Error> {
        self.depth += 1;
        let limit = What::Limit { what: "50 brackets or blocks within each other" };
        if self.depth > DEPTH { Err(limit.at(self.line())) } else { Ok(()) }
    }
    pub(super) fn ascend(&mut self) {
        self.depth -= 1;
    }

    pub(super) fn symbol(&mut self, name: &str) -> Symbol {
        let known = self.tree.names.iter().position(|known| known == name);
        known.unwrap_or_else(|| {
            self.tree.names.push(name.into());
            self.tree.names.len() - 1
        }) as Symbol
    }
    pub(super) fn name(&mut self) -> Result<Symbol, Error> {
        let Some(Token::Name(name)) = self.peek().cloned() else { return Err(self.expected("a name")) };
        self.at += 1;
        if self.tree.names.len() > NAMES {
            return Err(What::Limit { what: "4096 different names" }.at(self.line()));
        }
        Ok(self.symbol(&name))
    }

    pub(super) fn expression_at(&mut self, expression: Expression, line: u32) -> Id {
        self.tree.expressions.push((expression, line));
        (self.tree.expressions.len() - 1) as Id
    }

    /// Statements up to one of the words of `ends`, which is taken, or to the end of the template.
    fn body(&mut self, ends: &[&'static str]) -> Result<(Body, &'static str), Error> {
        self.descend()?;
        let mut body = Vec::new();
        loop {
            let line = self.line();
            let statement = match self.next() {
                None if ends.is_empty() => break,
                None => {
                    let what = ends.last().and_then(|end| end.strip_prefix("end")).unwrap_or("a block");
                    return Err(What::Unclosed { what }.at(line));
                }
                Some(Token::Text(text)) => Statement::Text(text),
                Some(Token::OutputBegin) => {
                    let value = self.tuple(true)?;
                    match self.next() {
                        Some(Token::OutputEnd) => Statement::Output(value),
                        _ => {
                            self.at -= 1;
                            return Err(self.expected("}}"));
                        }
                    }
                }
                _ => {
                    let Some(Token::Name(word)) = self.next() else {
                        self.at -= 1;
                        return Err(self.expected("a statement"));
                    };
                    if let Some(end) = ends.iter().find(|end| **end == word) {
                        self.ascend();
                        return Ok((body.into(), end));
                    }
                    self.statement(&word, line)?
                }
            };
            self.tree.statements.push((statement, line));
            body.push((self.tree.statements.len() - 1) as u32);
        }
        self.ascend();
        Ok((body.into(), ""))
    }

    /// A body that has just one end, and the end itself.
    fn body_to(&mut self, end: &'static str) -> Result<Body, Error> {
        let (body, _) = self.body(&[end])?;
        self.want_end()?;
        Ok(body)
    }

    #[inline(never)]
    fn statement(&mut self, word: &str, line: u32) -> Result<Statement, Error> {
        match word {
            "if" => self.branches(),
            "for" => self.repeat(),
            "set" => self.set(line),
            "macro" => {
                let name = self.name()?;
                let parameters = self.parameters()?;
                self.want_end()?;
                Ok(Statement::Macro { name, parameters, body: self.body_to("endmacro")? })
            }
            "call" => {
                let parameters = if self.is_mark("(") { self.parameters()? } else { Parameters::default() };
                let call = self.expression()?;
                if !matches!(self.tree.expressions[call as usize].0, Expression::Call(..)) {
                    return Err(self.expected("a call"));
                }
                self.want_end()?;
                Ok(Statement::Call { call, parameters, body: self.body_to("endcall")? })
            }
            "filter" => {
                let text = self.expression_at(Expression::Captured, line);
                let mut value = self.filter(text)?;
                while self.take_mark("|") {
                    value = self.filter(value)?;
                }
                self.want_end()?;
                Ok(Statement::Filter { body: self.body_to("endfilter")?, value })
            }
            "with" => {
                let mut set = Vec::new();
                while !matches!(self.peek(), Some(Token::BlockEnd)) {
                    if !set.is_empty() {
                        self.want_mark(",")?;
                    }
                    let name = self.name()?;
                    self.want_mark("=")?;
                    set.push((name, self.expression()?));
                }
                self.want_end()?;
                Ok(Statement::Scope { set: set.into(), body: self.body_to("endwith")? })
            }
            "generation" => {
                self.want_end()?;
                Ok(Statement::Scope { set: Box::default(), body: self.body_to("endgeneration")? })
            }
            "break" | "continue" => {
                self.want_end()?;
                Ok(if word == "break" { Statement::Break } else { Statement::Continue })
            }
            _ => {
                let name = String::from(word);
                Err(match UNSUPPORTED.contains(&word) {
                    true => What::Unsupported { kind: "statement", name },
                    false => What::Syntax { expected: "a statement", found: name },
                }
                .at(line))
            }
        }
    }

    fn branches(&mut self) -> Result<Statement, Error> {
        let mut arms = Vec::new();
        let mut otherwise = Body::default();
        loop {
            let test = self.tuple(true)?;
            self.want_end()?;
            let (body, end) = self.body(&["elif", "else", "endif"])?;
            arms.push((test, body));
            match end {
                "elif" => continue,
                "else" => {
                    self.want_end()?;
                    otherwise = self.body_to("endif")?;
                }
                _ => self.want_end()?,
            }
            return Ok(Statement::If { arms: arms.into(), otherwise });
        }
    }

    fn repeat(&mut self) -> Result<Statement, Error> {
        let target = self.target()?;
        if matches!(target, Target::Attribute(..)) || !self.take_word("in") {
            return Err(self.expected("in"));
        }
        let items = self.tuple(false)?;
        let condition = if self.take_word("if") { Some(self.expression()?) } else { None };
        if self.is_word("recursive") {
            return Err(What::Unsupported { kind: "kind of loop", name: "recursive".into() }.at(self.line()));
        }
        self.want_end()?;
        let (body, end) = self.body(&["else", "endfor"])?;
        self.want_end()?;
        let otherwise = if end == "else" { self.body_to("endfor")? } else { Body::default() };
        Ok(Statement::For { target, items, condition, body, otherwise })
    }

    fn set(&mut self, line: u32) -> Result<Statement, Error> {
        let target = self.target()?;
        if self.take_mark("=") {
            let value = self.tuple(true)?;
            self.want_end()?;
            return Ok(Statement::Set { target, value });
        }
        let mut value = self.expression_at(Expression::Captured, line);
        while self.take_mark("|") {
            value = self.filter(value)?;
        }
        if matches!(target, Target::Several(_)) || !matches!(self.peek(), Some(Token::BlockEnd)) {
            return Err(self.expected("="));
        }
        self.want_end()?;
        Ok(Statement::SetBlock { target, body: self.body_to("endset")?, value })
    }

    /// `a`, `a.b`, or `a, b` with or without parentheses.
    fn target(&mut self) -> Result<Target, Error> {
        let open = self.take_mark("(");
        let first = self.name()?;
        if !open && self.take_mark(".") {
            return Ok(Target::Attribute(first, self.name()?));
        }
        let mut names = Vec::from([first]);
        let mut several = false;
        while self.take_mark(",") {
            several = true;
            if !matches!(self.peek(), Some(Token::Name(name)) if name != "in") {
                break;
            }
            names.push(self.name()?);
        }
        if open {
            self.want_mark(")")?;
        }
        Ok(if several { Target::Several(names.into()) } else { Target::Name(first) })
    }

    fn parameters(&mut self) -> Result<Parameters, Error> {
        self.want_mark("(")?;
        let mut parameters = Vec::new();
        while !self.take_mark(")") {
            if !parameters.is_empty() {
                self.want_mark(",")?;
            }
            let name = self.name()?;
            let default = if self.take_mark("=") { Some(self.expression()?) } else { None };
            parameters.push((name, default));
        }
        Ok(parameters.into())
    }
}
