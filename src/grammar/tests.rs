//! Grammars against texts, token by token and byte by byte.

use super::*;
use crate::gguf::Gguf;
use crate::sampler::Constraint;
use crate::source::Memory;
use crate::tokenizer::Tokenizer;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use proptest::prelude::*;
use std::sync::LazyLock;

/// Byte-level, so it has a token for each byte.
static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let file = crate::synth::tiny(1, crate::quant::by_name("Q8_0").unwrap());
    let gguf = Gguf::open(&Memory(file.leak())).unwrap();
    Tokenizer::from_metadata(&gguf.metadata).unwrap()
});

fn matcher(grammar: &str) -> Matcher {
    Matcher::new(Arc::new(
        Grammar::parse(grammar, Some(&TOKENIZER)).unwrap_or_else(|error| panic!("{error}\n{grammar}")),
    ))
}

/// The token of each byte of a text.
fn bytes(text: &[u8]) -> impl Iterator<Item = u32> {
    text.iter().map(|byte| {
        let is_it = |token: &u32| TOKENIZER.piece(*token) == [*byte] && !TOKENIZER.is_special(*token);
        (0..TOKENIZER.len() as u32).find(is_it).expect("a token for each byte")
    })
}

/// How much of a text is allowed, in bytes, and whether it may end there.
fn follow(matcher: &mut Matcher, text: &str) -> (usize, bool) {
    let taken = bytes(text.as_bytes()).take_while(|token| matcher.accept(*token, &TOKENIZER)).count();
    (taken, matcher.may_end())
}

/// Whether a grammar's texts have this one among them, by bytes and by tokens.
fn is_text(grammar: &str, text: &str) -> bool {
    let mut by_bytes = matcher(grammar);
    let by_bytes = follow(&mut by_bytes, text) == (text.len(), true);
    let mut by_tokens = matcher(grammar);
    let all = TOKENIZER.encode(text, false, false).iter().all(|token| by_tokens.accept(*token, &TOKENIZER));
    assert_eq!(all && by_tokens.may_end(), by_bytes, "{text:?} in {grammar}");
    by_bytes
}

fn error(grammar: &str) -> String {
    Grammar::parse(grammar, Some(&TOKENIZER)).expect_err(grammar).to_string()
}

