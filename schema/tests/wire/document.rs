//! A second reader of the wire format, written from docs/wire-format.md: it names every byte of a message. What it says
//! of the golden files is beside them, and in the document.

use std::fmt::Write as _;

use wf_schema::Limits;

use crate::golden::{blessing, schema, write};
use crate::{samples, size};

/// Every byte of `message` and what it means.
pub(crate) fn dump(message: &[u8]) -> String {
    let mut head = Reading::new(message);
    head.bytes(2, "magic \"WF\"");
    let version = head.byte("version");
    assert_eq!(version, 2, "describe the new version here and in the document");
    let codec = head.byte("codec (0 none, 1 LZ4)");
    let raw_len = head.word("length of the body, decompressed");
    let crc = head.word("CRC-32C of all that follows");
    assert_eq!(crc, crc32c::crc32c(&message[12..]));
    let body = samples::body(message);
    assert_eq!(body.len(), raw_len as usize);
    if codec == 1 {
        let _ = writeln!(head.text, "and {} bytes of LZ4, which are:", message.len() - 12);
        return head.text + &fields(&body, 0);
    }
    head.text + &fields(message, 12)
}

fn fields(bytes: &[u8], from: usize) -> String {
    let mut body = Reading { bytes, at: from, text: String::new() };
    match body.byte("content (1 batch, 2 record, 3 dead letter, 4 marked record)") {
        1 => batch(&mut body),
        2 => record(&mut body),
        3 => dead_letter(&mut body),
        4 => {
            if body.number("mark (0 nothing, 1 all, 2 jobs, 3 scheduled)") >= 2 {
                body.list("marked jobs", |r| {
                    r.number("index");
                });
            }
            record(&mut body);
        }
        other => panic!("content {other}"),
    }
    assert_eq!(body.at, bytes.len(), "the document leaves bytes unexplained");
    body.text
}

fn batch(r: &mut Reading<'_>) {
    r.bytes(16, "batch id");
    r.number("enqueued_at, ms");
    r.option("due", |r| {
        r.number("due, ms");
    });
    r.number("format (0 JSON, 1 postcard)");
    r.byte("hops");
    r.option("trace", |r| r.string("trace"));
    r.number("remember, s");
    r.list("kinds", |r| r.string("kind"));
    r.list("policies", |r| {
        r.number("max_attempts");
        r.number("timeout, ms");
        r.number("backoff min, ms");
        r.number("backoff max, ms");
        r.option("expires_in", |r| {
            r.number("expires_in, ms");
        });
        r.byte("store_result");
    });
    r.number("count of jobs");
    for column in ["kind_of", "policy_of", "args_len", "args", "indexes", "attempts", "history_len", "histories"] {
        r.string(column);
    }
}

fn record(r: &mut Reading<'_>) {
    r.bytes(16, "batch id");
    r.string("run: store");
    r.number("run: sequence");
    r.number("step");
    r.number("writer");
    r.string("executor");
    r.number("at, ms");
    lane(r);
    r.number("format (0 JSON, 1 postcard)");
    r.number("cut");
    r.list("kinds", |r| r.string("kind"));
    r.number("count of outcomes");
    for column in ["kind_of", "states", "indexes", "attempts", "result_len", "results", "failures"] {
        r.string(column);
    }
}

fn dead_letter(r: &mut Reading<'_>) {
    lane(r);
    r.number("at, ms");
    r.string("executor");
    if r.number("remains (0 jobs, 1 raw)") == 1 {
        r.string("failure: type");
        r.string("failure: message");
    }
    r.string("message");
}

fn lane(r: &mut Reading<'_>) {
    r.string("queue");
    r.number("priority (0 high, 1 normal, 2 low)");
}

struct Reading<'a> {
    bytes: &'a [u8],
    at: usize,
    text: String,
}

