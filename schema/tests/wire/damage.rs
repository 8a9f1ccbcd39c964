//! Messages that are not whole, or not what they were: refused, never a panic, never other jobs.

use bytes::Bytes;
use proptest::prelude::*;
use wf_schema::{Batch, DeadLetter, Limits, Record, WireError};

use crate::craft::{self, BatchBody, RecordBody};
use crate::samples::{self, Sample};
use crate::targets;

fn decode(sample: &Sample, message: &Bytes) -> Result<(), WireError> {
    let limits = Limits::default();
    match sample.target {
        "wire_batch" => Batch::decode(message, &limits).map(drop),
        "wire_record" => Record::decode(message, &limits).map(drop),
        _ => DeadLetter::decode(message, &limits).map(drop),
    }
}

#[test]
fn every_truncation_is_refused() {
    for sample in samples::all() {
        for len in 0..sample.message.len() {
            assert!(decode(&sample, &sample.message.slice(..len)).is_err(), "{} cut to {len} bytes", sample.name);
        }
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    for sample in samples::all() {
        for bit in 0..sample.message.len() * 8 {
            let mut message = sample.message.to_vec();
            message[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&sample, &message.into()).is_err(), "{} with bit {bit} flipped", sample.name);
        }
    }
}

#[test]
fn one_byte_more_is_refused() {
    for sample in samples::all() {
        let longer = [&sample.message[..], &[0]].concat();
        assert_eq!(decode(&sample, &longer.into()).unwrap_err(), WireError::Checksum, "{}", sample.name);
        // Also where the checksum is right: a field more is a new version.
        let body = samples::body(&sample.message);
        let longer = [&body[1..], &[0]].concat();
        assert!(matches!(decode(&sample, &craft::seal(body[0], &longer)), Err(WireError::Malformed(_))), "{}", sample.name);
    }
}

#[test]
fn what_is_wrong_is_told() {
    let limits = Limits::default();
    let good = BatchBody::one().message();
    assert_eq!(Batch::decode(&good, &limits).unwrap().len(), 1);
    let with = |at: usize, byte: u8| {
        let mut message = good.to_vec();
        message[at] = byte;
        Batch::decode(&message.into(), &limits).unwrap_err().to_string()
    };
    assert!(with(0, b'X').contains("starts with neither"));
    assert!(with(2, 9).contains("wire version 9 is none that this program reads"));
    assert!(with(2, 0).contains("wire version 0"));
    assert!(with(3, 9).contains("codec 9 is not known"));
    assert!(with(4, 9).contains("cut short"));
    assert!(with(9, 9).contains("checksum"));
    assert!(with(20, 9).contains("checksum"));
    assert!(Batch::decode(&good.slice(..7), &limits).unwrap_err().to_string().contains("7 bytes of 12"));
    assert_eq!(Record::decode(&good, &limits).unwrap_err(), WireError::Content { found: 1, expected: 2 });
}

#[test]
fn batches_that_contradict_themselves_are_refused() {
    let one = BatchBody::one;
    for (what, body) in [
        ("more jobs than args", BatchBody { count: 2, ..one() }),
        ("no kind for the job", BatchBody { kinds: vec![], ..one() }),
        ("no policy for the job", BatchBody { policies: vec![], ..one() }),
        ("a kind outside of the table", BatchBody { kind_of: vec![1], ..one() }),
        ("a policy outside of the table", BatchBody { policy_of: vec![1], ..one() }),
        ("two kinds, and which is not said", BatchBody { kinds: vec!["k".into(), "l".into()], ..one() }),
        ("a kind column that is too long", BatchBody { kind_of: vec![0, 0], ..one() }),
        ("args beyond the end", BatchBody { args_len: vec![3], ..one() }),
        ("a length of too many bits", BatchBody { args_len: vec![0xff; 9], ..one() }),
        ("a length of 2^32 + 2", BatchBody { args_len: vec![0x82, 0x80, 0x80, 0x80, 0x10], ..one() }),
        ("a column that ends early", BatchBody { args_len: vec![0x80], ..one() }),
        ("more lengths than jobs", BatchBody { args_len: vec![2, 0], ..one() }),
        ("indexes without attempts", BatchBody { indexes: vec![4], ..one() }),
        ("attempt 0", BatchBody { indexes: vec![4], attempts: vec![0], history_len: vec![0], ..one() }),
        ("a history beyond the end", BatchBody { indexes: vec![4], attempts: vec![1], history_len: vec![1], ..one() }),
        ("attempts without indexes", BatchBody { attempts: vec![1], ..one() }),
        ("jobs of no batch", BatchBody { count: 0, ..one() }),
        ("a kind that is none", BatchBody { kinds: vec!["a b".into()], ..one() }),
        ("a kind of no length", BatchBody { kinds: vec![String::new()], ..one() }),
    ] {
        assert!(Batch::decode(&body.message(), &Limits::default()).is_err(), "{what}");
    }
}

