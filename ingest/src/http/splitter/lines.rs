//! One item a line.

use std::ops::Range;

use super::Found;

/// The mark that some editors put in front of UTF-8.
const BOM: &[u8] = b"\xef\xbb\xbf";

#[derive(Debug)]
pub(super) struct Lines;

impl Lines {
    /// Looks through `buffer` from `from` on: where the unfinished line begins.
    pub(super) fn scan(&mut self, buffer: &[u8], from: usize, found: &mut Found) -> usize {
        let mut begin = 0;
        for newline in memchr::memchr_iter(b'\n', &buffer[from..]) {
            let end = from + newline;
            take(buffer, begin..end, found);
            begin = end + 1;
            found.line += 1;
        }
        begin
    }

    /// The last line may end without a newline.
    pub(super) fn end(&self, buffer: &[u8], found: &mut Found) {
        take(buffer, 0..buffer.len(), found);
    }
}

fn take(buffer: &[u8], line: Range<usize>, found: &mut Found) {
    let text = &buffer[line.clone()];
    let start = if found.line == 1 && text.starts_with(BOM) { BOM.len() } else { 0 };
    let lead = start + text[start..].iter().take_while(|b| b.is_ascii_whitespace()).count();
    let len = text[lead..].trim_ascii_end().len();
    // The limit is one on what is held, so blanks count.
    found.skipping |= text.len() > found.limit;
    if len > 0 || found.skipping {
        let begin = line.start + lead;
        found.add(found.line, begin..begin + len);
    }
}