impl<'a> Reading<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, text: String::new() }
    }

    fn line(&mut self, len: usize, meaning: &str) -> &'a [u8] {
        let taken = &self.bytes[self.at..self.at + len];
        for (n, row) in taken.chunks(8).enumerate() {
            let hex: Vec<_> = row.iter().map(|byte| format!("{byte:02x}")).collect();
            let line = format!("{:04x}  {:<23}  {}", self.at + 8 * n, hex.join(" "), if n == 0 { meaning } else { "" });
            self.text.push_str(line.trim_end());
            self.text.push('\n');
        }
        self.at += len;
        taken
    }

    fn bytes(&mut self, len: usize, meaning: &str) {
        self.line(len, meaning);
    }

    fn byte(&mut self, meaning: &str) -> u8 {
        self.line(1, &format!("{meaning}: {}", self.bytes[self.at]))[0]
    }

    fn word(&mut self, meaning: &str) -> u32 {
        let word = u32::from_le_bytes(*self.bytes[self.at..].first_chunk().unwrap());
        self.line(4, &format!("{meaning}: {word}"));
        word
    }

    fn varint(&self) -> (u64, usize) {
        let len = 1 + self.bytes[self.at..].iter().position(|byte| byte & 0x80 == 0).unwrap();
        let value = self.bytes[self.at..self.at + len].iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f));
        (value, len)
    }

    fn number(&mut self, meaning: &str) -> u64 {
        let (value, len) = self.varint();
        self.line(len, &format!("{meaning}: {value}"));
        value
    }

    fn string(&mut self, meaning: &str) {
        let (value, len) = self.varint();
        self.line(len, &format!("{meaning}: {value} bytes"));
        let taken = &self.bytes[self.at..self.at + value as usize];
        let shown = match std::str::from_utf8(taken) {
            Ok(text) if !text.contains(char::is_control) => format!("  {text}"),
            _ => String::new(),
        };
        self.line(taken.len(), &shown);
    }

    fn option(&mut self, meaning: &str, some: impl Fn(&mut Self)) {
        match self.bytes[self.at] {
            0 => self.bytes(1, &format!("{meaning}: none")),
            _ => {
                self.bytes(1, &format!("{meaning}: some"));
                some(self);
            }
        }
    }

    fn list(&mut self, meaning: &str, entry: impl Fn(&mut Self)) {
        (0..self.number(&format!("count of {meaning}"))).for_each(|_| entry(self));
    }
}

fn limits() -> String {
    let limits = Limits::default();
    let rows = [
        ("the body, decompressed", bytes(limits.raw_bytes)),
        ("jobs or outcomes of a message", limits.jobs.to_string()),
        ("args of a job", bytes(limits.args_bytes)),
        ("kinds, and policies, of a batch", Limits::TABLE.to_string()),
        ("past failures of a job", format!("{}, in {}", Limits::HISTORY, bytes(Limits::HISTORY_BYTES))),
        ("a trace", bytes(Limits::TRACE)),
        ("a kind", bytes(wf_schema::MAX_KIND_LEN)),
        ("a queue", bytes(wf_schema::MAX_QUEUE_LEN)),
        ("max_attempts", format!("1 to {}", wf_schema::Policy::MAX_ATTEMPTS)),
        ("timeout", format!("1 ms to {} s", wf_schema::Policy::MAX_TIMEOUT.as_secs())),
        ("backoff", format!("0 to {} s", wf_schema::Policy::MAX_BACKOFF.as_secs())),
    ];
    table(["what", "at most"], rows.map(|(what, limit)| [what.to_owned(), limit]).as_slice())
}

fn bytes(bytes: usize) -> String {
    match bytes {
        b if b % (1 << 20) == 0 => format!("{} MiB", b >> 20),
        b if b % (1 << 10) == 0 => format!("{} KiB", b >> 10),
        b => format!("{b} bytes"),
    }
}

fn sizes() -> String {
    let batches = size::batches().into_iter().map(|(name, bytes)| [name.to_owned(), format!("{bytes:.1}")]);
    let records = size::records().into_iter().map(|(name, bytes)| [name.to_owned(), format!("{bytes:.2}")]);
    format!(
        "{}\n{}",
        table(["1,000 jobs of", "bytes a job"], &batches.collect::<Vec<_>>()),
        table(["1,000 outcomes, completed", "bytes an outcome"], &records.collect::<Vec<_>>()),
    )
}

fn table(head: [&str; 2], rows: &[[String; 2]]) -> String {
    let rows: String = rows.iter().map(|[a, b]| format!("| {a} | {b} |\n")).collect();
    format!("| {} | {} |\n| --- | --- |\n{rows}", head[0], head[1])
}

#[test]
fn the_document_says_what_is() {
    let path = schema().join("../docs/wire-format.md");
    let mut document = std::fs::read_to_string(&path).unwrap();
    let example = format!("```text\n{}```\n", dump(&samples::all()[0].message));
    for (name, text) in [("example", example), ("limits", limits()), ("sizes", sizes())] {
        let (begin, end) = (format!("<!-- generated: {name} -->\n"), "<!-- end -->");
        let from = document.find(&begin).unwrap_or_else(|| panic!("{name} is missing")) + begin.len();
        let to = from + document[from..].find(end).unwrap();
        if blessing() {
            document.replace_range(from..to, &text);
        } else {
            assert_eq!(&document[from..to], text, "{name} in docs/wire-format.md is out of date: WF_BLESS=1 writes it");
        }
    }
    if blessing() {
        write(&path, document);
    }
}
