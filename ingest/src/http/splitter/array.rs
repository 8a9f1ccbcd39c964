//! The elements of one JSON array.

use super::{Broken, Found};

/// Finds the elements. Knows of JSON only brackets, strings and commas: enough to see where an element ends.
#[derive(Debug, Default)]
pub(super) struct Array {
    state: State,
    /// The line that the unfinished element begins on.
    line: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nothing yet.
    #[default]
    Start,
    /// Behind `[`.
    First,
    /// Behind a comma.
    Next,
    /// In an object or array, that many levels deep.
    Nested(u32),
    /// In a string; in an object or array unless the depth is 0.
    Text { depth: u32, escaped: bool },
    /// In a number or a word.
    Word,
    /// Behind an element.
    Behind,
    /// Behind `]`.
    Over,
}

impl Array {
    /// Looks through `buffer` from `from` on: where the unfinished element begins.
    pub(super) fn scan(&mut self, buffer: &[u8], from: usize, found: &mut Found) -> Result<usize, Broken> {
        let mut begin = 0;
        let mut at = from;
        while let Some(&byte) = buffer.get(at) {
            if let State::Text { depth, escaped: false } = self.state {
                // Most of a body is text: on to what can end it.
                let Some(skip) = memchr::memchr2(b'"', b'\\', &buffer[at..]) else { break };
                at += skip;
                self.state = match (buffer[at], depth) {
                    (b'\\', _) => State::Text { depth, escaped: true },
                    (_, 0) => self.finish(begin, at + 1, found),
                    _ => State::Nested(depth),
                };
                at += 1;
                continue;
            }
            found.line += u64::from(byte == b'\n');
            self.state = match (self.state, byte) {
                (State::Text { depth, .. }, _) => State::Text { depth, escaped: false },
                (State::Nested(depth), b'"') => State::Text { depth, escaped: false },
                (State::Nested(depth), b'{' | b'[') => State::Nested(depth.saturating_add(1)),
                (State::Nested(1), b'}' | b']') => self.finish(begin, at + 1, found),
                (State::Nested(depth), b'}' | b']') => State::Nested(depth - 1),
                (State::Nested(depth), _) => State::Nested(depth),
                (State::Word, b',' | b']' | b' ' | b'\t' | b'\r' | b'\n') => {
                    self.state = self.finish(begin, at, found);
                    // The byte belongs to what comes behind.
                    found.line -= u64::from(byte == b'\n');
                    continue;
                }
                (State::Word, _) => State::Word,
                (state, b' ' | b'\t' | b'\r' | b'\n') => state,
                (State::Start, 0xef | 0xbb | 0xbf) => State::Start,
                (State::Start, b'[') => State::First,
                (State::Start, b'{') => return Err(broken(found, "expected an array of jobs, found an object")),
                (State::Start, _) => return Err(broken(found, "expected an array of jobs")),
                (State::First | State::Behind, b']') => State::Over,
                (State::Next, b']') => return Err(broken(found, "a comma with no job behind it")),
                (State::Behind, b',') => State::Next,
                (State::Behind, _) => return Err(broken(found, "expected a comma or the end of the array")),
                (State::First | State::Next, b',') => return Err(broken(found, "a comma with no job before it")),
                (State::Over, _) => return Err(broken(found, "something stands behind the array")),
                (State::First | State::Next, _) => {
                    begin = at;
                    self.line = found.line;
                    match byte {
                        b'{' | b'[' => State::Nested(1),
                        b'"' => State::Text { depth: 0, escaped: false },
                        _ => State::Word,
                    }
                }
            };
            at += 1;
        }
        Ok(if self.within() { begin } else { buffer.len() })
    }

    pub(super) fn end(&self, found: &Found) -> Result<(), Broken> {
        match self.state {
            State::Over => Ok(()),
            State::Start => Err(broken(found, "expected an array of jobs, found nothing")),
            _ => Err(broken(found, "the array ends too early")),
        }
    }

    fn within(&self) -> bool {
        matches!(self.state, State::Nested(_) | State::Text { .. } | State::Word)
    }

    fn finish(&self, begin: usize, end: usize, found: &mut Found) -> State {
        found.add(self.line, begin..end);
        State::Behind
    }
}

fn broken(found: &Found, what: &'static str) -> Broken {
    Broken { line: found.line, what }
}
