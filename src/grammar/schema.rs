//! JSON schemas: a grammar for the values that a schema describes, in GBNF.
//!
//! The part of JSON Schema that llama.cpp converts: `type` (one or several), `properties`, `required`,
//! `additionalProperties`, `items`, `prefixItems`, `minItems`, `maxItems`, `enum`, `const`, `anyOf`, `oneOf`, `allOf` of
//! objects or of one schema, `$ref` into the same text, `minLength`, `maxLength`, `pattern`, `format` (date, time, date-time, uuid), bounds
//! of integers. As there, properties come in the order of the schema, required ones first; without
//! `additionalProperties` an object has only those named; `oneOf` is `anyOf`. What else a schema asks for is not enforced,
//! and told; what contradicts itself is an error.
//!
//! Rules are written one after the other from a list of what is still to be written, so nested schemas need no recursion.

use super::integers;
use super::json::{Json, JsonError, quote};
use super::pattern;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Write};

/// Rules that every grammar gets.
const BASE: &str = r#"value ::= object | array | string | number | boolean | null
object ::= "{" space ( string ":" space value ( "," space string ":" space value )* )? space "}"
array ::= "[" space ( value ( "," space value )* )? space "]"
string ::= "\"" char* "\""
char ::= [^"\\\x7F\x00-\x1F] | escape
escape ::= [\\] ( ["\\bfnrt] | "u" [0-9a-fA-F]{4} )
number ::= "-"? integral ( "." [0-9]{1,16} )? ( [eE] [-+]? integral )?
integer ::= "-"? integral
integral ::= [0] | [1-9] [0-9]{0,15}
boolean ::= "true" | "false"
null ::= "null"
date ::= [0-9]{4} "-" ( "0" [1-9] | "1" [0-2] ) "-" ( "0" [1-9] | [12] [0-9] | "3" [01] )
time ::= ( [01] [0-9] | "2" [0-3] ) ":" [0-5] [0-9] ":" [0-5] [0-9] ( "." [0-9]{3} )? ( "Z" | [-+] ( [01] [0-9] | "2" [0-3] ) ":" [0-5] [0-9] )
date-text ::= "\"" date "\""
time-text ::= "\"" time "\""
date-time-text ::= "\"" date "T" time "\""
uuid-text ::= "\"" [0-9a-fA-F]{8} ( "-" [0-9a-fA-F]{4} ){3} "-" [0-9a-fA-F]{12} "\""
space ::= | " " | "\n"{1,2} [ \t]{0,20}
"#;

/// What may stand in a JSON text as it is, as the end of a class.
pub(super) const NOT_PLAIN: &str = r#""\\\x7F\x00-\x1F"#;

/// Keywords that mean nothing for what a text may be, or are looked at where they belong.
const KNOWN: [&str; 29] = [
    "$schema",
    "$id",
    "$defs",
    "definitions",
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "$ref",
    "type",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
    "enum",
    "const",
    "anyOf",
    "oneOf",
    "allOf",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "readOnly",
    "deprecated",
];
/// Keywords that ask for something.
const ASKING: [&str; 17] = [
    "type",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
    "enum",
    "const",
    "anyOf",
    "oneOf",
    "allOf",
    "minLength",
    "maxLength",
    "pattern",
    "format",
];
const INTEGER_BOUNDS: [&str; 4] = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"];

/// References that are followed one after the other, or parts of one object: more are a circle.
const MOST_REFERENCES: usize = 1000;

/// A schema as a grammar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// The grammar, in GBNF.
    pub grammar: String,
    /// Keywords of the schema that are not enforced.
    pub ignored: Vec<String>,
}

/// Why a schema can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaError {
    /// It is not JSON.
    Json(JsonError),
    /// At this place of it, something is not as it should be.
    Wrong {
        /// The way there, as in `#/properties/name`.
        path: String,
        /// What it should be.
        what: &'static str,
    },
    /// A `$ref` that leads nowhere.
    Reference(String),
    /// A member that has to be there and is not among those that may be.
    Required {
        /// The way there.
        path: String,
        /// The member's name.
        name: String,
    },
    /// A `$ref` that leads back to itself.
    Circle(String),
    /// A pattern that no grammar is written for, and what in it.
    Pattern(String, &'static str),
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(error) => error.fmt(f),
            Self::Wrong { path, what } => write!(f, "the schema at {path}: {what}"),
            Self::Reference(name) => {
                write!(
                    f,
                    "the schema has a $ref to {name}, which leads nowhere in it: it takes #/… of the same text"
                )
            }
            Self::Required { path, name } => write!(
                f,
                "the schema at {path} requires `{name}`, which is not among its properties: name it there, or allow \
                 additionalProperties"
            ),
            Self::Circle(name) => {
                write!(
                    f,
                    "the schema has a $ref to {name}, which leads back to itself: no value is described"
                )
            }
            Self::Pattern(pattern, what) => write!(f, "the pattern {pattern} can't be followed: {what}"),
        }
    }
}

