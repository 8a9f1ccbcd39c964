//! Columns of small numbers: LEB128 varints one after another.

use crate::WireError;

pub(crate) fn push(column: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        column.push(value as u8 | 0x80);
        value >>= 7;
    }
    column.push(value as u8);
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
