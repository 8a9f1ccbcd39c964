//! Messages of plain JSON, as the nats CLI sends them.

use bytes::Bytes;
use proptest::prelude::*;
use wf_schema::{Batch, Format, JsonBatch, Lane, Limits, Priority, Queue, WireError};

use crate::samples;
use crate::targets::{self, jobs};

fn read(message: &str) -> Result<JsonBatch, WireError> {
    read_from(message, &Lane::default())
}

fn read_from(message: &str, lane: &Lane) -> Result<JsonBatch, WireError> {
    Batch::from_json(&Bytes::copy_from_slice(message.as_bytes()), lane, samples::header(Format::Json), &Limits::default())
}

fn args(read: &JsonBatch) -> Vec<(u32, &str)> {
    read.batch.iter().map(|job| (job.index(), std::str::from_utf8(job.args()).unwrap())).collect()
}

const ADD: &str = r#"{"kind":"math_add","args":{"a":2,"b":3}}"#;

#[test]
fn one_job() {
    let pretty = "\n{\n  \"kind\": \"math_add\",\n  \"args\": {\n    \"a\": 2\n  }\n}\n";
    for (message, expected) in [(ADD, r#"{"a":2,"b":3}"#), (pretty, "{\n    \"a\": 2\n  }")] {
        assert!(Batch::is_json(message.as_bytes()) && !Batch::is_framed(message.as_bytes()));
        let read = read(message).unwrap();
        assert_eq!(args(&read), [(0, expected)]);
        assert!(read.bad.is_empty() && read.later.is_empty());
        assert_eq!(read.batch.header(), &samples::header(Format::Json));
    }
}

#[test]
fn an_array() {
    let read = read(&format!(" [{ADD}, {{\"kind\":\"k\"}},\n 7, {ADD}] ")).unwrap();
    assert_eq!(args(&read), [(0, r#"{"a":2,"b":3}"#), (3, r#"{"a":2,"b":3}"#)]);
    let bad: Vec<_> = read.bad.iter().map(|bad| (bad.index, &bad.bytes[..])).collect();
    assert_eq!(bad, [(1, &br#"{"kind":"k"}"#[..]), (2, b"7")]);
    assert!(read.bad[0].error.contains("missing field `args`"));
    assert!(self::read("[]").unwrap().batch.is_empty());
}

#[test]
fn a_job_a_line() {
    let read = read(&format!("{ADD}\r\n\n  {{broken\n{ADD}  \n{{\"kind\":\"k\",\"args\":1,\"delay\":\"1h\"}}\n")).unwrap();
    assert_eq!(args(&read), [(0, r#"{"a":2,"b":3}"#), (2, r#"{"a":2,"b":3}"#), (3, "1")]);
    assert_eq!((read.bad[0].index, &read.bad[0].bytes[..]), (1, &b"{broken"[..]));
    assert_eq!(read.later.len(), 1);
    assert_eq!(read.later[0].0, 2, "the place in the batch, not the index");
}

#[test]
fn what_is_neither_is_refused_whole() {
    for message in ["", "   ", "hello", "7", "null", "\"text\"", "\u{feff}{}"] {
        assert_eq!(read(message).unwrap_err(), WireError::Magic, "{message:?}");
    }
    for message in ["[", "[1", "[1,]", "[1] 2", "[{]"] {
        assert!(matches!(read(message), Err(WireError::Malformed(_))), "{message:?}");
    }
    let wrong_text = Bytes::from_static(b"{\"kind\":\"\xff\",\"args\":1}");
    let read = Batch::from_json(&wrong_text, &Lane::default(), samples::header(Format::Json), &Limits::default()).unwrap();
    assert_eq!((read.batch.len(), read.bad.len()), (0, 1));
}

#[test]
fn a_message_over_the_limit_is_refused() {
    let limits = Limits { raw_bytes: 30, jobs: 2, ..Limits::default() };
    let read =
        |message: &'static str| Batch::from_json(&message.into(), &Lane::default(), samples::header(Format::Json), &limits);
    assert!(matches!(read(ADD), Err(WireError::Limit { value: 40, limit: 30, .. })));
    assert_eq!(read("{}\n{}").unwrap().bad.len(), 2);
    assert!(matches!(read("{}\n{}\n{}"), Err(WireError::Limit { value: 3, limit: 2, .. })));
    assert!(matches!(read("[1,2,3,4"), Err(WireError::Limit { value: 3, limit: 2, .. })));
    assert!(matches!(read("[1,2"), Err(WireError::Malformed(_))));
}

#[test]
fn a_job_that_asks_for_another_lane_is_named() {
    let mail = Lane::new(Queue::new("mail").unwrap(), Priority::High);
    let ask = |fields: &str| read_from(&format!(r#"{{"kind":"k","args":1{fields}}}"#), &mail).unwrap();
    for fields in ["", r#","queue":"mail""#, r#","priority":"high""#, r#","queue":"mail","priority":"high""#] {
        assert_eq!(ask(fields).batch.len(), 1, "{fields}");
    }
    for fields in [r#","queue":"web""#, r#","priority":"low""#] {
        let read = ask(fields);
        assert!(read.batch.is_empty());
        assert!(read.bad[0].error.contains("was published to lane mail.high"), "{}", read.bad[0].error);
        assert_eq!(read.bad[0].bytes[0], b'{', "the whole item, not its args");
    }
}

#[test]
fn more_kinds_and_policies_than_one_batch_holds_become_several() {
    let line = |n| format!(r#"{{"kind":"k{n}","args":{n},"timeout":"{}ms"}}"#, n + 1);
    let message: Vec<_> = (0..1_000).map(line).collect();
    let read = read(&message.join("\n")).unwrap();
    assert_eq!((read.batch.len(), read.bad.len(), read.batch.kinds().len()), (1_000, 0, 1_000));
    let parts = read.batch.encode_within(usize::MAX).unwrap();
    assert_eq!(parts.len(), 4);
    let again: Vec<_> = parts.iter().flat_map(|part| jobs(&Batch::decode(part, &Limits::default()).unwrap())).collect();
    assert_eq!(again, jobs(&read.batch));
}

#[test]
fn deeply_nested_args_are_refused_and_their_neighbours_are_not() {
    let deep = format!(r#"{{"kind":"k","args":{}{}}}"#, "[".repeat(50_000), "]".repeat(50_000));
    for message in [format!("{ADD}\n{deep}\n{ADD}"), format!("[{ADD},{deep},{ADD}]")] {
        let read = read(&message).unwrap();
        assert_eq!((read.batch.len(), read.bad.len()), (2, 1));
        assert!(read.bad[0].error.contains("nested too deeply"), "{}", read.bad[0].error);
    }
}

#[test]
fn a_long_mistake_has_a_short_message() {
    let read = read(&format!(r#"{{"kind":"k","args":1,"{}":1}}"#, "x".repeat(1 << 20))).unwrap();
    assert!(read.bad[0].error.len() < 1_000);
}

fn item() -> impl Strategy<Value = String> {
    let job = ("[a-d]", 0..1_000_u32, 1..4_u32, any::<bool>()).prop_map(|(kind, n, attempts, wide)| {
        let space = if wide { "  " } else { "" };
        format!(r#"{{{space}"kind":{space}"{kind}","args":{{"n":{n}}},"max_attempts":{attempts}{space}}}"#)
    });
    prop_oneof![8 => job, 1 => Just(r#"{"kind":"k"}"#.to_owned()), 1 => Just("{}".to_owned()), 1 => Just("[1]".to_owned())]
}

proptest! {
    #[test]
    fn lines_and_an_array_are_the_same(items in proptest::collection::vec(item(), 2..30)) {
        // The first line decides what the message is.
        let items = [vec![ADD.to_owned()], items].concat();
        let (lines, array) = (read(&items.join("\n")).unwrap(), read(&format!("[{}]", items.join(" , "))).unwrap());
        prop_assert_eq!(jobs(&lines.batch), jobs(&array.batch));
        prop_assert_eq!(lines.bad.len() + lines.batch.len(), items.len());
        for (a, b) in lines.bad.iter().zip(&array.bad) {
            prop_assert_eq!((a.index, &a.bytes, &a.error), (b.index, &b.bytes, &b.error));
            prop_assert_eq!(&a.bytes, items[a.index as usize].as_bytes());
        }
    }

    #[test]
    fn anything_like_json_is_read_or_refused(text in r#"[\[{]{1,3}([{}\[\],:"\\ntruekids0-9\n .e-]|"kind"|"args"|:|,|\{|\}){0,60}"#) {
        targets::json_message(text.as_bytes());
        targets::job_form(text.as_bytes());
    }
}
