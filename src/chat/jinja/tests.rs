//! What templates come to, by Jinja2's own rules.

use super::*;
use alloc::string::ToString;
use std::thread;

fn messages() -> Value {
    let message = |role: &str, content: &str| {
        Value::mapping([("role".into(), role.into()), ("content".into(), content.into())].into()).unwrap()
    };
    Value::list([message("user", "a"), message("assistant", "b"), message("user", "c")].into()).unwrap()
}

fn render(source: &str) -> Result<String, Error> {
    Program::parse(source)?.render(&[("messages", messages()), ("x", "Grüße".into())], None)
}

fn text(source: &str) -> String {
    render(source).unwrap_or_else(|error| panic!("{source}: {error}"))
}

fn what(source: &str) -> String {
    render(source).map_or_else(|error| error.to_string(), |text| panic!("{source} gives {text:?}"))
}

#[test]
fn expressions_come_to_what_python_makes_of_them() {
    for (source, result) in [
        ("1 + 2 * 3 ** 2 - -1", "20"),
        ("7 // 2 ~ 7 / 2 ~ -7 // 2 ~ -7 % 3 ~ 7 % -3", "33.5-42-2"),
        ("2 ** -1", "0.5"),
        ("1 < 2 < 3, 1 < 3 < 2, 'a' < 'b'", "(True, False, True)"),
        ("not 1 == 2 and not false", "True"),
        ("'' or 'x' and 'y' or 'z'", "y"),
        ("1 in [1, 2], 3 not in (1,), 'b' in 'abc', 'k' in {'k': 1}", "(True, True, True, True)"),
        (
            "true == 1, 1 == 1.0, 'a' == 1, none == none, [1] == [1], {'a': 1} == {'a': 1.0}",
            "(True, True, False, True, True, True)",
        ),
        ("[1, 'two', none, 1.5, {'a': [true]}]", "[1, 'two', None, 1.5, {'a': [True]}]"),
        ("'a' 'b' ~ 1 ~ none ~ true", "ab1NoneTrue"),
        ("'ab' * 2 + 'c', [1] * 2 + [2]", "('ababc', [1, 1, 2])"),
        ("x[0] ~ x[-1] ~ x[1:3] ~ x[::-1] ~ x[:-2] ~ x[9]", "GerüeßürGGrü"),
        ("[1, 2, 3][1:] ~ (1, 2)[::-1] ~ [1, 2, 3][-2:][0]", "[2, 3](2, 1)2"),
        ("messages[-1].content ~ messages[0]['role'] ~ messages | length", "cuser3"),
        ("'yes' if 1 > 2 else 'no', 'x' if false", "('no', )"),
        ("-3 | abs ~ (1 + 2) | string", "33"),
        ("1 if missing is defined else 2 if x is string else 3", "2"),
        ("missing ~ missing.a.b is defined if false else 'ok'", "ok"),
        ("{'a': 1, 'a': 2}.items() | list", "[('a', 2)]"),
        ("{'items': 5}['items'], {'a': 1}.get('b', 7), {'a': none}.get('b')", "(5, 7, None)"),
        (
            "3 is odd, 4 is divisibleby 2, 4 is divisibleby(3), 1 is in [1], 1.5 is number",
            "(True, True, False, True, True)",
        ),
        (
            "[] is sequence, {} is mapping, x is mapping, none is none, missing is iterable, 1 is iterable",
            "(True, True, False, True, True, False)",
        ),
        ("x is not none and x is not mapping", "True"),
        ("range(3) | list, range(1, 8, 3) | list, range(3, 0, -2) | list", "([0, 1, 2], [1, 4, 7], [3, 1])"),
        ("dict(a=1), namespace(b=2).b, namespace({'b': 3}).b", "({'a': 1}, 2, 3)"),
        ("1_0 + 0x10 + 1.5e1", "41.0"),
        ("'a\\nb' | indent(2), 'a\\n\\nb' | indent(width=1, first=true)", "('a\\n  b', ' a\\n\\n b')"),
    ] {
        assert_eq!(text(&alloc::format!("{{{{ {source} }}}}")), result, "{source}");
    }
}

