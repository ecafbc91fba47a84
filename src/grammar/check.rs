//! Refuses grammars that could not be followed: a rule that begins with itself would be entered for ever.
//!
//! A rule leads to another if that one can be the first thing of it, where what stands before it may be empty. A way back
//! to where it began is refused if nothing was passed over on it (`a ::= a | "x"`), or if something is left to do behind
//! one of its steps (`a ::= a "x"`), for then each turn would leave more to do. What is harmless is a repetition of what
//! may be empty, `(x?)*`: the way round passes over it and leaves nothing.

use super::{Element, Grammar};
use alloc::vec;
use alloc::vec::Vec;

/// A rule that begins with itself, if there is one.
pub(super) fn left_recursive(grammar: &Grammar) -> Option<u32> {
    let empty = may_be_empty(grammar);
    // A step within a component is part of a way round. One behind which something is left to do:
    let any = circles(grammar, &empty, false);
    let mut found = None;
    each_first(grammar, &empty, &mut |from, to, _, more| {
        if more && any[from as usize] == any[to as usize] {
            found = found.or(Some(from));
        }
    });
    if found.is_some() {
        return found;
    }
    // One along first elements alone:
    let plain = circles(grammar, &empty, true);
    each_first(grammar, &empty, &mut |from, to, passed, _| {
        if !passed && plain[from as usize] == plain[to as usize] {
            found = found.or(Some(from));
        }
    });
    found
}

/// Calls `each(rule, rule that can be first, whether something was passed over, whether something stands behind it)`.
fn each_first(grammar: &Grammar, empty: &[bool], each: &mut dyn FnMut(u32, u32, bool, bool)) {
    for rule in 0..grammar.rules.len() as u32 {
        first_of(grammar, empty, rule, each);
    }
}

fn first_of(grammar: &Grammar, empty: &[bool], rule: u32, each: &mut dyn FnMut(u32, u32, bool, bool)) {
    for &alternative in grammar.alternatives(rule) {
        let mut position = alternative;
        while let Element::Rule(first) = grammar.element(position) {
            each(rule, first, position > alternative, !grammar.is_end(position + 1));
            if !empty[first as usize] {
                break;
            }
            position += 1;
        }
    }
}

/// Which rules may be nothing at all.
fn may_be_empty(grammar: &Grammar) -> Vec<bool> {
    let mut empty = vec![false; grammar.rules.len()];
    loop {
        let mut changed = false;
        for rule in 0..grammar.rules.len() as u32 {
            let is_empty = |&start: &u32| {
                let elements = grammar.elements[start as usize..].iter();
                let passed =
                    |element: Element| matches!(element, Element::Rule(rule) if empty[rule as usize]);
                elements.copied().find(|element| !passed(*element)) == Some(Element::End)
            };
            if !empty[rule as usize] && grammar.alternatives(rule).iter().any(is_empty) {
                empty[rule as usize] = true;
                changed = true;
            }
        }
        if !changed {
            return empty;
        }
    }
}

/// Components of the relation "can be first": the same number for rules that lead to each other. Tarjan, Depth-First Search
/// and Linear Graph Algorithms, 1972, without recursion.
fn circles(grammar: &Grammar, empty: &[bool], plain: bool) -> Vec<u32> {
    const NEW: u32 = u32::MAX;
    let count = grammar.rules.len();
    let firsts = |rule: u32| {
        let mut firsts = Vec::new();
        first_of(grammar, empty, rule, &mut |_, to, passed, _| {
            if !(plain && passed) {
                firsts.push(to);
            }
        });
        firsts
    };
    let (mut order, mut low, mut component) = (vec![NEW; count], vec![0; count], vec![NEW; count]);
    let (mut next, mut components) = (0, 0);
    let mut path: Vec<(u32, Vec<u32>)> = Vec::new();
    let mut open = Vec::new();
    for start in 0..count as u32 {
        if order[start as usize] != NEW {
            continue;
        }
        let mut enter = Some(start);
        loop {
            if let Some(rule) = enter.take() {
                (order[rule as usize], low[rule as usize]) = (next, next);
                next += 1;
                open.push(rule);
                path.push((rule, firsts(rule)));
            }
            let Some((rule, todo)) = path.last_mut() else { break };
            let rule = *rule as usize;
            if let Some(to) = todo.pop() {
                if order[to as usize] == NEW {
                    enter = Some(to);
                } else if component[to as usize] == NEW {
                    low[rule] = low[rule].min(order[to as usize]);
                }
                continue;
            }
            path.pop();
            if let Some((parent, _)) = path.last() {
                low[*parent as usize] = low[*parent as usize].min(low[rule]);
            }
            if low[rule] == order[rule] {
                while let Some(member) = open.pop() {
                    component[member as usize] = components;
                    if member as usize == rule {
                        break;
                    }
                }
                components += 1;
            }
        }
    }
    component
}
