//! Messages that no builder would write. The fields are spelled out here once more, so that a change of the layout
//! without a new version does not go unseen.

use bytes::Bytes;
use serde::Serialize;
use wf_schema::{Header, Policy, RecordHeader};

use crate::samples;
use crate::targets::envelope;

#[derive(Clone, Serialize)]
pub(crate) struct BatchBody {
    pub(crate) header: Header,
    pub(crate) kinds: Vec<String>,
    pub(crate) policies: Vec<Policy>,
    pub(crate) count: u32,
    #[serde(with = "serde_bytes")]
    pub(crate) kind_of: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub(crate) policy_of: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub(crate) args_len: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub(crate) args: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub(crate) indexes: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub(crate) attempts: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub(crate) history_len: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub(crate) histories: Vec<u8>,
}

impl BatchBody {
    /// One job of kind `k`, with args of two bytes.
    pub(crate) fn one() -> Self {
        Self {
            header: samples::header(wf_schema::Format::Json),
            kinds: vec!["k".to_owned()],
            policies: vec![Policy::default()],
            count: 1,
            kind_of: Vec::new(),
            policy_of: Vec::new(),
            args_len: vec![2],
            args: b"{}".to_vec(),
            indexes: Vec::new(),
            attempts: Vec::new(),
            history_len: Vec::new(),
            histories: Vec::new(),
        }
    }

    pub(crate) fn message(&self) -> Bytes {
        seal(1, &postcard::to_stdvec(self).unwrap())
    }
}

#[derive(Clone, Serialize)]
pub(crate) struct RecordBody {
    pub(crate) header: RecordHeader,
    pub(crate) kinds: Vec<String>,
    pub(crate) count: u32,
    #[serde(with = "serde_bytes")]
    pub(crate) kind_of: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub(crate) states: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub(crate) indexes: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub(crate) attempts: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub(crate) result_len: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub(crate) results: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub(crate) failures: Vec<u8>,
}

impl RecordBody {
    /// One outcome, completed, with a result of one byte.
    pub(crate) fn one() -> Self {
        Self {
            header: samples::record_header(),
            kinds: vec!["k".to_owned()],
            count: 1,
            kind_of: Vec::new(),
            states: Vec::new(),
            indexes: Vec::new(),
            attempts: Vec::new(),
            result_len: vec![1],
            results: b"5".to_vec(),
            failures: Vec::new(),
        }
    }

    pub(crate) fn message(&self) -> Bytes {
        seal(2, &postcard::to_stdvec(self).unwrap())
    }
}

/// A body of `content` in an envelope, not compressed.
pub(crate) fn seal(content: u8, body: &[u8]) -> Bytes {
    let body = [&[content], body].concat();
    envelope(0, body.len() as u32, &body)
}

/// The same, compressed whether that makes it smaller or not.
pub(crate) fn packed(content: u8, body: &[u8]) -> Bytes {
    let body = [&[content], body].concat();
    envelope(1, body.len() as u32, &lz4_flex::block::compress(&body))
}
