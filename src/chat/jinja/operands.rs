//! Operands: the parser's part for expressions.

use super::error::{Error, What};
use super::lexer::Token;
use super::parser::Parser;
use super::syntax::{Arguments, Expression, Id, Operator};
use super::value::Value;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

/// How strongly operators bind, the weakest first.
const OR: u8 = 1;
const AND: u8 = 2;
const NOT: u8 = 3;
const COMPARE: u8 = 4;
const ADD: u8 = 5;
const CONCATENATE: u8 = 6;
const MULTIPLY: u8 = 7;
const POWER: u8 = 8;

/// Words that are no names of variables.
const WORDS: [&str; 9] = ["and", "or", "not", "in", "is", "if", "else", "elif", "recursive"];

fn operator(token: &Token) -> Option<(u8, Operator)> {
    use Operator as O;
    Some(match token {
        Token::Name(word) => match word.as_str() {
            "or" => (OR, O::Or),
            "and" => (AND, O::And),
            "in" => (COMPARE, O::In),
            _ => return None,
        },
        Token::Mark(mark) => match *mark {
            "==" => (COMPARE, O::Equal),
            "!=" => (COMPARE, O::Unequal),
            "<" => (COMPARE, O::Less),
            "<=" => (COMPARE, O::LessEqual),
            ">" => (COMPARE, O::Greater),
            ">=" => (COMPARE, O::GreaterEqual),
            "+" => (ADD, O::Add),
            "-" => (ADD, O::Subtract),
            "~" => (CONCATENATE, O::Concatenate),
            "*" => (MULTIPLY, O::Multiply),
            "/" => (MULTIPLY, O::Divide),
            "//" => (MULTIPLY, O::DivideWhole),
            "%" => (MULTIPLY, O::Remainder),
            "**" => (POWER, O::Power),
            _ => return None,
        },
        _ => return None,
    })
}

impl Parser {
    /// Expressions with commas between them; one alone is itself.
    pub(super) fn tuple(&mut self, with_choice: bool) -> Result<Id, Error> {
        let line = self.line();
        let item = |parser: &mut Self| if with_choice { parser.expression() } else { parser.binary(OR) };
        let first = item(self)?;
        if !self.is_mark(",") {
            return Ok(first);
        }
        let mut items = Vec::from([first]);
        while self.take_mark(",") {
            let ends = matches!(self.peek(), Some(Token::BlockEnd | Token::OutputEnd) | None);
            if ends || self.is_mark(")") || self.is_mark("]") || self.is_word("if") {
                break;
            }
            items.push(item(self)?);
        }
        Ok(self.expression_at(Expression::Tuple(items.into()), line))
    }

    /// Any expression without commas.
    pub(super) fn expression(&mut self) -> Result<Id, Error> {
        self.descend()?;
        let line = self.line();
        let mut value = self.binary(OR)?;
        while self.take_word("if") {
            let test = self.binary(OR)?;
            let otherwise = if self.take_word("else") { Some(self.expression()?) } else { None };
            value = self.expression_at(Expression::Choice { test, then: value, otherwise }, line);
        }
        self.ascend();
        Ok(value)
    }

    fn operator(&self) -> Option<(u8, Operator, usize)> {
        let token = self.peek()?;
        if self.is_word("not") && matches!(self.peek_at(1), Some(Token::Name(word)) if word == "in") {
            return Some((COMPARE, Operator::NotIn, 2));
        }
        operator(token).map(|(level, operator)| (level, operator, 1))
    }

    /// Operators that bind at least so strongly. Operands of one rank become one chain, so a long sum is not deep.
    fn binary(&mut self, least: u8) -> Result<Id, Error> {
        let line = self.line();
        let mut value = if least <= NOT && self.take_word("not") {
            self.descend()?;
            let value = self.binary(NOT)?;
            self.ascend();
            self.expression_at(Expression::Not(value), line)
        } else {
            self.unary(true)?
        };
        while let Some((level, ..)) = self.operator()
            && level >= least
        {
            let mut links = Vec::new();
            while let Some((next, operator, tokens)) = self.operator()
                && next == level
            {
                (0..tokens).for_each(|_| drop(self.next()));
                links.push((operator, self.binary(level + 1)?));
            }
            value = self.expression_at(Expression::Chain(value, links.into()), line);
        }
        Ok(value)
    }