impl core::error::Error for SchemaError {}

type Made<T> = Result<T, SchemaError>;

/// The grammar of a JSON schema.
pub fn from_schema(text: &str) -> Made<Schema> {
    let root = Json::parse(text).map_err(SchemaError::Json)?;
    let mut writer = Writer {
        root: &root,
        names: BASE.lines().filter_map(|line| line.split_once(" ::=")).map(|(name, _)| name.into()).collect(),
        references: BTreeMap::new(),
        todo: Vec::new(),
        ignored: BTreeSet::new(),
        out: String::new(),
    };
    writer.names.insert("root".into());
    writer.todo.push(Todo { schema: &root, kind: None, rule: "root".into(), path: "#".into() });
    while let Some(todo) = writer.todo.pop() {
        let body = writer.body(&todo)?;
        writer.rule(&todo.rule, &body);
    }
    writer.out.push_str(BASE);
    Ok(Schema { grammar: writer.out, ignored: writer.ignored.into_iter().collect() })
}

/// A schema whose rule has a name and no body yet.
struct Todo<'s> {
    schema: &'s Json,
    /// The one of several types that this rule is for.
    kind: Option<&'s str>,
    rule: String,
    path: String,
}

struct Writer<'s> {
    root: &'s Json,
    names: BTreeSet<String>,
    /// Rules of what `$ref` leads to.
    references: BTreeMap<String, String>,
    todo: Vec<Todo<'s>>,
    ignored: BTreeSet<String>,
    out: String,
}

