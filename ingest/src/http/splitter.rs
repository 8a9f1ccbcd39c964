//! Cuts a bulk body into jobs as it comes in, whatever the pieces it comes in.
//!
//! Holds one unfinished item at most, and of that no more than the limit: a body of any size passes in flat memory.
//! Looks for where items begin and end only; what is inside them is judged when they are read.

mod array;
#[cfg(test)]
mod laws;
mod lines;

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use array::Array;
use lines::Lines;

/// How a bulk body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One JSON array of jobs.
    Array,
    /// One job a line.
    Lines,
}

/// Items that are complete, in one piece of memory.
#[derive(Debug, Default)]
pub(crate) struct Block {
    bytes: Bytes,
    items: Vec<Item>,
}

/// Where an item stands.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// Its place among the items of the body, from 0. Empty lines are no items.
    pub(crate) index: u64,
    /// The line of the body that it begins on, from 1.
    pub(crate) line: u64,
    /// `None` if it is longer than the limit.
    at: Option<Range<usize>>,
}

impl Block {
    /// The items, each with its bytes unless it is too long.
    pub(crate) fn items(&self) -> impl Iterator<Item = (&Item, Option<&[u8]>)> {
        self.items.iter().map(|item| (item, item.at.clone().and_then(|at| self.bytes.get(at))))
    }
}

/// Why a body is no list of jobs. What came before can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub(crate) struct Broken {
    pub(crate) line: u64,
    pub(crate) what: &'static str,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Splitter {
    scanner: Scanner,
    /// From the beginning of the unfinished item on.
    buffer: BytesMut,
    /// How much of `buffer` was looked at.
    scanned: usize,
    found: Found,
    most_held: usize,
}

#[derive(Debug)]
enum Scanner {
    Array(Array),
    Lines(Lines),
}

/// What the scanners add to.
#[derive(Debug)]
struct Found {
    items: Vec<Item>,
    next: u64,
    /// The line that is looked at.
    line: u64,
    /// The longest item, in bytes.
    limit: usize,
    /// The unfinished item is too long: its bytes are dropped as they come.
    skipping: bool,
}

impl Found {
    fn add(&mut self, line: u64, at: Range<usize>) {
        let at = (!std::mem::take(&mut self.skipping) && at.len() <= self.limit).then_some(at);
        self.items.push(Item { index: self.next, line, at });
        self.next += 1;
    }
}

impl Splitter {
    /// Cuts a body of `shape` into items of at most `limit` bytes.
    pub(crate) fn new(shape: Shape, limit: usize) -> Self {
        let scanner = match shape {
            Shape::Array => Scanner::Array(Array::default()),
            Shape::Lines => Scanner::Lines(Lines),
        };
        let found = Found { items: Vec::new(), next: 0, line: 1, limit, skipping: false };
        Self { scanner, buffer: BytesMut::new(), scanned: 0, found, most_held: 0 }
    }

    /// Takes the next piece of the body: the items that it completes.
    ///
    /// # Errors
    /// When the body is no list. What it says before that place comes with it, and nothing more may be fed.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> (Block, Result<(), Broken>) {
        self.buffer.extend_from_slice(piece);
        self.most_held = self.most_held.max(self.buffer.len());
        let scanned = match &mut self.scanner {
            Scanner::Array(array) => array.scan(&self.buffer, self.scanned, &mut self.found),
            Scanner::Lines(lines) => Ok(lines.scan(&self.buffer, self.scanned, &mut self.found)),
        };
        match scanned {
            Ok(unfinished) => (self.cut(unfinished), Ok(())),
            Err(broken) => (self.cut(self.buffer.len()), Err(broken)),
        }
    }

    /// Says that the body is over: the item that ends with it, if there is one.
    ///
    /// # Errors
    /// When the list is not complete.
    pub(crate) fn end(mut self) -> (Block, Result<(), Broken>) {
        let ended = match &self.scanner {
            Scanner::Array(array) => array.end(&self.found),
            Scanner::Lines(lines) => {
                lines.end(&self.buffer, &mut self.found);
                Ok(())
            }
        };
        (self.cut(self.buffer.len()), ended)
    }

    /// The bytes of the unfinished item.
    pub(crate) fn held(&self) -> usize {
        self.buffer.len()
    }

    /// The most bytes that were ever held.
    pub(crate) fn most_held(&self) -> usize {
        self.most_held
    }

    /// The block up to `unfinished`, where the unfinished item begins.
    fn cut(&mut self, unfinished: usize) -> Block {
        let bytes = self.buffer.split_to(unfinished.min(self.buffer.len())).freeze();
        if self.buffer.len() > self.found.limit {
            self.found.skipping = true;
        }
        if self.found.skipping {
            self.buffer.clear();
        }
        self.scanned = self.buffer.len();
        Block { bytes, items: std::mem::take(&mut self.found.items) }
    }
}