#[test]
fn filters_and_methods_do_what_jinjas_and_pythons_do() {
    for (source, result) in [
        (
            "' a '|trim ~ 'xax'|trim('x') ~ 'aB'|lower|upper ~ 'hello you'|title ~ 'hELLO'|capitalize",
            "aaABHello YouHello",
        ),
        ("missing|default('d') ~ ''|default('d') ~ ''|default('d', true) ~ none|d('e')", "ddNone"),
        ("[1, 2]|join(', ') ~ messages|map(attribute='content')|join ~ 'abc'|join('-')", "1, 2abca-b-c"),
        ("messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|list", "['a', 'c']"),
        (
            "messages|rejectattr('role', '==', 'user')|list|length, [0, 1]|select|list, [1, 2, 3]|reject('odd')|list",
            "(1, [1], [2])",
        ),
        (
            "['b', 'A']|sort, [2, 1]|sort(reverse=true), ['a', 'B', 'A']|unique|list",
            "(['A', 'b'], [2, 1], ['a', 'B'])",
        ),
        ("{'b': 1, 'A': 2}|dictsort, {'b': 1}|items|list", "([('A', 2), ('b', 1)], [('b', 1)])"),
        ("[3, 1, 2]|min ~ [3, 1]|max ~ [1, 2]|sum ~ [1]|first ~ [1, 2]|last ~ []|first", "13312"),
        (
            "' 12 '|int + '1.9'|int + 'x'|int(5) + 2.7|int, '1.5'|float, 2.5|round, 1.23|round(1)",
            "(20, 1.5, 2.0, 1.2)",
        ),
        (
            "'aXbXc'.split('X') ~ 'a  b c'.split() ~ 'a b c'.split(' ', 1) ~ 'a b c'.rsplit(' ', 1)",
            "['a', 'b', 'c']['a', 'b', 'c']['a', 'b c']['a b', 'c']",
        ),
        ("'</think>x'.split('</think>')[-1].lstrip('\\n') ~ 'xxaxx'.strip('x') ~ 'ab '.rstrip()", "xaab"),
        (
            "'abc'.startswith('ab') ~ 'abc'.endswith(('x', 'c')) ~ 'aXa'.replace('a', 'b') ~ 'aaa'|replace('a', 'b', 2)",
            "TrueTruebXbbba",
        ),
        ("'{}-{0}{name}{{}}'.format('a', name=1)", "a-a1{}"),
        (
            "'ab'.find('b') ~ 'ab'.find('x') ~ 'aba'.count('a') ~ '-'.join(['a', 'b']) ~ 'x1'.isdigit()",
            "1-12a-bFalse",
        ),
        (
            "{'a': [1, none], 'b': 'é'}|tojson ~ [1]|tojson(indent=1) ~ 'é'|tojson(ensure_ascii=true)",
            "{\"a\": [1, null], \"b\": \"é\"}[\n 1\n]\"\\u00e9\"",
        ),
        (
            "'<'|e ~ 'a b'|wordcount ~ 'abc'|reverse ~ {'a': 1}.keys()|list ~ {'a': 1}.values()|list",
            "&lt;2cba['a'][1]",
        ),
    ] {
        assert_eq!(text(&alloc::format!("{{{{ {source} }}}}")), result, "{source}");
    }
}

