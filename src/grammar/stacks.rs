//! Stacks: everything a grammar may be in the middle of, after the text so far.
//!
//! A stack is a chain of nodes, each a position in the grammar and what comes after that is done; two stacks that are the
//! same are the same node, so a set of stacks is a list of numbers, and what they have in common is there once. All memory
//! is taken at the beginning. Nodes that only a trial needed are given back by [`Stacks::release`]; those that no stack
//! needs any more, by [`Stacks::compact`]. Where the nodes do not suffice, a step fails.

use super::{Element, Grammar};
use alloc::vec;
use alloc::vec::Vec;

/// Nodes there is room for. JSON takes about four a level of nesting and twenty a step.
pub const MOST_NODES: usize = 1 << 14;
/// Places in the table of nodes: at least twice as many, so that a look-up is short.
const PLACES: usize = 2 * MOST_NODES;

/// The stack on which nothing is left: the text may end here.
pub(super) const DONE: u32 = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Node {
    position: u32,
    below: u32,
}

/// There were not nodes enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyStacks;

/// Nodes, and which one has which position and what is below.
#[derive(Clone, Debug)]
pub(super) struct Stacks {
    nodes: Vec<Node>,
    /// Open addressing, linear probing; 0 is an empty place, as the first node is never looked up.
    table: Vec<u32>,
    /// The turn in which each node was seen last.
    seen: Vec<u32>,
    turn: u32,
    /// Stacks that are still to be expanded.
    todo: Vec<u32>,
}

impl Stacks {
    pub fn new() -> Self {
        let mut nodes = Vec::with_capacity(MOST_NODES);
        nodes.push(Node { position: u32::MAX, below: DONE });
        let todo = Vec::with_capacity(MOST_NODES);
        Self { nodes, table: vec![0; PLACES], seen: vec![0; MOST_NODES], turn: 0, todo }
    }

    /// Forgets all nodes.
    pub fn clear(&mut self) {
        self.nodes.truncate(1);
        self.table.fill(0);
        self.seen.fill(0);
        self.turn = 0;
    }

    /// Nodes there are.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// Where a stack, which is not [`DONE`], is in the grammar.
    pub fn position(&self, stack: u32) -> u32 {
        self.nodes[stack as usize].position
    }

    fn place(node: Node) -> usize {
        // Fibonacci hashing: Knuth, The Art of Computer Programming 3, section 6.4.
        let key =
            (u64::from(node.position) << 32 | u64::from(node.below)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (key >> 40) as usize % PLACES
    }

    /// The stack with this position on top.
    fn push(&mut self, position: u32, below: u32) -> Result<u32, TooManyStacks> {
        let node = Node { position, below };
        let mut place = Self::place(node);
        while self.table[place] != 0 {
            if self.nodes[self.table[place] as usize] == node {
                return Ok(self.table[place]);
            }
            place = (place + 1) % PLACES;
        }
        if self.nodes.len() == MOST_NODES {
            return Err(TooManyStacks);
        }
        let number = self.nodes.len() as u32;
        self.nodes.push(node);
        self.seen[number as usize] = 0;
        self.table[place] = number;
        Ok(number)
    }

    /// Takes back the nodes made after there were `count`.
    pub fn release(&mut self, count: usize) {
        // In reverse, so that each leaves the table as it was before it came.
        while self.nodes.len() > count {
            let number = self.nodes.len() as u32 - 1;
            let mut place = Self::place(self.nodes[number as usize]);
            while self.table[place] != number {
                place = (place + 1) % PLACES;
            }
            self.table[place] = 0;
            self.nodes.pop();
        }
    }

    /// Begins a step: no stack has been seen.
    pub fn begin(&mut self) {
        self.turn += 1;
        if self.turn == u32::MAX {
            self.seen.fill(0);
            self.turn = 1;
        }
    }

    /// Adds the stacks that begin with a character or a token, and [`DONE`], to which this one leads, each once a step.
    pub fn expand(
        &mut self,
        grammar: &Grammar,
        stack: u32,
        into: &mut Vec<u32>,
    ) -> Result<(), TooManyStacks> {
        self.todo.clear();
        self.todo.push(stack);
        while let Some(stack) = self.todo.pop() {
            if self.seen[stack as usize] == self.turn {
                continue;
            }
            self.seen[stack as usize] = self.turn;
            let Node { position, below } = self.nodes[stack as usize];
            let Element::Rule(rule) = (if stack == DONE { Element::End } else { grammar.element(position) })
            else {
                if into.len() == into.capacity() {
                    return Err(TooManyStacks);
                }
                into.push(stack);
                continue;
            };
            let then = self.after(grammar, position, below)?;
            for &alternative in grammar.alternatives(rule) {
                let next = if grammar.is_end(alternative) { then } else { self.push(alternative, then)? };
                if self.seen[next as usize] != self.turn {
                    if self.todo.len() == self.todo.capacity() {
                        return Err(TooManyStacks);
                    }
                    self.todo.push(next);
                }
            }
        }
        Ok(())
    }

    /// [`Self::expand`] for the beginning of a rule.
    pub fn enter(&mut self, grammar: &Grammar, rule: u32, into: &mut Vec<u32>) -> Result<(), TooManyStacks> {
        self.begin();
        for &alternative in grammar.alternatives(rule) {
            let stack = if grammar.is_end(alternative) { DONE } else { self.push(alternative, DONE)? };
            self.expand(grammar, stack, into)?;
        }
        Ok(())
    }

    /// [`Self::expand`] for what a stack is when its top is done.
    pub fn pass(&mut self, grammar: &Grammar, stack: u32, into: &mut Vec<u32>) -> Result<(), TooManyStacks> {
        let Node { position, below } = self.nodes[stack as usize];
        let next = self.after(grammar, position, below)?;
        self.expand(grammar, next, into)
    }

    fn after(&mut self, grammar: &Grammar, position: u32, below: u32) -> Result<u32, TooManyStacks> {
        // At the end of a rule nothing is put down: that is what keeps lists flat.
        if grammar.is_end(position + 1) { Ok(below) } else { self.push(position + 1, below) }
    }

    /// Drops all nodes but those of these stacks, which get new numbers.
    pub fn compact(&mut self, stacks: &mut [u32]) {
        self.begin();
        for &stack in &*stacks {
            let mut stack = stack;
            while self.seen[stack as usize] != self.turn {
                self.seen[stack as usize] = self.turn;
                stack = self.nodes[stack as usize].below;
            }
        }
        // What is below a node was made before it, so it has its new number already; `seen` keeps the numbers now.
        self.table.fill(0);
        let mut kept = 1;
        for number in 1..self.nodes.len() {
            if self.seen[number] != self.turn {
                continue;
            }
            let Node { position, below } = self.nodes[number];
            let below = if below == DONE { DONE } else { self.seen[below as usize] };
            let node = Node { position, below };
            self.nodes[kept] = node;
            let mut place = Self::place(node);
            while self.table[place] != 0 {
                place = (place + 1) % PLACES;
            }
            self.table[place] = kept as u32;
            self.seen[number] = kept as u32;
            kept += 1;
        }
        for stack in stacks.iter_mut().filter(|stack| **stack != DONE) {
            *stack = self.seen[*stack as usize];
        }
        self.nodes.truncate(kept);
        self.seen.fill(0);
        self.turn = 0;
    }
}
