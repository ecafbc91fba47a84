//! Syntax: a template as a tree. Branches are numbers into two tables, so nothing recurses to build or to drop it.

use super::value::Value;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

/// A name of the template, by its number in [`Tree::names`].
pub type Symbol = u32;
/// An expression, by its number.
pub type Id = u32;
/// Statements, by their numbers.
pub type Body = Box<[u32]>;

/// A whole template.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Expressions and their lines.
    pub expressions: Vec<(Expression, u32)>,
    /// Statements and their lines.
    pub statements: Vec<(Statement, u32)>,
    /// Names.
    pub names: Vec<String>,
    /// What is run.
    pub body: Body,
}

/// What stands between two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // each is its sign
pub enum Operator {
    Or,
    And,
    Equal,
    Unequal,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    NotIn,
    Add,
    Subtract,
    Concatenate,
    Multiply,
    Divide,
    DivideWhole,
    Remainder,
    Power,
}

/// Arguments of a call, a filter or a test.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// In order.
    pub positional: Box<[Id]>,
    /// `name=value`.
    pub named: Box<[(Symbol, Id)]>,
}

/// Something with a value.
#[derive(Clone, Debug)]
pub enum Expression {
    /// A literal.
    Constant(Value),
    /// A variable.
    Name(Symbol),
    /// `[a, b]`
    List(Box<[Id]>),
    /// `a, b`
    Tuple(Box<[Id]>),
    /// `{a: b}`
    Mapping(Box<[(Id, Id)]>),
    /// `not a`
    Not(Id),
    /// `-a`
    Negative(Id),
    /// `+a`
    Positive(Id),
    /// Operands with operators of one rank, from the left; comparisons are chained as in Python.
    Chain(Id, Box<[(Operator, Id)]>),
    /// `then if test else otherwise`
    Choice { test: Id, then: Id, otherwise: Option<Id> },
    /// `a.b`
    Attribute(Id, Symbol),
    /// `a[b]`
    Item(Id, Id),
    /// `a[start:stop:step]`
    Slice(Id, [Option<Id>; 3]),
    /// `a(…)`
    Call(Id, Arguments),
    /// `a | filter(…)`
    Filter(Id, Symbol, Arguments),
    /// `a is test(…)`
    Test(Id, Symbol, Arguments),
    /// The text that a block has just put out: what its filters begin with.
    Captured,
}

/// What a value is put into.
#[derive(Clone, Debug)]
pub enum Target {
    /// A variable.
    Name(Symbol),
    /// An attribute of a namespace.
    Attribute(Symbol, Symbol),
    /// As many variables as there are values.
    Several(Box<[Symbol]>),
}

/// What a macro takes: names, and values for those left out.
pub type Parameters = Box<[(Symbol, Option<Id>)]>;

/// Something that is done.
#[derive(Clone, Debug)]
pub enum Statement {
    /// Text as it stands.
    Text(String),
    /// `{{ … }}`
    Output(Id),
    /// `if`, any number of `elif`, `else`
    If { arms: Box<[(Id, Body)]>, otherwise: Body },
    /// `for`, with the condition after `if`, and `else` for when there was nothing
    For { target: Target, items: Id, condition: Option<Id>, body: Body, otherwise: Body },
    /// `set x = …`
    Set { target: Target, value: Id },
    /// `set x` … `endset`; the value is made of what the body put out.
    SetBlock { target: Target, body: Body, value: Id },
    /// `filter` … `endfilter`, likewise
    Filter { body: Body, value: Id },
    /// `macro`
    Macro { name: Symbol, parameters: Parameters, body: Body },
    /// `call`: the body is the macro `caller` of the macro that is called.
    Call { call: Id, parameters: Parameters, body: Body },
    /// `with`, or `generation`, which only marks what the model has said
    Scope { set: Box<[(Symbol, Id)]>, body: Body },
    /// `break`
    Break,
    /// `continue`
    Continue,
}
