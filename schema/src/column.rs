//! Columns of small numbers: LEB128 varints one after another.

use std::ops::Range;

use crate::WireError;

pub(crate) fn push(column: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        column.push(value as u8 | 0x80);
        value >>= 7;
    }
    column.push(value as u8);
}

/// Where a piece of bytes is in the bytes of all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) len: u32,
}

impl Span {
    pub(crate) fn range(self) -> Range<usize> {
        let start = self.start as usize;
        start..start + self.len as usize
    }
}

/// Reads a column from its start.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    pub(crate) fn next(&mut self) -> Result<u32, WireError> {
        // One byte is by far the most common.
        if let [first, rest @ ..] = self.0
            && *first < 0x80
        {
            self.0 = rest;
            return Ok(u32::from(*first));
        }
        let mut value = 0u64;
        for (n, byte) in self.0.iter().enumerate().take(5) {
            value |= u64::from(byte & 0x7f) << (7 * n);
            if *byte < 0x80 {
                self.0 = &self.0[n + 1..];
                return u32::try_from(value).map_err(|_| WireError::Malformed("a number in a column is too large"));
            }
        }
        Err(WireError::Malformed("a column ends early"))
    }

    /// Reads a length and moves on to the piece of that length behind `last`, within `len` bytes.
    pub(crate) fn next_span(&mut self, last: Span, len: usize) -> Result<Span, WireError> {
        let (start, take) = (u64::from(last.start) + u64::from(last.len), self.next()?);
        let end = start + u64::from(take);
        // Lengths are bounded by a u32, the body too: what lies within it has a start that fits.
        match u32::try_from(start) {
            Ok(start) if end <= len as u64 => Ok(Span { start, len: take }),
            _ => Err(WireError::Truncated { have: len, want: usize::try_from(end).unwrap_or(usize::MAX) }),
        }
    }

    pub(crate) fn end(&self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::Malformed("a column is longer than the batch")) }
    }
}

/// Checks a column of places in a table of `len` entries.
pub(crate) fn places(column: &[u8], len: usize, count: usize) -> Result<&[u8], WireError> {
    let whole = column.len() == count || (column.is_empty() && (len == 1 || count == 0));
    if whole && column.iter().all(|at| (*at as usize) < len) {
        Ok(column)
    } else {
        Err(WireError::Malformed("a column points outside its table"))
    }
}
