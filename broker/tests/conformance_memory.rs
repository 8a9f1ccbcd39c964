//! The conformance suite over `memory://`.
//!
//! It keeps nothing over a restart and has no connections, so the cases that restart the broker are not asked for.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use wf_broker::conformance::{Fill, Rig};
use wf_broker::{Broker, Embedded, EmbeddedOptions};

/// A lane is full with so many messages of so many bytes.
const FILL: Fill = Fill { messages: 1_000, bytes: 1_024 };
/// So many outcomes are kept.
const OUTCOMES: usize = 500;

struct Memory(Arc<dyn Broker>);

async fn memory() -> Memory {
    let weight = FILL.bytes as u64 + EmbeddedOptions::MESSAGE_OVERHEAD;
    let options = EmbeddedOptions::default()
        .lease(Duration::from_secs(1))
        .and_then(|options| options.lane_bytes(FILL.messages as u64 * weight))
        .and_then(|options| options.dead_bytes(1 << 20))
        .and_then(|options| options.outcome_records(OUTCOMES as u64))
        .unwrap();
    Memory(Embedded::memory(options).unwrap())
}

impl Rig for Memory {
    fn open(&self) -> BoxFuture<'_, Arc<dyn Broker>> {
        Box::pin(async { self.0.clone() })
    }

    fn fill(&self) -> Fill {
        FILL
    }

    fn outcomes(&self) -> usize {
        OUTCOMES
    }

    fn restart(&self, _: Duration) -> BoxFuture<'_, ()> {
        unreachable!("no case that restarts the broker is asked for")
    }
}

wf_broker::conformance_tests!(memory);
