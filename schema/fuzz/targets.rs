//! What must hold for any bytes from outside. Run by the fuzzer, by the replay of its corpus, and by property tests.
//!
//! Every function panics when something is wrong, and only then: an error for wrong input is right.

use bytes::Bytes;
use wf_schema::config::Loader;
use wf_schema::{
    Batch, BatchBuilder, BatchId, DeadLetter, Failure, Format, Header, Job, Kind, Lane, Limits, Millis, PastFailure, Policy,
    Record, RecordBuilder, Remains, State,
};

/// A batch: read, every job looked at, written again, and the same jobs read back.
pub fn wire_batch(data: &[u8]) {
    for message in messages(1, data) {
        if let Ok(batch) = Batch::decode(&message, &limits()) {
            check_batch(&batch);
        }
    }
}

/// A record: read, every outcome looked at, written again, and the same outcomes read back.
pub fn wire_record(data: &[u8]) {
    for message in messages(2, data).into_iter().chain(messages(4, data)) {
        let Ok(record) = Record::decode(&message, &limits()) else { continue };
        let outcomes = outcomes(&record);
        let mut again = RecordBuilder::new(record.header().clone());
        if let Some(mark) = record.mark() {
            again = again.marking(mark.clone());
        }
        for outcome in &outcomes {
            let Outcome { index, attempt, kind, state, result, failure, retry_at } = outcome.clone();
            let fitted = match state {
                State::Completed => again.completed(index, attempt, &kind, &result),
                _ => again.failed(index, attempt, &kind, state, failure, retry_at),
            };
            assert!(fitted, "what one record held does not fit into another");
        }
        let again = Record::decode(&again.encode(), &Limits::default()).expect("a record that was just written");
        assert_eq!((again.header(), again.mark()), (record.header(), record.mark()));
        assert_eq!(self::outcomes(&again), outcomes);
    }
}

/// A dead letter: read, written again, and the same read back; the jobs in it as a batch.
pub fn dead_letter(data: &[u8]) {
    for message in messages(3, data) {
        let Ok(letter) = DeadLetter::decode(&message, &limits()) else { continue };
        if let Ok(Some(batch)) = letter.jobs(&limits()) {
            check_batch(&batch);
        }
        if let Remains::Raw { bytes, .. } = &letter.remains {
            assert!(bytes.len() <= message.len().max(limits().raw_bytes));
        }
        assert_eq!(DeadLetter::decode(&letter.encode(), &Limits::default()).expect("a letter that was just written"), letter);
    }
}

/// A message of plain JSON: every item is a job or a named mistake, and the jobs survive the wire.
pub fn json_message(data: &[u8]) {
    let message = Bytes::copy_from_slice(data);
    let header = Header { enqueued_at: 1, ..Header::new(BatchId::from(7), Format::Json) };
    let Ok(read) = Batch::from_json(&message, &Lane::default(), header, &limits()) else { return };
    let mut seen: Vec<u32> = read.batch.iter().map(|job| job.index()).chain(read.bad.iter().map(|bad| bad.index)).collect();
    seen.sort_unstable();
    assert!(seen.iter().copied().eq(0..seen.len() as u32), "an item was lost, or is there twice");
    assert!(seen.len() <= limits().jobs);
    assert!(read.bad.iter().all(|bad| !bad.error.is_empty() && bad.error.len() < 4096));
    assert!(read.later.iter().all(|(place, _)| read.batch.get(*place).is_some()));
    check_batch(&read.batch);
}

/// A job as a JSON object: what is taken fits into a batch and comes out as it went in.
pub fn job_form(data: &[u8]) {
    let Ok(job) = Job::from_json(data, &limits()) else { return };
    let mut open = BatchBuilder::new(Header::new(BatchId::from(7), Format::Json));
    assert_eq!(open.push(&job), Ok(0));
    let batch = Batch::decode(&open.encode(), &limits()).expect("a batch that was just written");
    let read = batch.get(0).expect("the job");
    assert_eq!((read.kind().as_str(), read.args(), read.policy()), (&*job.kind, &*job.args, &job.policy));
    // Deeper args would pass the door and fail in every handler.
    let value = serde_json::from_slice::<serde_json::Value>(read.args());
    assert!(!value.is_err_and(|error| error.to_string().contains("recursion")), "args are nested too deeply");
}

/// The sources of a configuration: a file, then variables, one a line, then flags, with a zero byte between them. What
/// is taken is shown, and what is shown is taken for the same; what is not is refused with a reason.
pub fn config(data: &[u8]) {
    let mut sources = data.splitn(3, |byte| *byte == 0);
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("wf.toml"), sources.next().unwrap_or_default()).expect("a file");
    let mut lines = || {
        let text = String::from_utf8_lossy(sources.next().unwrap_or_default()).into_owned();
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect::<Vec<_>>()
    };
    // Or it would read files of other people's.
    let variables = lines().into_iter().filter(|(key, _)| key != "WF_CONFIG");
    let loader = Loader::new().directory(directory.path()).env(variables).flags(lines());
    match loader.load() {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(loaded) => {
            let shown = loaded.rows().iter().map(|row| (row.key.to_owned(), row.value.clone()));
            // Under `auto` it is also told what that came to; addresses are shown without passwords.
            let again = shown.filter(|(key, value)| !(key == "profile" && value.starts_with("auto")) && key != "broker.url");
            let again = loader.flags(again).load().expect("what was shown is a configuration");
            assert_eq!(again.config, loaded.config);
        }
    }
}