#[test]
fn every_construct_takes_what_it_should_and_nothing_else() {
    for (grammar, yes, no) in [
        (r#"root ::= "a" "b""#, &["ab"][..], &["", "a", "b", "abc", "ba"][..]),
        (r#"root ::= "a" | "b" c"#.trim_end_matches('c'), &["a", "b"], &["", "ab"]),
        ("root ::= [a-c0]*", &["", "abc0", "c"], &["d", "ab1"]),
        ("root ::= [^a-c\\n]+", &["d", "äxyz", "🦀"], &["", "a", "x\n"]),
        ("root ::= .{2}", &["ab", "🦀\n"], &["", "a", "abc"]),
        (r#"root ::= "x"{2,4}"#, &["xx", "xxx", "xxxx"], &["x", "xxxxx"]),
        (r#"root ::= "ab"{2,}"#, &["abab", "ababab"], &["ab", "aba"]),
        (r#"root ::= ("a" | "bc")? "d""#, &["d", "ad", "bcd"], &["bd", "abcd"]),
        ("root ::= item (\",\" item)*\nitem ::= [0-9]+ # digits\n", &["1", "12,3"], &["", ",", "1,", ",1"]),
        ("root ::= \"(\" root \")\" | \"\"", &["", "()", "((()))"], &["(", "(()"]),
        (r#"root ::= "\x41\u00e4\U0001F980\n\"\\""#, &["Aä🦀\n\"\\"], &["Aä🦀\n\"", "Aä"]),
        ("root ::= [a\\-\\]]+ [-b]", &["a-]b", "--"], &["a", "-a"]),
        ("root ::= (\"a\"?)* \"b\"", &["b", "aab"], &["", "c"]),
        ("root ::=\n  \"a\" |\n  \"b\" # or\n\n\nother ::= \"x\"\r\n", &["a", "b"], &["x"]),
        ("root ::= \"a\"\nroot ::= \"b\"", &["b"], &["a"]),
        ("root ::= ((\"a\" | ) \"b\"){1,2}", &["b", "ab", "bab", "abb"], &["", "bbb", "aab"]),
    ] {
        yes.iter().for_each(|text| assert!(is_text(grammar, text), "{text:?} is in {grammar}"));
        no.iter().for_each(|text| assert!(!is_text(grammar, text), "{text:?} is not in {grammar}"));
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (grammar, words) in [
        ("", "no rule `root`"),
        ("a ::= \"x\"", "no rule `root`"),
        ("root ::= a", "line 1, column 10 of the grammar: the rule `a` is used here and defined nowhere"),
        ("root ::= root \"x\" | \"y\"", "the rule `root` begins with itself"),
        ("root ::= a\na ::= b \"x\"\nb ::= a | \"y\"", "the rule `a` begins with itself"),
        ("root ::= root | \"y\"", "begins with itself"),
        ("root ::= e root \"x\" | \"y\"\ne ::= \"\"", "begins with itself"),
        ("root ::= \"a\n", "line 1, column 10 of the grammar: the text is not closed"),
        ("root ::= [a", "the class is not closed"),
        ("root ::= [z-a]", "ends before it begins"),
        ("root ::= []", "an empty class"),
        ("root ::= (\"a\"", "line 1, column 10 of the grammar: the group is not closed"),
        (
            "root ::= \"a\")",
            "column 13 of the grammar: expected a text, a class, a rule or the end of the line",
        ),
        ("root ::= * \"a\"", "nothing before this to repeat"),
        ("root ::= \"a\" | +", "nothing before this to repeat"),
        ("root ::= \"a\"{3,2}", "ends before it begins"),
        ("root ::= \"a\"{2", "expected `}`"),
        ("root ::= \"a\"{x}", "expected a number"),
        ("root ::= \"a\"{3000}", "more than 2000 repetitions"),
        ("root ::= (\"a\"{2000}){2000}", ""),
        (
            "root ::= ((\"a\" \"b\"){1,2000} [c]{1,2000}){1,2000} [d]{0,2000} ([e]{0,2000} [f] [g]){2000} ([hi]{0,2000}){0,2000} x{0,2000} x{0,2000} x{0,2000} x{0,2000} x{0,2000} x{0,2000}\nx ::= \"x\"",
            "65536 elements",
        ),
        ("root ::= \"\\q\"", "`\\q` means nothing"),
        ("root ::= \"\\x4\"", "two hexadecimal digits"),
        ("root \"a\"", "expected `::=`"),
        ("_x ::= \"a\"", "line 1, column 1 of the grammar: expected the name of a rule"),
        ("root ::= <nonsense>", "`<nonsense>` is not one token"),
        ("root ::= <[99999999]>", "`<[99999999]>` is not one token"),
        ("root ::= !x", "expected `<`"),
    ] {
        if words.is_empty() {
            assert!(Grammar::parse(grammar, None).is_ok(), "{grammar}");
        } else {
            let error = error(grammar);
            assert!(error.contains(words), "{error:?} for {grammar:?}");
        }
    }
}

#[test]
fn the_end_is_allowed_where_the_grammar_may_end_and_required_where_nothing_may_follow() {
    let end = TOKENIZER.ends()[0];
    let mut matcher = matcher("root ::= \"ab\" \"c\"?");
    assert!(!matcher.allows(end, &TOKENIZER));
    assert_eq!(follow(&mut matcher, "ab"), (2, true));
    assert!(matcher.allows(end, &TOKENIZER) && !matcher.must_end());
    assert_eq!(follow(&mut matcher, "cd"), (1, true));
    assert!(matcher.must_end() && matcher.accept(end, &TOKENIZER));
    matcher.reset();
    assert_eq!(follow(&mut matcher, "abx"), (2, true));
}

#[test]
fn a_character_may_come_in_parts_if_it_can_still_become_one_that_may() {
    let mut matcher = matcher("root ::= [ä-ö] \"🦀\"");
    let allowed = |matcher: &mut Matcher, byte: u8| {
        let token = bytes(&[byte]).next().unwrap();
        matcher.allows(token, &TOKENIZER)
    };
    assert!(allowed(&mut matcher, 0xc3) && !allowed(&mut matcher, 0xc2) && !allowed(&mut matcher, b'a'));
    assert!(!allowed(&mut matcher, 0x80) && !allowed(&mut matcher, 0xff));
    assert!(matcher.accept(bytes(&[0xc3]).next().unwrap(), &TOKENIZER));
    assert!(!matcher.may_end());
    assert!(allowed(&mut matcher, 0xa4) && allowed(&mut matcher, 0xb6) && !allowed(&mut matcher, 0xb7));
    assert!(!allowed(&mut matcher, b'a') && !allowed(&mut matcher, 0xc3));
    assert!(matcher.accept(bytes(&[0xa4]).next().unwrap(), &TOKENIZER));
    for byte in "🦀".bytes() {
        assert!(!allowed(&mut matcher, 0x81));
        assert!(matcher.accept(bytes(&[byte]).next().unwrap(), &TOKENIZER));
    }
    assert!(matcher.must_end());
}

#[test]
fn tokens_as_such_are_taken_whatever_their_text() {
    let special =
        (0..TOKENIZER.len() as u32).find(|token| TOKENIZER.is_special(*token) && !TOKENIZER.is_end(*token));
    let special = special.expect("a control token");
    let x = bytes(b"x").next().unwrap();
    let mut matcher = matcher(&format!("root ::= <[{special}]> \"a\" !<[{x}]>"));
    assert!(!matcher.allows(x, &TOKENIZER));
    assert!(matcher.accept(special, &TOKENIZER));
    assert_eq!(follow(&mut matcher, "ax"), (1, false));
    assert_eq!(follow(&mut matcher, "y"), (1, true));
    // By characters a control token is never taken: it shows as nothing.
    assert!(!self::matcher("root ::= .*").allows(special, &TOKENIZER));
    let name = String::from_utf8_lossy(TOKENIZER.piece(special)).into_owned();
    if name.starts_with('<') && name.ends_with('>') {
        assert!(self::matcher(&format!("root ::= {name}")).allows(special, &TOKENIZER), "{name}");
    }
}

#[test]
fn a_text_nested_deeper_than_there_is_room_for_is_not_allowed_and_nothing_breaks() {
    let mut matcher = matcher("root ::= \"[\" root \"]\" | \"x\"");
    let open = bytes(b"[").next().unwrap();
    let depth = (0..100_000).take_while(|_| matcher.accept(open, &TOKENIZER)).count();
    assert!((1000..20_000).contains(&depth), "{depth}");
    // What is there can still be closed.
    assert_eq!(follow(&mut matcher, "x]]]").0, 4);
    matcher.reset();
    assert_eq!(follow(&mut matcher, "[x]"), (3, true));
}

#[test]
fn a_long_text_of_a_small_grammar_needs_no_more_room_than_a_short_one() {
    let mut matcher = matcher(JSON);
    let text = format!("[{}1]", "{\"key\": [1, 2.5e3, \"a\\u00e4b\"]},\n ".repeat(500));
    assert_eq!(follow(&mut matcher, &text), (text.len(), true));
}

#[test]
fn json_is_json() {
    for text in [
        "{}",
        "[]",
        "0",
        "-1.5e+7",
        "\"\\n\\u12aF ä\"",
        "{\"a\":[true,false,null]}",
        "{ \"a\": {} }",
        "[1,\n2]",
    ] {
        assert!(is_text(JSON, text), "{text}");
    }
    for text in ["", "{", "01", "1.", "{a:1}", "[1,]", "\"\n\"", "\"\\x\"", "tru", "{}{}", "'a'", "-"] {
        assert!(!is_text(JSON, text), "{text}");
    }
}

#[test]
fn a_first_byte_that_can_not_come_rules_a_token_out_and_every_token_that_may_come_stays() {
    for (grammar, before) in [
        (JSON, ""),
        (JSON, "{\"a"),
        (JSON, "{\"a\":"),
        ("root ::= [ä-ö]+ | \"the\" .*", ""),
        ("root ::= \"x\" [^a-z]*", "x"),
        ("root ::= \"é\"", ""),
        ("root ::= <[5]> | \"a\"", ""),
    ] {
        let mut matcher = matcher(grammar);
        follow(&mut matcher, before);
        let mut logits = alloc::vec![0.0; TOKENIZER.len()];
        Within { matcher: &mut matcher, tokenizer: &TOKENIZER }.rule_out(&mut logits);
        for token in 0..TOKENIZER.len() as u32 {
            let possible = logits[token as usize] == 0.0;
            assert!(possible || !matcher.allows(token, &TOKENIZER), "{token} in {grammar} after {before}");
        }
    }
    let mut matcher = matcher("root ::= \"q\"");
    let mut logits = alloc::vec![0.0; TOKENIZER.len()];
    Within { matcher: &mut matcher, tokenizer: &TOKENIZER }.rule_out(&mut logits);
    assert!(logits.iter().filter(|logit| **logit == 0.0).count() < 10);
}

/// A schema's grammar, if all of it is enforced.
fn schema(text: &str) -> String {
    let schema = from_schema(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(schema.ignored.is_empty(), "{:?} of {text}", schema.ignored);
    schema.grammar
}

#[test]
fn a_schema_takes_the_values_it_describes() {
    for (text, yes, no) in [
        (r#"{"type":"boolean"}"#, &["true", "false"][..], &["null", "\"true\""][..]),
        (r#"{"type":["integer","null"]}"#, &["12", "-3", "null"], &["1.5", "\"\""]),
        (r#"{"enum":["a",1,null,{"b":[true]}]}"#, &["\"a\"", "1", "null", "{\"b\":[true]}"], &["a", "2"]),
        (r#"{"const":"x\"y\n"}"#, &[r#""x\"y\n""#], &["\"x\""]),
        (
            r#"{"type":"integer","minimum":-5,"maximum":120}"#,
            &["-5", "0", "9", "99", "120"],
            &["-6", "121", "007", "1.0"],
        ),
        (r#"{"type":"integer","exclusiveMinimum":9,"maximum":10.5}"#, &["10"], &["9", "11"]),
        (r#"{"type":"integer","minimum":3}"#, &["3", "10", "29", "999999"], &["2", "0", "-3"]),
        (
            r#"{"type":"string","minLength":2,"maxLength":3}"#,
            &["\"ab\"", "\"äöü\"", "\"\\n\\\"\""],
            &["\"a\"", "\"abcd\""],
        ),
        (r#"{"type":"string","format":"date"}"#, &["\"2026-11-25\""], &["\"2026-13-25\"", "\"today\""]),
        (
            r#"{"type":"string","format":"uuid"}"#,
            &["\"01234567-89ab-cdef-0123-456789abcdef\""],
            &["\"0123\""],
        ),
        (
            r#"{"type":"string","pattern":"^[A-Z]{2}-\\d+(x|y)?$"}"#,
            &["\"AB-1\"", "\"AB-12x\""],
            &["\"ab-1\"", "\"AB-\""],
        ),
        (r#"{"type":"string","pattern":"b+"}"#, &["\"b\"", "\"abba\""], &["\"a\"", "\"\""]),
        (r#"{"type":"string","pattern":"^[^b]\"$"}"#, &[r#""a\"""#], &[r#""b\"""#, r#""\\"""#]),
        (
            r#"{"type":"array","items":{"type":"integer"},"minItems":1,"maxItems":2}"#,
            &["[1]", "[1, 2]"],
            &["[]", "[1,2,3]", "[true]"],
        ),
        (r#"{"type":"array","maxItems":0}"#, &["[]"], &["[1]"]),
        (
            r#"{"prefixItems":[{"type":"boolean"}],"items":{"type":"integer"},"minItems":3,"maxItems":4}"#,
            &["[true,1,2]", "[false, 1, 2, 3]"],
            &["[1,1,1]", "[true,1]", "[true,1,2,3,4]", "[true]"],
        ),
        (r#"{"type":"integer","minimum":1,"exclusiveMinimum":5,"maximum":7}"#, &["6", "7"], &["1", "5", "8"]),
        (r#"{"type":"string","enum":["a",1]}"#, &["\"a\""], &["1"]),
        (r#"{"type":["string","null"],"enum":["a","b"]}"#, &["\"a\"", "\"b\""], &["null", "\"c\""]),
        (r#"{"type":["string","null"],"enum":["a",null]}"#, &["\"a\"", "null"], &["1"]),
        (r#"{"type":["integer","null"],"const":null}"#, &["null"], &["1"]),
        (r#"{"type":"integer","enum":["a",1,1.5]}"#, &["1"], &["1.5", "\"a\""]),
        (
            r##"{"allOf":[{"$ref":"#/$defs/s"}],"description":"d","$defs":{"s":{"type":"string","enum":["a","b"]}}}"##,
            &["\"a\"", "\"b\""],
            &["{}", "\"c\""],
        ),
        (r#"{"allOf":[{"properties":{"a":{"const":1}}},{"required":["a"]}]}"#, &["{\"a\":1}"], &["{}"]),
        (
            r#"{"type":"object","properties":{"a":{"const":1}},"required":["b"],"additionalProperties":{"type":"integer"}}"#,
            &["{\"b\":7}", "{\"b\":7,\"a\":1}"],
            &["{}", "{\"a\":1}", "{\"b\":true}"],
        ),
        (r#"{"prefixItems":[{"type":"integer"},{"type":"string"}]}"#, &["[1,\"a\"]"], &["[1]", "[\"a\",1]"]),
        (
            r#"{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"}},"required":["a"]}"#,
            &["{\"a\":1}", "{ \"a\": 1, \"b\": \"x\" }"],
            &["{}", "{\"b\":\"x\"}", "{\"b\":\"x\",\"a\":1}", "{\"a\":1,\"c\":2}"],
        ),
        (
            r#"{"properties":{"a":{"const":1},"b":{"const":2},"c":{"const":3}}}"#,
            &["{}", "{\"a\":1}", "{\"b\":2}", "{\"a\":1,\"c\":3}", "{\"a\":1,\"b\":2,\"c\":3}"],
            &["{\"c\":3,\"a\":1}", "{,}"],
        ),
        (
            r#"{"type":"object","properties":{"and":{"const":1},"also":{"const":2}},"additionalProperties":{"type":"boolean"}}"#,
            &[
                "{}",
                "{\"and\":1,\"x\":true}",
                "{\"an\":true,\"\":false}",
                "{\"andy\":true}",
                "{\"also\":2,\"al\\n\":true}",
            ],
            &["{\"and\":true}", "{\"also\":true}", "{\"x\":1}"],
        ),
        (
            r#"{"type":"object","additionalProperties":{"type":"integer"}}"#,
            &["{}", "{\"x\":1,\"y\":2}"],
            &["{\"x\":\"\"}"],
        ),
        (r#"{"type":"object"}"#, &["{}", "{\"x\":[1]}"], &["[]"]),
        (r#"{"type":"object","additionalProperties":false}"#, &["{}"], &["{\"x\":1}"]),
        (
            r##"{"$defs":{"tree":{"type":"object","properties":{"v":{"type":"integer"},"kids":{"type":"array","items":{"$ref":"#/$defs/tree"}}},"required":["v"]}},"$ref":"#/$defs/tree"}"##,
            &["{\"v\":1}", "{\"v\":1,\"kids\":[{\"v\":2},{\"v\":3,\"kids\":[]}]}"],
            &["{\"kids\":[]}", "{\"v\":1,\"kids\":[1]}"],
        ),
        (
            r#"{"anyOf":[{"type":"integer"},{"type":"object","properties":{"a":{}},"required":["a"]}]}"#,
            &["1", "{\"a\":[null]}"],
            &["{}"],
        ),
        (
            r#"{"allOf":[{"properties":{"a":{"const":1}},"required":["a"]},{"properties":{"b":{"const":2}},"required":["b"]}]}"#,
            &["{\"a\":1,\"b\":2}"],
            &["{\"a\":1}"],
        ),
        ("true", &["1", "[]"], &["x"]),
        ("{}", &["1", "{}"], &[""]),
    ] {
        let grammar = schema(text);
        yes.iter().for_each(|value| assert!(is_text(&grammar, value), "{value} is in {text}\n{grammar}"));
        no.iter().for_each(|value| assert!(!is_text(&grammar, value), "{value} is not in {text}\n{grammar}"));
    }
}

#[test]
fn what_a_schema_can_not_have_is_told_and_what_is_not_enforced_too() {
    for (text, words) in [
        ("{", "line 1, column 2 of the JSON: expected a name"),
        ("[1,\n2", "line 2, column 2 of the JSON: expected `,` or `]`"),
        ("{\"a\":1} x", "something follows"),
        ("\"\\ud800\"", "surrogate"),
        ("3", "the schema at #: expected a schema"),
        ("{\"type\":\"text\"}", "type is none of"),
        ("{\"properties\":{\"a\":{\"type\":1}}}", "the schema at #/properties/a: type takes"),
        ("{\"$ref\":\"#/nowhere\"}", "$ref to #/nowhere, which leads nowhere"),
        ("{\"$ref\":\"http://example.org\"}", "leads nowhere"),
        ("{\"enum\":[]}", "enum takes"),
        ("{\"type\":\"array\",\"minItems\":-1}", "#/minItems: expected a whole number"),
        ("{\"type\":\"integer\",\"minimum\":2,\"maximum\":1}", "no integer is within"),
        ("{\"pattern\":\"^a(?=b)$\"}", "look around"),
        ("{\"pattern\":\"a**\"}", "nothing to repeat"),
        ("{\"pattern\":\"(a\"}", "a group is not closed"),
        ("{\"pattern\":\"[\\\"]\"}", "a class can't have"),
    ] {
        let error = from_schema(text).expect_err(text).to_string();
        assert!(error.contains(words), "{error:?} for {text:?}");
    }
    let deep = "[".repeat(1_000_000);
    assert!(from_schema(&deep).unwrap_err().to_string().contains("too many values within values"));
    let lax = r#"{"type":"array","uniqueItems":true,"items":{"type":"number","minimum":1}}"#;
    assert_eq!(from_schema(lax).unwrap().ignored, ["minimum", "uniqueItems"]);
    for (text, words) in [
        (r##"{"$ref":"#"}"##, "$ref to #, which leads back to itself"),
        (
            r##"{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}"##,
            "leads back to itself",
        ),
        (r##"{"allOf":[{"$ref":"#"}]}"##, "leads back to itself"),
        (r##"{"properties":{"k":{"allOf":[{"$ref":"#/properties/k"}]}}}"##, "leads back to itself"),
        (r##"{"allOf":[{"$ref":"#"},{"$ref":"#"}]}"##, ""),
        (r#"{"type":["string","null"],"enum":[1]}"#, "no value of enum or const"),
        (r#"{"type":"array","minItems":3,"maxItems":2}"#, "the schema at #: the least count"),
        (
            r#"{"properties":{"a":{"type":"string","minLength":3,"maxLength":2}}}"#,
            "at #/properties/a: the least count",
        ),
        (
            r#"{"type":"object","properties":{"a":{}},"required":["b"],"additionalProperties":false}"#,
            "requires `b`",
        ),
        (r#"{"prefixItems":[{},{}],"maxItems":1}"#, "more than maxItems"),
        (r#"{"prefixItems":[{}],"minItems":2}"#, "more than prefixItems has"),
        (r#"{"type":"string","enum":[1,2]}"#, "no value of enum"),
        (r#"{"type":"string","const":1}"#, "const is of another type"),
        (r#"{"allOf":[{"type":"integer"},{"minimum":1}]}"#, "at #: allOf is followed for objects"),
    ] {
        let error = from_schema(text).expect_err(text).to_string();
        assert!(error.contains(words), "{error:?} for {text:?}");
    }
    for (text, notes) in [
        (r##"{"$ref":"#/$defs/a","minimum":1,"$defs":{"a":{}}}"##, &["minimum"][..]),
        (r#"{"anyOf":[{"type":"null"}],"required":["a"],"title":"t"}"#, &["required beside anyOf"]),
        (r#"{"type":"integer","enum":[1,9],"maximum":5}"#, &["maximum beside enum"]),
        (r#"{"type":["integer","null"],"minimum":3}"#, &[]),
        (r#"{"type":["integer","number"],"minimum":3}"#, &["minimum"]),
        (
            r#"{"allOf":[{"properties":{"a":{"type":"integer"}}},{"properties":{"a":{"minimum":1}}}]}"#,
            &["a of all but the last allOf", "minimum"],
        ),
        (r#"{"allOf":[{"type":"string"}],"maxLength":2,"description":"d"}"#, &["maxLength beside allOf"]),
    ] {
        assert_eq!(from_schema(text).unwrap().ignored, notes, "{text}");
    }
    let beside = r#"{"type":"string","pattern":"^[0-9]+$","maxLength":3}"#;
    assert_eq!(from_schema(beside).unwrap().ignored, ["maxLength beside pattern"]);
}

proptest! {
    #[test]
    fn no_text_makes_the_readers_panic(text in "[ -~\\n]{0,40}|(root ::= )?[\\[\\]\"a-c|()*+?{},0-9<>!.\\\\# ^\n-]{0,40}") {
        let _ = Grammar::parse(&text, Some(&TOKENIZER));
        let _ = from_schema(&text);
    }

    #[test]
    fn an_integer_is_taken_exactly_within_its_bounds(a in -3000..3000i64, b in -3000..3000i64, other in -3500..3500i64) {
        let (low, high) = (a.min(b), a.max(b));
        let grammar = schema(&format!(r#"{{"type":"integer","minimum":{low},"maximum":{high}}}"#));
        for value in [low, high, other, low - 1, high + 1] {
            prop_assert_eq!(is_text(&grammar, &value.to_string()), (low..=high).contains(&value), "{}", value);
        }
    }

    #[test]
    fn trials_leave_no_trace(text in "[{}\\[\\]\",:a1 ]{0,20}", others in prop::collection::vec(0..400u32, 0..20)) {
        let (mut tried, mut plain) = (matcher(JSON), matcher(JSON));
        for token in bytes(text.as_bytes()) {
            for other in &others {
                tried.allows(*other, &TOKENIZER);
            }
            prop_assert_eq!(tried.accept(token, &TOKENIZER), plain.accept(token, &TOKENIZER));
            prop_assert_eq!(tried.may_end(), plain.may_end());
        }
    }
}
