//! Which template is used, and what becomes of a system turn.

use super::*;

fn specials() -> Specials {
    Specials { bos: "<s>".into(), eos: "</s>".into() }
}

fn user(content: &str) -> Turn<'_> {
    Turn { role: Role::User, content }
}

const SYSTEM: Turn = Turn { role: Role::System, content: "Rhyme." };

#[test]
fn a_system_turn_that_a_template_refuses_or_leaves_out_is_told_with_the_users_first_words() {
    for source in [
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}",
        "{% for m in messages if m.role != 'system' %}[{{ m.role }}]{{ m.content }}{% endfor %}",
    ] {
        let template = Template::new(source, specials()).unwrap();
        assert!(!template.takes_system());
        let turns = [SYSTEM, user("One"), Turn { role: Role::Assistant, content: "1" }, user("Two")];
        let prompt = template.render(&turns, Style::ANSWER);
        assert_eq!(prompt.as_deref(), Ok("[user]Rhyme.\n\nOne[assistant]1[user]Two"));
        assert_eq!(template.render(&[user("One")], Style::ANSWER).as_deref(), Ok("[user]One"));
    }
}

#[test]
fn thinking_is_asked_for_refused_or_left_to_the_template() {
    let source = "{% for m in messages %}{{ m.content }}{% endfor %}{{ enable_thinking is defined }}{{ enable_thinking }}";
    let template = Template::new(source, specials()).unwrap();
    assert!(template.switches_thinking());
    for (thinking, shown) in [(None, "aFalse"), (Some(true), "aTrueTrue"), (Some(false), "aTrueFalse")] {
        let style = Style { thinking, ..Style::ANSWER };
        assert_eq!(template.render(&[user("a")], style).as_deref(), Ok(shown));
    }
    assert!(!Template::named("chatml", specials()).unwrap().switches_thinking());
}

#[test]
fn every_built_in_template_says_all_turns_in_order_and_recognises_its_own_program() {
    for row in builtin::BUILT_IN {
        let template = Template::named(row.name, specials()).expect(row.name);
        assert_eq!(template.name(), Some(row.name));
        let prompt = template.render(&TRIAL, Style::ANSWER).unwrap();
        let places: Vec<_> = TRIAL.iter().map(|turn| prompt.find(turn.content).expect(row.name)).collect();
        assert!(places.is_sorted(), "{}: {prompt}", row.name);
        let earlier = template.render(&TRIAL[..2], Style::ANSWER).unwrap();
        assert!(prompt.starts_with(earlier.trim_end()), "{}: {prompt}", row.name);
    }
    assert!(Template::named("LLAMA3", specials()).is_some());
    assert!(Template::named("nonsense", specials()).is_none());
}

#[test]
fn a_program_that_cannot_be_used_says_why() {
    let why = |source: &str| Template::new(source, specials()).map(|_| ()).unwrap_err().to_string();
    assert_eq!(why("{{ x"), "line 1: a tag is never closed");
    assert_eq!(why("{{ messages | frobnicate }}"), "line 1: the filter 'frobnicate' is not supported");
    assert_eq!(why("hello"), "line 1: the template says: nothing of what the user said");
    let error = ChatError { why: Failure::Unusable(What::Arithmetic.at(7)), fall_back: "chatml" }.to_string();
    assert!(
        error.contains("line 7") && error.contains("'chatml'") && error.contains("set template"),
        "{error}"
    );
}

#[test]
fn forms_are_recognised_by_what_occurs_in_them() {
    let named = |program: &str| builtin::recognised(|mark| program.contains(mark)).map(|row| row.name);
    assert_eq!(named("{{'<|im_start|>' + message['role'] + '<|im_end|>'}}"), Some("chatml"));
    assert_eq!(named("{{ '[INST] ' + message['content'] }}"), Some("mistral"));
    assert_eq!(named("[INST] <<SYS>>"), Some("llama2"));
    assert_eq!(named("<|user|> <|assistant|> <|end|>"), Some("phi3"));
    assert_eq!(named("nothing known"), None);
}
