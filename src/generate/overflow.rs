//! What happens when the context is full: the oldest is forgotten, or the answer ends.
//!
//! What is forgotten is cut out of the text, and what stays is read again from where it changes: exact for every kind of
//! model (sliding windows, learned positions, 8-bit caches), where moving keys and values to other positions is not, and
//! prefilling is several times faster than decoding.

use super::{Conversation, Event};
use crate::chat::{Role, Turn};
use crate::session::{Runtime, SessionError};
use alloc::string::String;
use alloc::vec::Vec;

/// What to do when the context is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The answer ends, and a message that does not fit is an error.
    #[default]
    Stop,
    /// The oldest is forgotten: whole messages between answers, the older half within one; never the system message.
    Shift,
}

/// Part of the context that has to be free for an answer: with less, old messages are forgotten before it begins.
const ANSWER_SHARE: usize = 8;

/// A prompt as text and tokens, and how many of the oldest messages are not in it.
pub(super) struct Prompt {
    pub text: String,
    pub tokens: Vec<u32>,
    pub forgotten: usize,
}

impl Conversation {
    /// The conversation without its `forgotten` oldest messages, and this one: as the template writes it.
    pub(super) fn render(&self, forgotten: usize, text: &str) -> Result<String, SessionError> {
        let turns = self.turns[forgotten..].iter();
        let mut all = Vec::with_capacity(turns.len() + 2);
        if let Some(system) = &self.system {
            all.push(Turn { role: Role::System, content: system.as_str() });
        }
        all.extend(turns.map(|(role, content)| Turn { role: *role, content: content.as_str() }));
        all.push(Turn { role: Role::User, content: text });
        self.template.render(&all, self.style).map_err(SessionError::Template)
    }

    /// Whether so many tokens leave enough room for an answer of at most `limit`.
    pub(super) fn leaves_room(&self, tokens: usize, limit: usize) -> bool {
        let context = self.session.context();
        tokens.saturating_add(limit.min(context / ANSWER_SHARE)) <= context
    }

    /// The prompt without as few of the oldest messages as let it fit into half of the context; without all of them if
    /// it never does. Forgets nothing yet.
    pub(super) fn shortened(&self, text: &str) -> Result<Prompt, SessionError> {
        let try_without = |pairs: usize| {
            let text = self.render(2 * pairs, text)?;
            let tokens = self.tokens_of(&text, true);
            Ok(Prompt { text, tokens, forgotten: 2 * pairs })
        };
        let half = self.session.context() / 2;
        let (mut few, mut enough) = (0, self.turns.len() / 2);
        let mut best = try_without(enough)?;
        // A question is never without its answer: messages go in pairs.
        while enough - few > 1 {
            let middle = few + (enough - few) / 2;
            let prompt = try_without(middle)?;
            if prompt.tokens.len() <= half {
                (enough, best) = (middle, prompt);
            } else {
                few = middle;
            }
        }
        Ok(best)
    }

    /// Tokens at the beginning that are never forgotten: up to where the first message's own words begin, or the start
    /// token where there is no template.
    fn anchor(&self) -> usize {
        let tokens = self.session.tokens();
        if self.raw {
            let bos = self.session.model().tokenizer().bos();
            return usize::from(bos.is_some() && bos == tokens.first().copied());
        }
        let first = |words| self.render(self.turns.len(), words);
        let (Ok(a), Ok(b)) = (first("a"), first("b")) else { return 0 };
        let same = a.char_indices().zip(b.chars()).find(|((_, a), b)| a != b).map_or(0, |((at, _), _)| at);
        let wanted = self.tokens_of(&a[..same], true);
        wanted.iter().zip(tokens).take_while(|(a, b)| a == b).count()
    }

    /// Forgets the older half of what comes after the system message, reads the rest again and `token` after it; then
    /// `best`, if there is one, is what comes next. Gives the number of tokens forgotten and of those read, or `None` if
    /// there is too little to forget.
    ///
    /// When stopped, the session is empty.
    pub(super) fn shift(
        &mut self,
        token: u32,
        best: Option<&mut [u32]>,
        runtime: &Runtime<'_>,
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<Option<(usize, usize)>, SessionError> {
        let (anchor, used) = (self.anchor(), self.session.position());
        let rest = used - anchor;
        if self.overflow == Overflow::Stop || rest < (self.session.context() / ANSWER_SHARE).max(2) {
            return Ok(None);
        }
        let forgotten = rest.div_ceil(2);
        sink(Event::Forgotten { messages: 0, tokens: forgotten });
        let mut all = self.session.tokens().to_vec();
        all.drain(anchor..anchor + forgotten);
        all.push(token);
        let kept = self.session.rewind(anchor);
        let new = &all[kept..];
        let fed = match best {
            Some(best) => self.session.feed_likeliest(new, best, runtime, &mut |_| {}),
            None => self.session.feed(new, runtime).map(|_| ()),
        };
        if fed.is_err() {
            self.session.rewind(0);
        }
        fed.map(|()| Some((forgotten, new.len())))
    }
}