/// The target called `name`, for those who have it from a directory.
pub fn named(name: &str) -> Option<fn(&[u8])> {
    Some(match name {
        "wire_batch" => wire_batch,
        "wire_record" => wire_record,
        "dead_letter" => dead_letter,
        "json_message" => json_message,
        "job_form" => job_form,
        "config" => config,
        _ => return None,
    })
}

/// Smaller than the defaults, so that small inputs reach them.
fn limits() -> Limits {
    Limits { raw_bytes: 64 * 1024, jobs: 1_000, args_bytes: 4 * 1024 }
}

/// `data` as a whole message, and, since hardly any bytes have the right checksum, as the body of a sound one, plain
/// and compressed.
fn messages(content: u8, data: &[u8]) -> [Bytes; 3] {
    let plain = [&[content], data].concat();
    let raw_len = data.first_chunk().map_or(0, |len| u32::from(u16::from_le_bytes(*len)));
    let packed = data.get(2..).unwrap_or_default();
    [Bytes::copy_from_slice(data), envelope(0, plain.len() as u32, &plain), envelope(1, raw_len, packed)]
}

/// A message as docs/wire-format.md has it, with the right checksum.
pub fn envelope(codec: u8, raw_len: u32, body: &[u8]) -> Bytes {
    let mut message = b"WF\x02".to_vec();
    message.push(codec);
    message.extend(raw_len.to_le_bytes());
    message.extend(crc32c::crc32c(body).to_le_bytes());
    message.extend_from_slice(body);
    message.into()
}

/// Everything there is to know of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub index: u32,
    pub attempt: u32,
    pub kind: Kind,
    pub policy: Policy,
    pub args: Bytes,
    pub history: Vec<PastFailure>,
}

/// Everything there is to know of the jobs of `batch`.
pub fn jobs(batch: &Batch) -> Vec<Seen> {
    batch
        .iter()
        .map(|job| {
            let args = job.args_shared();
            assert_eq!(args, job.args());
            assert_eq!(&batch.kinds()[job.kind_slot()], job.kind());
            assert_eq!((job.id().batch, job.id().index), (batch.header().id, job.index()));
            let (kind, policy) = (job.kind().clone(), job.policy().clone());
            Seen { index: job.index(), attempt: job.attempt(), kind, policy, args, history: job.history() }
        })
        .collect()
}

fn check_batch(batch: &Batch) {
    let jobs = self::jobs(batch);
    assert_eq!(jobs.len(), batch.len());
    for job in &jobs {
        let Policy { max_attempts, timeout_ms, backoff, .. } = job.policy;
        assert!(job.attempt >= 1);
        assert!((1..=Policy::MAX_ATTEMPTS).contains(&max_attempts));
        assert!((1..=Policy::MAX_TIMEOUT.as_millis() as u64).contains(&timeout_ms));
        assert!(backoff.min_ms <= backoff.max_ms && backoff.max_ms <= Policy::MAX_BACKOFF.as_millis() as u64);
        assert!(job.history.len() <= Limits::HISTORY);
        assert!(Kind::new(job.kind.as_str()).is_ok());
        job.policy.expires_at(Millis::MAX);
    }
    for max in [usize::MAX, 300] {
        let Ok(messages) = batch.encode_within(max) else {
            assert_ne!(max, usize::MAX, "a job that was read cannot be written");
            continue;
        };
        let mut again = Vec::new();
        for message in messages {
            assert!(message.len() <= max);
            let part = Batch::decode(&message, &Limits::default()).expect("a batch that was just written");
            assert_eq!(part.header(), batch.header());
            again.extend(self::jobs(&part));
        }
        assert_eq!(again, jobs);
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Outcome {
    index: u32,
    attempt: u32,
    kind: Kind,
    state: State,
    result: Vec<u8>,
    failure: Option<Failure>,
    retry_at: Option<Millis>,
}

fn outcomes(record: &Record) -> Vec<Outcome> {
    record
        .iter()
        .map(|outcome| Outcome {
            index: outcome.index(),
            attempt: outcome.attempt(),
            kind: outcome.kind().clone(),
            state: outcome.state(),
            // Only what completed has a result, and texts are written cut to what is kept.
            result: if outcome.state() == State::Completed { outcome.result().to_vec() } else { Vec::new() },
            failure: outcome.failure().map(|failure| Failure::new(&*failure.kind, &*failure.message)),
            retry_at: outcome.retry_at(),
        })
        .collect()
}
