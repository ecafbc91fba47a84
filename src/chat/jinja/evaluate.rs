//! Evaluate: runs the statements of a template. Variables live in scopes as Jinja2 has them.
//!
//! Whatever a template says, it ends: steps, bytes made and depth are counted.

use super::date::Date;
use super::error::{Error, What};
use super::print;
use super::syntax::{Body, Id, Parameters, Statement, Symbol, Target, Tree};
use super::value::{Function, Value};
use alloc::string::String;
use alloc::vec::Vec;

/// Expressions and statements that may be run.
const STEPS: u32 = 2_000_000;
/// Bytes of values that may be made, beyond [`SHARE`] for each byte of the conversation.
const BYTES: usize = 8 << 20;
/// A template copies what was said, some of them several times over.
const SHARE: usize = 64;
/// Statements and expressions within each other, macros that call macros included. A level takes up to 1 KiB of
/// stack (`tests::the_deepest_template_needs_little_stack`); a core of the board has 480 KiB.
const DEPTH: u32 = 150;

/// What a statement does to the loop around it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    On,
    Break,
    Continue,
}

/// Names and what they stand for.
pub type Scope = Vec<(Symbol, Value)>;

/// A macro, or the body of a `call`.
#[derive(Clone, Copy)]
pub struct Macro<'t> {
    pub name: Option<Symbol>,
    pub parameters: &'t Parameters,
    pub body: &'t Body,
    /// Scopes that it can see.
    pub depth: usize,
}

/// A loop that is running.
pub struct Loop {
    pub items: Vec<Value>,
    pub index: usize,
    /// What `loop.changed` was last asked about.
    pub last: Option<Vec<Value>>,
}

/// A template while it is rendered.
pub struct Evaluator<'t> {
    pub tree: &'t Tree,
    pub date: Option<Date>,
    pub scopes: Vec<Scope>,
    pub namespaces: Vec<Scope>,
    pub macros: Vec<Macro<'t>>,
    pub loops: Vec<Loop>,
    pub captured: Value,
    /// The name `loop`, if the template uses it.
    name_loop: Option<Symbol>,
    pub name_caller: Option<Symbol>,
    out: String,
    steps: u32,
    bytes: usize,
    depth: u32,
}

impl<'t> Evaluator<'t> {
    /// Ready to run with these variables. `length` is how many bytes they come from.
    pub fn new(tree: &'t Tree, given: &[(&str, Value)], date: Option<Date>, length: usize) -> Self {
        let symbol =
            |name: &str| tree.names.iter().position(|known| known == name).map(|symbol| symbol as Symbol);
        let scope = given.iter().filter_map(|(name, value)| Some((symbol(name)?, value.clone()))).collect();
        Self {
            tree,
            date,
            scopes: Vec::from([scope]),
            namespaces: Vec::new(),
            macros: Vec::new(),
            loops: Vec::new(),
            captured: Value::Undefined,
            name_loop: symbol("loop"),
            name_caller: symbol("caller"),
            out: String::new(),
            steps: STEPS,
            bytes: BYTES.saturating_add(length.saturating_mul(SHARE)),
            depth: 0,
        }
    }

    /// Runs it all.
    pub fn run(mut self) -> Result<String, Error> {
        let tree = self.tree;
        self.body(&tree.body)?;
        Ok(self.out)
    }