#[test]
fn records_that_contradict_themselves_are_refused() {
    let one = RecordBody::one;
    for (what, body) in [
        ("no kind for the outcome", RecordBody { kinds: vec![], ..one() }),
        ("more outcomes than results", RecordBody { count: 2, ..one() }),
        ("a state that is none", RecordBody { states: vec![6], ..one() }),
        ("a failure that is missing", RecordBody { states: vec![1], ..one() }),
        ("a failure too many", RecordBody { failures: vec![0, 0], ..one() }),
        ("states of more outcomes", RecordBody { states: vec![0, 0], ..one() }),
        ("a result beyond the end", RecordBody { result_len: vec![2], ..one() }),
        ("indexes without attempts", RecordBody { indexes: vec![3], ..one() }),
        ("attempt 0", RecordBody { indexes: vec![3], attempts: vec![0], ..one() }),
    ] {
        assert!(Record::decode(&body.message(), &Limits::default()).is_err(), "{what}");
    }
    // A mark that claims more jobs than a batch can have, and one of a sort that is none.
    let many = [&[2, 0xff, 0xff, 0xff, 0x7f][..], &samples::body(&RecordBody::one().message())[1..]].concat();
    assert!(matches!(Record::decode(&craft::seal(4, &many), &Limits::default()), Err(wf_schema::WireError::Limit { .. })));
    let other = [&[3][..], &samples::body(&RecordBody::one().message())[1..]].concat();
    assert!(Record::decode(&craft::seal(4, &other), &Limits::default()).is_err());
    // The run's store, a character, ends up in names at the broker.
    let body = samples::body(&RecordBody::one().message());
    let at = body.iter().position(|b| *b == b'j').unwrap();
    for (store, good) in [(b'k', true), (b'.', false), (b'*', false), (b' ', false)] {
        let mut body = body.clone();
        body[at] = store;
        assert_eq!(Record::decode(&craft::seal(2, &body[1..]), &Limits::default()).is_ok(), good, "{}", store as char);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..600)) {
        for target in ["wire_batch", "wire_record", "dead_letter", "json_message", "job_form"] {
            targets::named(target).unwrap()(&data);
        }
    }

    /// Changes the body, and then makes the checksum right again: what reaches the columns.
    #[test]
    fn any_changes_of_a_body_are_read_or_refused(
        which in any::<proptest::sample::Index>(),
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0..4_u8), 1..6),
    ) {
        let samples = samples::all();
        let sample = which.get(&samples);
        let mut body = samples::body(&sample.message);
        for (at, byte, edit) in edits {
            let at = at.index(body.len());
            match edit {
                0 => body.insert(at, byte),
                1 if body.len() > 1 => drop(body.remove(at)),
                2 => body[at] = body[at].wrapping_add(byte % 3).wrapping_sub(1),
                _ => body[at] = byte,
            }
        }
        targets::named(sample.target).unwrap()(&body[1..]);
        targets::named(sample.target).unwrap()(&craft::packed(body[0], &body[1..]));
    }
}