    /// A sign binds stronger than a filter: `-1|abs` is 1.
    fn unary(&mut self, with_filters: bool) -> Result<Id, Error> {
        let line = self.line();
        let negative = self.is_mark("-");
        let mut value = if self.take_mark("-") || self.take_mark("+") {
            self.descend()?;
            let value = self.unary(false)?;
            self.ascend();
            let signed = if negative { Expression::Negative(value) } else { Expression::Positive(value) };
            self.expression_at(signed, line)
        } else {
            self.primary()?
        };
        value = self.postfix(value)?;
        loop {
            if !with_filters {
                break;
            } else if self.take_mark("|") {
                value = self.filter(value)?;
            } else if self.take_word("is") {
                value = self.test(value)?;
            } else if self.is_mark("(") {
                value = self.call(value)?;
            } else {
                break;
            }
        }
        Ok(value)
    }

    #[inline(never)]
    fn primary(&mut self) -> Result<Id, Error> {
        let line = self.line();
        let constant = match self.peek() {
            Some(Token::Name(name)) => match name.as_str() {
                "true" | "True" => Value::Bool(true),
                "false" | "False" => Value::Bool(false),
                "none" | "None" => Value::None,
                word if WORDS.contains(&word) => return Err(self.expected("an expression")),
                _ => {
                    let name = self.name()?;
                    return Ok(self.expression_at(Expression::Name(name), line));
                }
            },
            Some(Token::Quoted(_)) => {
                let mut text = String::new();
                while let Some(Token::Quoted(part)) = self.peek() {
                    text.push_str(part); // neighbours are one string
                    self.next();
                }
                return Ok(self.expression_at(Expression::Constant(text.into()), line));
            }
            Some(Token::Integer(number)) => Value::Integer(*number),
            Some(Token::Float(number)) => Value::Float(*number),
            Some(Token::Mark("(")) => {
                self.next();
                if self.take_mark(")") {
                    return Ok(self.expression_at(Expression::Tuple(Box::default()), line));
                }
                let value = self.tuple(true)?;
                self.want_mark(")")?;
                return Ok(value);
            }
            Some(Token::Mark("[")) => {
                self.next();
                let items = self.items("]")?;
                return Ok(self.expression_at(Expression::List(items), line));
            }
            Some(Token::Mark("{")) => return self.mapping(line),
            _ => return Err(self.expected("an expression")),
        };
        self.next();
        Ok(self.expression_at(Expression::Constant(constant), line))
    }

    fn items(&mut self, end: &'static str) -> Result<Box<[Id]>, Error> {
        let mut items = Vec::new();
        while !self.take_mark(end) {
            if !items.is_empty() {
                self.want_mark(",")?;
                if self.take_mark(end) {
                    break;
                }
            }
            items.push(self.expression()?);
        }
        Ok(items.into())
    }

    fn mapping(&mut self, line: u32) -> Result<Id, Error> {
        self.next();
        let mut entries = Vec::new();
        while !self.take_mark("}") {
            if !entries.is_empty() {
                self.want_mark(",")?;
                if self.take_mark("}") {
                    break;
                }
            }
            let key = self.expression()?;
            self.want_mark(":")?;
            entries.push((key, self.expression()?));
        }
        Ok(self.expression_at(Expression::Mapping(entries.into()), line))
    }

    /// Attributes, items and calls. They nest to the left, so their number is bounded, too.
    fn postfix(&mut self, mut value: Id) -> Result<Id, Error> {
        let mut levels = 0;
        loop {
            let line = self.line();
            if self.take_mark(".") {
                value = if let Some(Token::Integer(number)) = self.peek().cloned() {
                    self.next();
                    let index = self.expression_at(Expression::Constant(Value::Integer(number)), line);
                    self.expression_at(Expression::Item(value, index), line)
                } else {
                    let name = self.name()?;
                    self.expression_at(Expression::Attribute(value, name), line)
                };
            } else if self.is_mark("[") {
                value = self.subscript(value, line)?;
            } else if self.is_mark("(") {
                value = self.call(value)?;
            } else {
                (0..levels).for_each(|_| self.ascend());
                return Ok(value);
            }
            self.descend()?;
            levels += 1;
        }
    }