    /// Counts the making of so many bytes.
    pub fn spend(&mut self, bytes: usize) -> Result<(), What> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or(What::Limit { what: "memory" })?;
        Ok(())
    }

    /// One step, one level deeper. The caller goes up again.
    pub fn descend(&mut self) -> Result<(), What> {
        self.steps = self.steps.checked_sub(1).ok_or(What::Limit { what: "2000000 steps" })?;
        self.depth += 1;
        if self.depth > DEPTH { Err(What::Limit { what: "150 levels of depth" }) } else { Ok(()) }
    }
    pub fn ascend(&mut self) {
        self.depth -= 1;
    }

    pub fn name(&self, symbol: Symbol) -> &'t str {
        &self.tree.names[symbol as usize]
    }

    /// What a name stands for.
    pub fn look_up(&self, name: Symbol) -> Value {
        let mut scopes = self.scopes.iter().rev();
        let found = scopes.find_map(|scope| scope.iter().find(|(known, _)| *known == name));
        found.map_or_else(
            || match Function::named(self.name(name)) {
                // Templates ask for it, and have a date of their own where there is no clock.
                Some(Function::StrftimeNow) if self.date.is_none() => Value::Undefined,
                function => function.map_or(Value::Undefined, Value::Function),
            },
            |(_, value)| value.clone(),
        )
    }

    pub fn set_in(scope: &mut Scope, name: Symbol, value: Value) {
        match scope.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => scope.push((name, value)),
        }
    }

    /// Sets a variable of the innermost scope.
    pub fn set(&mut self, name: Symbol, value: Value) {
        if let Some(scope) = self.scopes.last_mut() {
            Self::set_in(scope, name, value);
        }
    }

    #[inline(never)]
    fn assign(&mut self, target: &Target, value: Value) -> Result<(), What> {
        match target {
            Target::Name(name) => self.set(*name, value),
            Target::Attribute(space, name) => {
                let found = self.look_up(*space);
                let Value::Namespace(space) = found else {
                    return Err(What::Kind { operation: "set an attribute of", value: found.kind() });
                };
                Self::set_in(&mut self.namespaces[space], *name, value);
            }
            Target::Several(names) => {
                let items = value.items()?;
                if items.len() != names.len() {
                    return Err(What::Kind { operation: "share out among these names", value: value.kind() });
                }
                for (name, item) in names.iter().zip(items) {
                    self.set(*name, item);
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, text: &str) -> Result<(), What> {
        self.spend(text.len())?;
        self.out.push_str(text);
        Ok(())
    }

    /// Runs statements one after the other.
    pub fn body(&mut self, body: &'t Body) -> Result<Flow, Error> {
        for statement in body {
            let (statement, line) = &self.tree.statements[*statement as usize];
            self.descend().map_err(|what| what.at(*line))?;
            let flow = match statement {
                Statement::Text(text) => self.put(text).map_err(|what| what.at(*line)).map(|()| Flow::On),
                Statement::Output(value) => self.output(*value, *line),
                Statement::If { arms, otherwise } => self.branches(arms, otherwise),
                Statement::For { target, items, condition, body, otherwise } => {
                    self.repeat(target, *items, *condition, body, otherwise, *line)
                }
                Statement::Break => Ok(Flow::Break),
                Statement::Continue => Ok(Flow::Continue),
                statement => self.other(statement, *line),
            }?;
            self.ascend();
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    #[inline(never)]
    fn output(&mut self, value: Id, line: u32) -> Result<Flow, Error> {
        let value = self.expression(value)?;
        let put = match &value {
            Value::Text(text) => self.put(text),
            value => self.spend(value.bytes() as usize).and_then(|()| self.put(&print::text(value))),
        };
        put.map_err(|what| what.at(line)).map(|()| Flow::On)
    }

    fn branches(&mut self, arms: &'t [(Id, Body)], otherwise: &'t Body) -> Result<Flow, Error> {
        for (test, body) in arms {
            if self.expression(*test)?.is_true() {
                return self.body(body);
            }
        }
        self.body(otherwise)
    }

    #[inline(never)]
    fn repeat(
        &mut self,
        target: &'t Target,
        items: Id,
        condition: Option<Id>,
        body: &'t Body,
        otherwise: &'t Body,
        line: u32,
    ) -> Result<Flow, Error> {
        let at = |what: What| what.at(line);
        let walked = self.expression(items)?;
        let mut items = self.walk(&walked).map_err(at)?;
        drop(walked);
        if let Some(condition) = condition {
            let mut kept = Vec::new();
            for item in items {
                self.scopes.push(Scope::new());
                self.assign(target, item.clone()).map_err(at)?;
                if self.expression(condition)?.is_true() {
                    kept.push(item);
                }
                self.scopes.pop();
            }
            items = kept;
        }
        if items.is_empty() {
            self.scopes.push(Scope::new());
            let flow = self.body(otherwise)?;
            self.scopes.pop();
            return Ok(flow);
        }
        let count = items.len();
        let number = self.loops.len();
        self.loops.push(Loop { items, index: 0, last: None });
        for index in 0..count {
            self.descend().map_err(at)?;
            let running = &mut self.loops[number];
            running.index = index;
            let item = running.items[index].clone();
            let mut scope = Scope::new();
            scope.extend(self.name_loop.map(|name| (name, Value::Loop(number))));
            self.scopes.push(scope);
            self.assign(target, item).map_err(at)?;
            let flow = self.body(body)?;
            self.scopes.pop();
            self.ascend();
            if flow == Flow::Break {
                break;
            }
        }
        self.loops.truncate(number);
        Ok(Flow::On)
    }

    /// The items of a value, paid for.
    pub fn walk(&mut self, value: &Value) -> Result<Vec<Value>, What> {
        let each = size_of::<Value>() + if value.text().is_some() { 16 } else { 0 };
        self.spend(value.length().map_or(value.bytes() as usize, |length| length) * each)?;
        value.items()
    }

    /// What a body puts out, in a scope of its own, as text.
    pub fn capture(&mut self, scope: Scope, body: &'t Body) -> Result<(String, Flow), Error> {
        let before = core::mem::take(&mut self.out);
        self.scopes.push(scope);
        let flow = self.body(body)?;
        self.scopes.pop();
        Ok((core::mem::replace(&mut self.out, before), flow))
    }

    #[inline(never)]
    fn other(&mut self, statement: &'t Statement, line: u32) -> Result<Flow, Error> {
        let at = |what: What| what.at(line);
        match statement {
            Statement::Set { target, value } => {
                let value = self.expression(*value)?;
                self.assign(target, value).map_err(at)?;
            }
            Statement::SetBlock { target, body, value } => {
                let (text, flow) = self.capture(Scope::new(), body)?;
                self.captured = text.into();
                let value = self.expression(*value)?;
                self.assign(target, value).map_err(at)?;
                return Ok(flow);
            }
            Statement::Filter { body, value } => {
                let (text, flow) = self.capture(Scope::new(), body)?;
                self.captured = text.into();
                self.output(*value, line)?;
                return Ok(flow);
            }
            Statement::Macro { name, parameters, body } => {
                let value = self.define(Some(*name), parameters, body).map_err(at)?;
                self.set(*name, value);
            }
            Statement::Call { call, parameters, body } => {
                let caller = self.define(None, parameters, body).map_err(at)?;
                let value = self.call(*call, Some(caller))?;
                self.put(&print::text(&value)).map_err(at)?;
            }
            Statement::Scope { set, body } => {
                let mut scope = Scope::new();
                for (name, value) in set {
                    let value = self.expression(*value)?;
                    Self::set_in(&mut scope, *name, value);
                }
                self.scopes.push(scope);
                let flow = self.body(body)?;
                self.scopes.pop();
                return Ok(flow);
            }
            _ => {}
        }
        Ok(Flow::On)
    }

    fn define(
        &mut self,
        name: Option<Symbol>,
        parameters: &'t Parameters,
        body: &'t Body,
    ) -> Result<Value, What> {
        self.spend(size_of::<Macro>())?;
        self.macros.push(Macro { name, parameters, body, depth: self.scopes.len() });
        Ok(Value::Macro(self.macros.len() - 1))
    }
}
