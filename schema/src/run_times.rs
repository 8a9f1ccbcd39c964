//! How long jobs take: what executors measure and share, so that batches of slow jobs are cut to size.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Kind, Millis, WireError};

/// The version that is written, and read.
const VERSION: u8 = 1;

/// The run times of a factory's kinds, as they stand in its keyed record [`RunTimes::KEY`]. JSON, so that people can
/// look at it.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use wf_schema::{Kind, RunTime, RunTimes};
///
/// let mut times = RunTimes::default();
/// times.set(Kind::new("print")?, RunTime { micros: 120_000, at: 1_795_339_800_000 });
/// let read = RunTimes::decode(&times.encode())?;
/// assert_eq!(read.get("print"), Some(Duration::from_millis(120)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunTimes {
    kinds: BTreeMap<Kind, RunTime>,
}

/// How long jobs of one kind run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunTime {
    /// The moving average, in microseconds.
    #[serde(rename = "us")]
    pub micros: u64,
    /// When that was written down.
    pub at: Millis,
}

#[derive(Deserialize)]
struct Head {
    v: u8,
}

#[derive(Serialize, Deserialize)]
struct Body<K> {
    v: u8,
    kinds: K,
}

impl RunTimes {
    /// The key of the record.
    pub const KEY: &str = "run_times";
    /// The most kinds that are kept: those written down last.
    pub const MAX_KINDS: usize = 512;
    /// The largest record that is read, in bytes.
    pub const MAX_BYTES: usize = 128 << 10;

    /// Reads a record.
    ///
    /// # Errors
    /// When it is too large, of a newer version, or nothing of the sort.
    pub fn decode(record: &[u8]) -> Result<Self, WireError> {
        if record.len() > Self::MAX_BYTES {
            let (what, value, limit) = ("the size of the run times", record.len(), Self::MAX_BYTES);
            return Err(WireError::Limit { what, value, limit });
        }
        let malformed = |_| WireError::Malformed("the run times are not what they should be");
        // The version first: what else there is follows from it.
        let Head { v } = serde_json::from_slice(record).map_err(malformed)?;
        if v != VERSION {
            return Err(WireError::Version(v));
        }
        let body: Body<BTreeMap<Kind, RunTime>> = serde_json::from_slice(record).map_err(malformed)?;
        let mut times = Self::default();
        body.kinds.into_iter().for_each(|(kind, time)| times.set(kind, time));
        Ok(times)
    }

    /// The record.
    pub fn encode(&self) -> Bytes {
        // Kinds, numbers and a map of them: there is nothing that JSON cannot say.
        serde_json::to_vec(&Body { v: VERSION, kinds: &self.kinds }).unwrap_or_default().into()
    }

    /// How long a job of `kind` runs, if that is known.
    pub fn get(&self, kind: &str) -> Option<Duration> {
        self.kinds.get(kind).map(|time| Duration::from_micros(time.micros))
    }

    /// Writes down how long jobs of `kind` run. When that is one kind too many, the one written down first is forgotten.
    pub fn set(&mut self, kind: Kind, time: RunTime) {
        self.kinds.insert(kind, time);
        if self.kinds.len() > Self::MAX_KINDS {
            let oldest = self.kinds.iter().min_by_key(|(_, time)| time.at).map(|(kind, _)| kind.clone());
            oldest.and_then(|kind| self.kinds.remove(&kind));
        }
    }

    /// All of them, by kind.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Kind, &RunTime)> {
        self.kinds.iter()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn kind(n: usize) -> Kind {
        Kind::new(&format!("{}{n:08}", "k".repeat(120))).unwrap()
    }

    #[test]
    fn the_form_of_version_1_stays_readable() {
        let record = br#"{"v":1,"kinds":{"mail.send":{"us":2500,"at":1795339800000},"noop":{"us":0,"at":7}}}"#;
        let times = RunTimes::decode(record).unwrap();
        assert_eq!(times.get("mail.send"), Some(Duration::from_micros(2_500)));
        assert_eq!((times.get("noop"), times.get("other")), (Some(Duration::ZERO), None));
        assert_eq!(&times.encode()[..], record);
    }

    #[test]
    fn it_is_bounded_and_what_was_written_last_is_kept() {
        let mut times = RunTimes::default();
        for n in 0..2 * RunTimes::MAX_KINDS {
            times.set(kind(n), RunTime { micros: u64::MAX, at: Millis::MAX - 10_000 + n as Millis });
        }
        assert_eq!(times.iter().len(), RunTimes::MAX_KINDS);
        assert_eq!((times.get(kind(0).as_str()), times.get(kind(1_023).as_str()).is_some()), (None, true));
        let record = times.encode();
        assert!(record.len() <= RunTimes::MAX_BYTES, "{} bytes", record.len());
        assert_eq!(RunTimes::decode(&record).unwrap(), times);
    }

    #[test]
    fn what_is_no_record_is_an_error() {
        let newer = br#"{"v":2,"kinds":[1,2,3]}"#;
        assert_eq!(RunTimes::decode(newer), Err(WireError::Version(2)));
        for wrong in [&b""[..], b"{}", b"[]", b"\xff", br#"{"v":1,"kinds":{"two words":{"us":1,"at":1}}}"#, br#"{"v":1}"#] {
            assert!(matches!(RunTimes::decode(wrong), Err(WireError::Malformed(_))), "{}", wrong.escape_ascii());
        }
        let large = vec![b' '; RunTimes::MAX_BYTES + 1];
        assert!(matches!(RunTimes::decode(&large), Err(WireError::Limit { .. })));
    }
}