    fn subscript(&mut self, value: Id, line: u32) -> Result<Id, Error> {
        self.want_mark("[")?;
        let mut bounds = [None; 3];
        let mut colons = 0;
        while !self.is_mark("]") {
            if self.take_mark(":") {
                colons += 1;
                if colons > 2 {
                    return Err(self.expected("]"));
                }
                continue;
            }
            if bounds[colons].is_some() {
                return Err(self.expected("]"));
            }
            bounds[colons] = Some(self.tuple(true)?);
        }
        self.want_mark("]")?;
        let expression = match bounds {
            [Some(index), None, None] if colons == 0 => Expression::Item(value, index),
            _ if colons == 0 => return Err(self.expected("an expression")),
            bounds => Expression::Slice(value, bounds),
        };
        Ok(self.expression_at(expression, line))
    }

    fn call(&mut self, value: Id) -> Result<Id, Error> {
        let line = self.line();
        let arguments = self.arguments()?;
        Ok(self.expression_at(Expression::Call(value, arguments), line))
    }

    fn arguments(&mut self) -> Result<Arguments, Error> {
        self.want_mark("(")?;
        let (mut positional, mut named) = (Vec::new(), Vec::new());
        let mut first = true;
        while !self.take_mark(")") {
            if !core::mem::take(&mut first) {
                self.want_mark(",")?;
                if self.take_mark(")") {
                    break;
                }
            }
            if let Some(mark @ ("*" | "**")) =
                self.peek().and_then(|token| if let Token::Mark(mark) = token { Some(*mark) } else { None })
            {
                return Err(What::Unsupported { kind: "argument", name: mark.into() }.at(self.line()));
            }
            if matches!((self.peek(), self.peek_at(1)), (Some(Token::Name(_)), Some(Token::Mark("=")))) {
                let name = self.name()?;
                self.next();
                named.push((name, self.expression()?));
            } else if named.is_empty() {
                positional.push(self.expression()?);
            } else {
                return Err(self.expected("a named argument"));
            }
        }
        Ok(Arguments { positional: positional.into(), named: named.into() })
    }

    /// The name of a filter or test, which may have points in it.
    fn dotted(&mut self) -> Result<String, Error> {
        let symbol = self.name()?;
        let mut name = self.tree.names[symbol as usize].clone();
        while self.take_mark(".") {
            let symbol = self.name()?;
            name = alloc::format!("{name}.{}", self.tree.names[symbol as usize]);
        }
        Ok(name)
    }

    pub(super) fn filter(&mut self, value: Id) -> Result<Id, Error> {
        let line = self.line();
        let name = self.dotted()?;
        let name = self.symbol(&name);
        let arguments = if self.is_mark("(") { self.arguments()? } else { Arguments::default() };
        Ok(self.expression_at(Expression::Filter(value, name, arguments), line))
    }

    fn test(&mut self, value: Id) -> Result<Id, Error> {
        let line = self.line();
        let negated = self.take_word("not");
        let name = self.dotted()?;
        let name = self.symbol(&name);
        let arguments = if self.is_mark("(") {
            self.arguments()?
        } else {
            let begins = match self.peek() {
                Some(Token::Name(word)) => {
                    !["else", "or", "and", "is", "if", "in", "not"].contains(&word.as_str())
                }
                Some(Token::Quoted(_) | Token::Integer(_) | Token::Float(_) | Token::Mark("[" | "{")) => true,
                _ => false,
            };
            let mut arguments = Arguments::default();
            if begins {
                let argument = self.primary()?;
                arguments.positional = [self.postfix(argument)?].into();
            }
            arguments
        };
        let test = self.expression_at(Expression::Test(value, name, arguments), line);
        Ok(if negated { self.expression_at(Expression::Not(test), line) } else { test })
    }
}
