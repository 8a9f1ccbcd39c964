//! Lines out of chunks, none longer than a bound.

use std::io::Read;
use std::time::Duration;

use super::chunks::{Chunk, Chunks};

/// The lines of an input.
pub(super) struct Lines {
    chunks: Chunks,
    /// Bytes that were read; those before `at` are used up.
    buffer: Vec<u8>,
    at: usize,
    ended: bool,
    max_len: usize,
}

/// What [`Lines::next`] found.
pub(super) enum Line<'a> {
    /// A line without its end, and how many bytes it took with it.
    Whole(&'a [u8], usize),
    /// A line longer than the bound: its bytes are gone, this is how many they were.
    TooLong(usize),
    /// Nothing came for the time it was ready to wait.
    Pause,
    /// There is no more.
    End,
}

impl Lines {
    /// The lines of `input`, of at most `max_len` bytes each.
    pub(super) fn read(input: impl Read + Send + 'static, max_len: usize) -> std::io::Result<Self> {
        Ok(Self::of(Chunks::read(input)?, max_len))
    }

    /// The same, read where they are asked for.
    pub(super) fn here(input: Box<dyn Read + Send>, max_len: usize) -> Self {
        Self::of(Chunks::Here(input), max_len)
    }

    fn of(chunks: Chunks, max_len: usize) -> Self {
        Self { chunks, buffer: Vec::new(), at: 0, ended: false, max_len }
    }

    /// Passes over `count` bytes: whether there were that many.
    pub(super) fn skip(&mut self, mut count: u64) -> std::io::Result<bool> {
        loop {
            let here = ((self.buffer.len() - self.at) as u64).min(count);
            self.at += here as usize;
            count -= here;
            if count == 0 {
                return Ok(true);
            }
            if !matches!(self.more(None)?, More::Some) {
                return Ok(false);
            }
        }
    }

    /// The next line. Waits for `patience`, or for as long as it takes if that is `None`.
    pub(super) fn next(&mut self, patience: Option<Duration>) -> std::io::Result<Line<'_>> {
        let mut searched = 0;
        let mut dropped = 0;
        loop {
            if let Some(end) = self.buffer[self.at + searched..].iter().position(|b| *b == b'\n') {
                let (start, len) = (self.at, searched + end);
                self.at += len + 1;
                if dropped + len > self.max_len {
                    return Ok(Line::TooLong(dropped + len + 1));
                }
                return Ok(Line::Whole(&self.buffer[start..start + len], len + 1));
            }
            searched = self.buffer.len() - self.at;
            if dropped + searched > self.max_len {
                // Too long already: what there is of it need not be kept while its end is looked for.
                dropped += searched;
                self.at = self.buffer.len();
                searched = 0;
            }
            // What there is of a line that has begun stays in the buffer over a pause: whoever writes in blocks pauses
            // in the middle of lines, and the whole ones before must not wait for that.
            match self.more(if dropped == 0 { patience } else { None })? {
                More::Some => {}
                More::Pause => return Ok(Line::Pause),
                More::End if dropped > 0 => return Ok(Line::TooLong(dropped)),
                More::End if searched > 0 => {
                    let start = self.at;
                    self.at = self.buffer.len();
                    return Ok(Line::Whole(&self.buffer[start..], searched));
                }
                More::End => return Ok(Line::End),
            }
        }
    }

    fn more(&mut self, patience: Option<Duration>) -> std::io::Result<More> {
        if self.ended {
            return Ok(More::End);
        }
        match self.chunks.next(patience)? {
            Chunk::Bytes(bytes) => {
                self.buffer.drain(..self.at);
                self.at = 0;
                if self.buffer.is_empty() {
                    self.buffer = bytes
                } else {
                    self.buffer.extend_from_slice(&bytes)
                }
                Ok(More::Some)
            }
            Chunk::Pause => Ok(More::Pause),
            Chunk::End => {
                self.ended = true;
                Ok(More::End)
            }
        }
    }
}

enum More {
    Some,
    Pause,
    End,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn lines(input: &'static [u8], max_len: usize) -> Vec<String> {
        let mut lines = Lines::read(input, max_len).unwrap();
        let mut found = Vec::new();
        loop {
            match lines.next(None).unwrap() {
                Line::Whole(line, took) => found.push(format!("{}/{took}", String::from_utf8_lossy(line))),
                Line::TooLong(took) => found.push(format!("-/{took}")),
                Line::Pause => {}
                Line::End => return found,
            }
        }
    }

    #[test]
    fn lines_end_with_a_newline_or_with_the_input() {
        assert_eq!(lines(b"ab\n\ncd", 9), ["ab/3", "/1", "cd/2"]);
        assert_eq!(lines(b"ab\n", 9), ["ab/3"]);
        assert_eq!(lines(b"", 9), [""; 0]);
    }

    #[test]
    fn a_line_over_the_bound_is_passed_over_and_counted() {
        assert_eq!(lines(b"abcd\nef\nghijk", 3), ["-/5", "ef/3", "-/5"]);
    }
}