/// A text of a grammar.
pub(super) fn literal(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A value as a text of a grammar.
fn value(json: &Json) -> String {
    let mut text = String::new();
    json.write(&mut text);
    literal(&text)
}

/// Whether a value is of a type.
fn is(value: &Json, kind: &str) -> bool {
    match value {
        Json::Null => kind == "null",
        Json::Bool(_) => kind == "boolean",
        Json::Number(number) => {
            kind == "number"
                || kind == "integer"
                    && number.parse::<f64>().is_ok_and(|number| number == libm::trunc(number))
        }
        Json::Text(_) => kind == "string",
        Json::Array(_) => kind == "array",
        Json::Object(_) => kind == "object",
    }
}

/// A character as part of a class.
pub(super) fn in_class(c: char) -> String {
    if c.is_ascii_alphanumeric() { c.into() } else { format!("\\U{:08X}", u32::from(c)) }
}

/// `thing`, `least` to `most` times, with something between.
fn repeated(thing: &str, least: u64, most: Option<u64>, between: &str) -> String {
    let times = |least: u64, most: Option<u64>| {
        format!("{{{least},{}}}", most.map_or(String::new(), |most| most.to_string()))
    };
    match most {
        Some(0) => String::new(),
        _ if between.is_empty() => format!("{thing}{}", times(least, most)),
        _ => {
            let more = times(least.saturating_sub(1), most.map(|most| most - 1));
            let list = format!("{thing} ( {between} {thing} ){more}");
            if least == 0 { format!("( {list} )?") } else { list }
        }
    }
}

impl<'s> Writer<'s> {
    fn rule(&mut self, name: &str, body: &str) {
        let _ = writeln!(self.out, "{name} ::= {body}");
    }

    /// A name that no rule has, from one that says what it is for.
    fn name(&mut self, wish: &str) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let wish: String = wish.chars().take(64).map(plain).collect();
        let mut name = wish.clone();
        let mut number = 1;
        while name.is_empty() || self.names.contains(&name) {
            number += 1;
            name = format!("{wish}-{number}");
        }
        self.names.insert(name.clone());
        name
    }

    /// The rule for a schema, to be written later.
    fn later(&mut self, schema: &'s Json, kind: Option<&'s str>, wish: &str, path: String) -> String {
        let rule = self.name(wish);
        self.todo.push(Todo { schema, kind, rule: rule.clone(), path });
        rule
    }

    fn body(&mut self, todo: &Todo<'s>) -> Made<String> {
        let Todo { schema, kind, rule, path } = todo;
        let wrong = |what| Err(SchemaError::Wrong { path: path.clone(), what });
        match schema {
            Json::Bool(true) => return Ok("value".into()),
            Json::Object(members) => {
                let is_integer = |kind: &Json| kind.text() == Some("integer");
                let integer = match (kind, schema.get("type")) {
                    // Of several types; the bounds say nothing of what is no number.
                    (Some(kind), _) => *kind != "number",
                    (None, Some(Json::Array(kinds))) => kinds.iter().any(is_integer),
                    (None, kind) => kind.is_some_and(is_integer),
                };
                let known = |name: &str| KNOWN.contains(&name) || (integer && INTEGER_BOUNDS.contains(&name));
                let unknown = members.iter().map(|(name, _)| name).filter(|name| !known(name));
                self.ignored.extend(unknown.cloned());
            }
            _ => return wrong("expected a schema, which is an object or `true`"),
        }
        if let Some(reference) = schema.get("$ref") {
            let Some(reference) = reference.text() else { return wrong("$ref has to be a text") };
            self.beside(schema, "$ref");
            return self.reference(reference);
        }
        if let Some(alternatives) = schema.get("oneOf").or_else(|| schema.get("anyOf")) {
            let Some(alternatives @ [_, ..]) = alternatives.array() else {
                return wrong("anyOf and oneOf take an array of schemas");
            };
            self.beside(schema, if schema.get("oneOf").is_some() { "oneOf" } else { "anyOf" });
            let each = alternatives.iter().enumerate();
            let rules: Vec<_> = each
                .map(|(n, schema)| self.later(schema, None, &format!("{rule}-{n}"), format!("{path}/{n}")))
                .collect();
            return Ok(rules.join(" | "));
        }
        if let (None, Some(Json::Array(kinds))) = (kind, schema.get("type")) {
            let mut rules = Vec::new();
            let values = schema.get("enum").and_then(Json::array);
            for kind in kinds {
                let Some(kind) = kind.text() else { return wrong("type takes texts") };
                // A type that none of the values is of adds nothing.
                if values.is_some_and(|values| !values.iter().any(|value| is(value, kind)))
                    || schema.get("const").is_some_and(|only| !is(only, kind))
                {
                    continue;
                }
                rules.push(self.later(schema, Some(kind), &format!("{rule}-{kind}"), path.clone()));
            }
            return match (kinds.is_empty(), rules.is_empty()) {
                (true, _) => wrong("type is an empty array"),
                (_, true) => wrong("no value of enum or const is of one of its types"),
                _ => Ok(rules.join(" | ")),
            };
        }
        if let Some(only) = schema.get("const") {
            self.beside(schema, "const");
            let kind = kind.or(schema.get("type").and_then(Json::text));
            return if kind.is_none_or(|kind| is(only, kind)) {
                Ok(value(only))
            } else {
                wrong("const is of another type")
            };
        }
        if let Some(values) = schema.get("enum") {
            self.beside(schema, "enum");
            let Some(values @ [_, ..]) = values.array() else {
                return wrong("enum takes an array of values");
            };
            let kind = kind.or(schema.get("type").and_then(Json::text));
            let values: Vec<_> =
                values.iter().filter(|one| kind.is_none_or(|kind| is(one, kind))).map(value).collect();
            return if values.is_empty() {
                wrong("no value of enum is of its type")
            } else {
                Ok(values.join(" | "))
            };
        }
        let has = |name: &str| schema.get(name).is_some();
        if let (Some(all), false) = (schema.get("allOf"), has("properties") || has("additionalProperties")) {
            let Some(all @ [_, ..]) = all.array() else { return wrong("allOf takes an array of schemas") };
            if let ([only], false) = (all, has("type") || all.iter().all(|part| self.is_object(part))) {
                self.beside(schema, "allOf");
                return Ok(self.later(only, None, &format!("{rule}-all"), format!("{path}/allOf/0")));
            }
            if !all.iter().all(|part| self.is_object(part)) {
                return wrong("allOf is followed for objects, or for one schema: write the others as one");
            }
        }
        let kind = match (kind, schema.get("type")) {
            (Some(kind), _) => *kind,
            (None, Some(kind)) => match kind.text() {
                Some(kind) => kind,
                None => return wrong("type takes a text or an array of texts"),
            },
            (None, None) if has("properties") || has("additionalProperties") || has("allOf") => "object",
            (None, None) if has("items") || has("prefixItems") => "array",
            (None, None) if ["pattern", "minLength", "maxLength", "format"].into_iter().any(has) => "string",
            (None, None) => return Ok("value".into()),
        };
        if kind != "object" && has("allOf") {
            self.ignored.insert("allOf".into());
        }
        match kind {
            "object" => self.object(schema, rule, path),
            "array" => self.array(schema, rule, path),
            "string" => self.string(schema, path),
            "integer" => self.integer(schema, path),
            "number" | "boolean" | "null" => Ok(kind.into()),
            _ => wrong("type is none of object, array, string, integer, number, boolean and null"),
        }
    }

    /// Notes what else a schema asks for, where one keyword is all that is followed.
    fn beside(&mut self, schema: &Json, followed: &str) {
        let typed = ["const", "enum"].contains(&followed);
        for keyword in ASKING.iter().chain(&INTEGER_BOUNDS) {
            let looked_at = *keyword == followed || typed && *keyword == "type";
            if !looked_at && schema.get(keyword).is_some() && !self.ignored.contains(*keyword) {
                self.ignored.insert(format!("{keyword} beside {followed}"));
            }
        }
    }

    /// Whether a schema, and of one that is all of several each, says that it is of an object. A circle does, too: it is told
    /// where its members are looked for.
    fn is_object(&self, schema: &'s Json) -> bool {
        let mut parts = Vec::from([schema]);
        let mut looked_at = 0;
        while let Some(mut part) = parts.pop() {
            looked_at += 1;
            let mut followed = 0;
            while let Some(reference) = part.get("$ref").and_then(Json::text) {
                followed += 1;
                match self.target(reference) {
                    Some(target) if followed <= MOST_REFERENCES => part = target,
                    _ => return true, // nowhere, or a circle
                }
            }
            if looked_at > MOST_REFERENCES {
                return true;
            }
            let typed = part.get("type");
            let named = ["properties", "additionalProperties", "required"];
            if typed.and_then(Json::text) == Some("object")
                || typed.is_none() && named.into_iter().any(|name| part.get(name).is_some())
            {
                continue;
            }
            match part.get("allOf").and_then(Json::array) {
                Some(all @ [_, ..]) if typed.is_none() => parts.extend(all),
                _ => return false,
            }
        }
        true
    }

    fn reference(&mut self, reference: &str) -> Made<String> {
        if let Some(rule) = self.references.get(reference) {
            return Ok(rule.clone());
        }
        let nowhere = || SchemaError::Reference(reference.into());
        let target = self.target(reference).ok_or_else(nowhere)?;
        // A circle of nothing but references describes no value.
        let mut last = target;
        for followed in 0.. {
            let Some(next) = last.get("$ref").and_then(Json::text) else { break };
            if followed == MOST_REFERENCES {
                return Err(SchemaError::Circle(reference.into()));
            }
            last = self.target(next).ok_or_else(|| SchemaError::Reference(next.into()))?;
        }
        let wish = reference.rsplit('/').next().unwrap_or_default();
        let rule = self.later(target, None, wish, reference.into());
        self.references.insert(reference.into(), rule.clone());
        Ok(rule)
    }

    /// What a `$ref` leads to: a JSON pointer, RFC 6901.
    fn target(&self, reference: &str) -> Option<&'s Json> {
        let mut target = self.root;
        let path = reference.strip_prefix('#')?;
        for step in path.split('/').skip(1) {
            let step = step.replace("~1", "/").replace("~0", "~");
            target = match target {
                Json::Array(items) => items.get(step.parse::<usize>().ok()?)?,
                _ => target.get(&step)?,
            };
        }
        (path.is_empty() || path.starts_with('/')).then_some(target)
    }

    fn count(&self, schema: &Json, name: &'static str, path: &str) -> Made<Option<u64>> {
        match schema.get(name) {
            None => Ok(None),
            Some(Json::Number(number)) if number.parse::<u64>().is_ok() => Ok(number.parse().ok()),
            Some(_) => Err(SchemaError::Wrong {
                path: format!("{path}/{name}"),
                what: "expected a whole number that is not negative",
            }),
        }
    }

    fn array(&mut self, schema: &'s Json, rule: &str, path: &str) -> Made<String> {
        let (least, most) = self.counts(schema, ["minItems", "maxItems"], path)?;
        // What stands first: `prefixItems`, or `items` as an array in older schemas.
        let first = match (schema.get("prefixItems"), schema.get("items")) {
            (Some(first), _) => Some(("prefixItems", first)),
            (None, Some(items @ Json::Array(_))) => Some(("items", items)),
            (None, _) => None,
        };
        let Some((key, first)) = first else {
            let item = self.item(schema.get("items"), rule, path);
            let list = repeated(&item, least, most, "\",\" space");
            return Ok(format!("\"[\" space {list} space \"]\""));
        };
        let wrong = |what| Err(SchemaError::Wrong { path: path.into(), what });
        let Some(first) = first.array() else { return wrong("prefixItems takes an array of schemas") };
        let count = first.len() as u64;
        if most.is_some_and(|most| most < count) {
            return wrong("prefixItems has more than maxItems allows");
        }
        let each = first.iter().enumerate();
        let rules: Vec<_> = each
            .map(|(n, item)| self.later(item, None, &format!("{rule}-{n}"), format!("{path}/{key}/{n}")))
            .collect();
        let mut list = rules.join(" \",\" space ");
        match schema.get("items") {
            Some(items @ (Json::Object(_) | Json::Bool(true))) => {
                let item = self.item(Some(items), rule, path);
                let (item, comma) = if rules.is_empty() {
                    (item, "\",\" space")
                } else {
                    (format!("( \",\" space {item} )"), "")
                };
                list += " ";
                list += &repeated(&item, least.saturating_sub(count), most.map(|most| most - count), comma);
            }
            _ if least > count => return wrong("minItems asks for more than prefixItems has"),
            _ => {}
        }
        Ok(format!("\"[\" space {list} space \"]\""))
    }

    /// The rule for each item.
    fn item(&mut self, items: Option<&'s Json>, rule: &str, path: &str) -> String {
        match items {
            None | Some(Json::Bool(true)) => "value".into(),
            Some(items) => self.later(items, None, &format!("{rule}-item"), format!("{path}/items")),
        }
    }

    /// How many at least and at most.
    fn counts(
        &self,
        schema: &Json,
        [least, most]: [&'static str; 2],
        path: &str,
    ) -> Made<(u64, Option<u64>)> {
        let (least, most) = (self.count(schema, least, path)?.unwrap_or(0), self.count(schema, most, path)?);
        if most.is_some_and(|most| most < least) {
            return Err(SchemaError::Wrong {
                path: path.into(),
                what: "the least count is above the largest",
            });
        }
        Ok((least, most))
    }

    fn string(&mut self, schema: &Json, path: &str) -> Made<String> {
        if let Some(pattern) = schema.get("pattern") {
            let Some(pattern) = pattern.text() else {
                return Err(SchemaError::Wrong { path: path.into(), what: "pattern takes a text" });
            };
            for beside in ["minLength", "maxLength", "format"] {
                if schema.get(beside).is_some() {
                    self.ignored.insert(format!("{beside} beside pattern"));
                }
            }
            return pattern::body(pattern).map_err(|what| SchemaError::Pattern(pattern.into(), what));
        }
        match schema.get("format").and_then(Json::text) {
            Some(format @ ("date" | "time" | "date-time")) => return Ok(format!("{format}-text")),
            Some("uuid" | "uuid1" | "uuid2" | "uuid3" | "uuid4" | "uuid5") => return Ok("uuid-text".into()),
            Some(other) => {
                self.ignored.insert(format!("format {other}"));
            }
            None => {}
        }
        Ok(match self.counts(schema, ["minLength", "maxLength"], path)? {
            (0, None) => "string".into(),
            (least, most) => format!("\"\\\"\" {} \"\\\"\"", repeated("char", least, most, "")),
        })
    }

    fn integer(&mut self, schema: &Json, path: &str) -> Made<String> {
        let bound = |name: &str| -> Made<Option<f64>> {
            match schema.get(name) {
                None => Ok(None),
                Some(Json::Number(number)) => Ok(number.parse().ok()),
                Some(_) => {
                    Err(SchemaError::Wrong { path: format!("{path}/{name}"), what: "expected a number" })
                }
            }
        };
        // A whole number keeps all its digits; a fraction leads inwards.
        let exact = |name: &str| match schema.get(name) {
            Some(Json::Number(number)) => number.parse::<i64>().ok(),
            _ => None,
        };
        let above = |bound: f64| libm::floor(bound) as i64;
        let low = bound("minimum")?.map(|low| exact("minimum").unwrap_or(libm::ceil(low) as i64));
        let above = bound("exclusiveMinimum")?
            .map(|low| exact("exclusiveMinimum").unwrap_or(above(low)).saturating_add(1));
        let high = bound("maximum")?.map(|high| exact("maximum").unwrap_or(libm::floor(high) as i64));
        let below = |bound: f64| libm::ceil(bound) as i64;
        let below = bound("exclusiveMaximum")?
            .map(|high| exact("exclusiveMaximum").unwrap_or(below(high)).saturating_sub(1));
        let tighter = |a: Option<i64>, b: Option<i64>, of: fn(i64, i64) -> i64| match (a, b) {
            (Some(a), Some(b)) => Some(of(a, b)),
            (a, b) => a.or(b),
        };
        let (low, high) = (tighter(low, above, i64::max), tighter(high, below, i64::min));
        let body = if low.or(high).is_none() { "integer".into() } else { integers::range(low, high) };
        if body.is_empty() {
            return Err(SchemaError::Wrong { path: path.into(), what: "no integer is within these bounds" });
        }
        Ok(body)
    }

    fn object(&mut self, schema: &'s Json, rule: &str, path: &str) -> Made<String> {
        let wrong = |what| SchemaError::Wrong { path: path.into(), what };
        let mut members: Vec<(&'s str, &'s Json, bool, String)> = Vec::new();
        self.members(schema, path, &mut members)?;
        let additional = match schema.get("additionalProperties") {
            Some(Json::Bool(false)) => None,
            Some(other @ (Json::Bool(true) | Json::Object(_))) => Some(other),
            Some(_) => return Err(wrong("additionalProperties takes a truth value or a schema")),
            None if schema.get("properties").is_some() || schema.get("allOf").is_some() => None,
            None => Some(&Json::Bool(true)),
        };
        for name in self.required(schema)? {
            match (members.iter_mut().find(|member| member.0 == name), additional) {
                (Some(member), _) => member.2 = true,
                (None, Some(other)) => {
                    members.push((name, other, true, format!("{path}/additionalProperties")))
                }
                (None, None) => {
                    return Err(SchemaError::Required { path: path.into(), name: name.into() });
                }
            }
        }
        if members.is_empty() && matches!(additional, Some(Json::Bool(true))) {
            return Ok("object".into());
        }
        let mut required = Vec::new();
        let mut optional = Vec::new();
        for (name, schema, is_required, path) in &members {
            let value = self.later(schema, None, &format!("{rule}-{name}"), path.clone());
            let member = self.name(&format!("{rule}-{name}-member"));
            let mut key = String::new();
            quote(name, &mut key);
            self.rule(&member, &format!("{} space \":\" space {value}", literal(&key)));
            if *is_required { required.push(member) } else { optional.push((member, false)) }
        }
        if let Some(other) = additional {
            let names: Vec<&str> = members.iter().map(|member| member.0).collect();
            let key = self.other_key(&names, rule);
            let value = match other {
                Json::Bool(_) => "value".into(),
                _ => {
                    self.later(other, None, &format!("{rule}-other"), format!("{path}/additionalProperties"))
                }
            };
            let member = self.name(&format!("{rule}-other-member"));
            self.rule(&member, &format!("{key} space \":\" space {value}"));
            optional.push((member, true));
        }
        // What may follow each optional member, from the last to the first.
        let mut rest = String::new();
        let mut first = Vec::new();
        for (member, repeats) in optional.iter().rev() {
            let (again, times) =
                if *repeats { (format!(" ( \",\" space {member} )*"), "*") } else { ("".into(), "?") };
            first.push(format!("{member}{again} {rest}"));
            let name = self.name(&format!("{rule}-rest"));
            self.rule(&name, &format!("( \",\" space {member} ){times} {rest}"));
            rest = name;
        }
        first.reverse();
        let first = first.join(" | ");
        let inner = match (required.is_empty(), first.is_empty()) {
            (true, true) => String::new(),
            (true, false) => format!("( {first} )?"),
            (false, true) => required.join(" \",\" space "),
            (false, false) => format!("{} ( \",\" space ( {first} ) )?", required.join(" \",\" space ")),
        };
        Ok(format!("\"{{\" space {inner} space \"}}\""))
    }

    /// Names that have to be in an object and, where it is all of several, in those.
    fn required(&self, schema: &'s Json) -> Made<Vec<&'s str>> {
        let mut names = Vec::new();
        let mut parts = Vec::from([schema]);
        let mut looked_at = 0;
        while let Some(mut part) = parts.pop() {
            looked_at += 1;
            for _ in 0..MOST_REFERENCES {
                let Some(reference) = part.get("$ref").and_then(Json::text) else { break };
                part = self.target(reference).ok_or_else(|| SchemaError::Reference(reference.into()))?;
            }
            names.extend(
                part.get("required").and_then(Json::array).into_iter().flatten().filter_map(Json::text),
            );
            if looked_at < MOST_REFERENCES {
                parts.extend(part.get("allOf").and_then(Json::array).into_iter().flatten());
            }
        }
        Ok(names)
    }

    /// The members of an object and, where it is all of several, of those: name, schema, whether it has to be there, path.
    fn members(
        &mut self,
        schema: &'s Json,
        path: &str,
        members: &mut Vec<(&'s str, &'s Json, bool, String)>,
    ) -> Made<()> {
        let mut parts = Vec::from([(schema, String::from(path))]);
        let mut looked_at = 0;
        let mut followed = None;
        while looked_at < parts.len() {
            let (mut part, path) = parts[looked_at].clone();
            looked_at += 1;
            if let Some(reference) = part.get("$ref").and_then(Json::text) {
                followed = Some(reference);
                part = self.target(reference).ok_or_else(|| SchemaError::Reference(reference.into()))?;
                // A circle of references would go on for ever.
                if looked_at > MOST_REFERENCES {
                    return Err(SchemaError::Circle(reference.into()));
                }
                if part.get("$ref").is_some() {
                    parts.push((part, path));
                    continue;
                }
            }
            let wrong = |what| SchemaError::Wrong { path: path.clone(), what };
            let required: Vec<&str> = match part.get("required") {
                None => Vec::new(),
                Some(Json::Array(names)) => names.iter().filter_map(Json::text).collect(),
                Some(_) => return Err(wrong("required takes an array of names")),
            };
            match part.get("properties") {
                None => {}
                Some(Json::Object(properties)) => {
                    for (name, schema) in properties {
                        let path = format!("{path}/properties/{name}");
                        let member = (name.as_str(), schema, required.contains(&name.as_str()), path);
                        match members.iter_mut().find(|known| known.0 == name) {
                            Some(known) => {
                                self.ignored.insert(format!("{name} of all but the last allOf"));
                                *known = (member.0, member.1, member.2 || known.2, member.3);
                            }
                            None => members.push(member),
                        }
                    }
                }
                Some(_) => return Err(wrong("properties takes an object")),
            }
            match part.get("allOf") {
                None => {}
                Some(Json::Array(all)) if parts.len() + all.len() <= 1000 => {
                    parts.extend(all.iter().enumerate().map(|(n, part)| (part, format!("{path}/allOf/{n}"))));
                }
                // So many parts are a circle, if any reference led to one: told by that, for the way here is long.
                Some(Json::Array(_)) if let Some(reference) = followed => {
                    return Err(SchemaError::Circle(reference.into()));
                }
                Some(_) => return Err(wrong("allOf takes an array of schemas, a thousand at most in all")),
            }
        }
        Ok(())
    }

    /// The rule for a key that is none of these: a rule for each beginning of one of them says how it may go on.
    fn other_key(&mut self, names: &[&str], rule: &str) -> String {
        if names.is_empty() {
            return "string".into();
        }
        let keys: BTreeSet<String> = names
            .iter()
            .map(|name| {
                let mut key = String::new();
                quote(name, &mut key);
                key[1..key.len() - 1].into()
            })
            .collect();
        let mut beginnings: BTreeSet<&str> = BTreeSet::new();
        for key in &keys {
            beginnings.extend(key.char_indices().map(|(at, _)| &key[..at]));
            beginnings.insert(key);
        }
        let rules: BTreeMap<&str, String> =
            beginnings.iter().map(|&beginning| (beginning, self.name(&format!("{rule}-key")))).collect();
        for (beginning, name) in &rules {
            let next: BTreeSet<char> = rules
                .keys()
                .filter_map(|longer| longer.strip_prefix(beginning))
                .filter_map(|rest| rest.chars().next())
                .collect();
            let known: String = next.iter().map(|c| in_class(*c)).collect();
            let mut body = if keys.contains(*beginning) { String::new() } else { "\"\" | ".into() };
            let _ = write!(body, "[^{NOT_PLAIN}{known}] char*");
            // What has to be escaped is no beginning of one of them; `\u` could spell one.
            if !next.contains(&'\\') {
                body.push_str(r#" | [\\] ["\\bfnrt] char*"#);
            }
            for c in next {
                let mut longer = String::from(*beginning);
                longer.push(c);
                let _ = write!(body, " | [{}] {}", in_class(c), rules[longer.as_str()]);
            }
            self.rule(name, &body);
        }
        format!("\"\\\"\" {} \"\\\"\"", rules[""])
    }
}