#[test]
fn variables_live_where_jinja2_lets_them_live() {
    assert_eq!(
        text("{% set a = 1 %}{% for m in messages %}{% set a = a + 1 %}{{ a }}{% endfor %}{{ a }}"),
        "2221"
    );
    assert_eq!(text("{% if true %}{% set a = 1 %}{% endif %}{{ a }}{{ b }}"), "1");
    assert_eq!(
        text(
            "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}"
        ),
        "3"
    );
    assert_eq!(
        text(
            "{% for m in messages %}{{ loop.index }}{{ loop.first }}{{ loop.last }}{{ loop.previtem['content'] if loop.previtem }};{% endfor %}"
        ),
        "1TrueFalse;2FalseFalsea;3FalseTrueb;"
    );
    assert_eq!(
        text(
            "{% for m in messages if m.role == 'user' %}{{ loop.length }}{{ loop.revindex }}{% else %}none{% endfor %}{% for m in [] %}{% else %}-{% endfor %}"
        ),
        "2221-"
    );
    assert_eq!(
        text("{% for k, v in {'a': 1}.items() %}{{ k ~ v }}{% endfor %}{% set p, q = 1, 2 %}{{ p + q }}"),
        "a13"
    );
    assert_eq!(
        text(
            "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% elif i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}"
        ),
        "02"
    );
    assert_eq!(
        text(
            "{% macro f(a, b='-', c=a) %}{{ a ~ b ~ c }}{{ x }}{{ i }}{% endmacro %}{% for i in [1] %}{{ f(i) }}{{ f(b=2, a=1) }}{% endfor %}"
        ),
        "1-1Grüße121Grüße"
    );
    assert_eq!(
        text("{% macro f(n) %}{% if n %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}"),
        "321"
    );
    assert_eq!(
        text("{% macro f() %}<{{ caller(1) }}>{% endmacro %}{% call(a) f() %}{{ a }}{% endcall %}"),
        "<1>"
    );
    assert_eq!(
        text(
            "{% set t %} a {% endset %}[{{ t }}]{% filter trim|upper %} b {% endfilter %}{% with a = 1 %}{{ a }}{% endwith %}{{ a }}"
        ),
        "[ a ]B1"
    );
    assert_eq!(text("{% generation %}{% set a = 1 %}{{ a }}{% endgeneration %}{{ a }}"), "1");
    assert_eq!(
        text("{% for a in 'ab' %}{{ loop.cycle('x', 'y') }}{{ loop.changed(1) }}{% endfor %}"),
        "xTrueyFalse"
    );
}

#[test]
fn what_goes_wrong_is_told_with_its_line() {
    for (source, words) in [
        ("\n{{ raise_exception('no ' ~ 'way') }}", "line 2: the template says: no way"),
        ("{{ messages[0].name.first }}", "line 1: 'messages[0].name' is undefined"),
        ("\n\n{{ 'a' + 1 }}", "line 3: can't add a string and an integer"),
        ("{{ 'a' | frobnicate }}", "line 1: the filter 'frobnicate' is not supported"),
        ("{{ 'a' is frobnicated }}", "line 1: the test 'frobnicated' is not supported"),
        ("{{ nobody() }}", "line 1: 'nobody' is undefined"),
        ("{{ 'a'.casefold() }}", "line 1: '….casefold()' is undefined"),
        ("{% include 'x' %}", "line 1: the statement 'include' is not supported"),
        ("{% for a in b recursive %}{% endfor %}", "line 1: the kind of loop 'recursive' is not supported"),
        ("{% if x %}", "line 1: if is never closed"),
        ("{% for a in x %}\n{% endif %}", "line 2: expected a statement, found endif"),
        ("{{ 1 +", "line 1: a tag is never closed"),
        ("{{ 1 + }}", "line 1: expected an expression, found }}"),
        ("{{ (1, 2 }}", "line 1: a tag is never closed"),
        ("{% set a.b = 1 %}", "line 1: can't set an attribute of an undefined value"),
        ("{{ messages.append(1) }}", "line 1: the change by the method 'append' is not supported"),
        (
            "{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}",
            "line 1: 'f' was given arguments that it does not take",
        ),
        ("{{ 1 // 0 }}", "line 1: a number became too large, or was divided by zero"),
        ("{{ 9223372036854775807 + 1 }}", "line 1: a number became too large, or was divided by zero"),
        ("{{ 1 < 'a' }}", "line 1: can't order an integer and a string"),
        ("{{ 1 | length }}", "line 1: can't measure an integer"),
        ("{% for a, b in [1] %}{% endfor %}", "line 1: can't walk through an integer"),
        ("{{ f(*x) }}", "line 1: the argument '*' is not supported"),
        ("{{ {[]: 1} }}", "line 1: can't use as a key a list"),
        ("{{ strftime_now('%Q') }}", "line 1: the field of a date 'Q' is not supported"),
    ] {
        assert_eq!(what(source), words, "{source}");
    }
}

#[test]
fn a_template_that_would_not_end_or_would_need_too_much_is_stopped() {
    let nested = |open: &str, close: &str, times: usize| [open.repeat(times), close.repeat(times)].concat();
    for source in [
        "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}".to_string(),
        "{{ range(1000000000000) }}".into(),
        "{% set ns = namespace(t='x') %}{% for i in range(64) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}"
            .into(),
        "{% set ns = namespace(t=[1]) %}{% for i in range(64) %}{% set ns.t = [ns.t, ns.t] %}{% endfor %}"
            .into(),
        "{% set ns = namespace(t=[]) %}{% for i in range(9999) %}{% set ns.t = [ns.t] %}{% endfor %}".into(),
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".into(),
        "{% macro f(a=f()) %}{% endmacro %}{{ f() }}".into(),
        "{{ 'x' * 100000000 }}{{ [1] * 100000000 }}".into(),
        "{{ 'aaaaaaaa'.replace('', 'x' * 1000000) }}".into(),
        "{{ 'x' | indent('y' * 999999999) }}".into(),
        "{{ '%s' % x }}".into(),
        nested("{{ (", ")", 60) + " }}",
        alloc::format!("{{{{ {} }}}}", nested("(", ")", 9999)),
        alloc::format!("{{{{ {}1 }}}}", "not ".repeat(9999)),
        alloc::format!("{{{{ {}1 }}}}", "- ".repeat(9999)),
        alloc::format!("{{{{ x{} }}}}", "[0]".repeat(9999)),
        alloc::format!("{{{{ x{} }}}}", "|trim".repeat(9999)),
        alloc::format!("{{{{ x{} }}}}", " is defined".repeat(9999)),
        alloc::format!("{{{{ {}1 }}}}", "1 if 1 else ".repeat(9999)),
        nested("{% if 1 %}", "{% endif %}", 9999),
        "x".repeat(1 << 20),
        (0..9999).map(|n| alloc::format!("{{{{ a{n} }}}}")).collect(),
        alloc::format!(
            "{{{{ {{ {} }} }}}}",
            (0..9999).map(|n| alloc::format!("{n}: 1,")).collect::<String>()
        ),
    ] {
        let result = render(&source);
        assert!(result.is_err(), "{source:.60}");
    }
    // Long, but neither deep nor slow.
    assert_eq!(text(&alloc::format!("{{{{ {}1 }}}}", "1 + ".repeat(9999))), "10000");
    assert!(
        text("{% for a in range(9) %}{% for m in messages %}{{ m.content }}{% endfor %}{% endfor %}").len()
            == 27
    );
}

#[test]
fn the_deepest_template_needs_little_stack() {
    let depth = 40;
    let blocks = [
        "{% for i in [1] %}{% if 1 %}".repeat(depth / 2),
        "{{ f(n + 1) }}".into(),
        "{% endif %}{% endfor %}".repeat(depth / 2),
    ]
    .concat();
    let brackets = alloc::format!("{{{{ {}f(n + 1){} }}}}", "[".repeat(depth), "]".repeat(depth));
    let sources = [blocks, brackets]
        .map(|body| alloc::format!("{{% macro f(n) %}}{body}{{% endmacro %}}{{{{ f(0) }}}}"));
    for source in sources {
        let error = thread::Builder::new()
            .stack_size(256 << 10)
            .spawn(move || what(&source))
            .unwrap()
            .join()
            .unwrap();
        assert_eq!(error, "line 1: the template goes beyond the limit of 150 levels of depth");
    }
}

#[test]
fn the_date_is_the_one_given_and_without_one_templates_use_their_own() {
    let program = Program::parse(
        "{{ strftime_now('%d %b %Y') if strftime_now is defined else 'unknown' }} {{ strftime_now('%Y') }}",
    )
    .unwrap();
    assert_eq!(program.render(&[], None).unwrap(), "unknown 2024");
    assert_eq!(program.render(&[], Date::parse("2026-11-25")).unwrap(), "25 Nov 2026 2026");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_evaluator_panic(source in "([a-z%{}|#\n '\"\\[\\]().:=~+*<-]|\\{%|%\\}|\\{\\{|\\}\\}| if | for | in | set |endif|endfor|messages|é){0,40}") {
        let _ = render(&source);
    }
}
