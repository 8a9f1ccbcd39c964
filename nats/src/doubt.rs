//! Whether a message that was delivered earlier is still the one that is stored.
//!
//! The server knows a delivery by its stream's sequence alone. A store that lost its end in a power failure, or was put
//! back from a copy, gives sequences out once more; an acknowledgement of what had one before would remove what has it
//! now. So what is about a delivery of an earlier generation of the link is held back until the message was looked up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use crate::api::ApiError;
use crate::connection::Connection;
use crate::consume::Origin;
use crate::exchange::Doubt;
use crate::layout::Layout;

/// How many messages are looked up at once, at first and at most: each comes whole.
const FIRST: usize = 1;
const MOST: usize = 64;

/// How long to wait, about, after the server could not tell.
const PAUSE: Duration = Duration::from_millis(200);

/// Whether the message from `origin`, and no other, is stored in its stream. Asks the leader: a replica may still have
/// what is gone.
pub(crate) async fn is_stored(connection: &Connection, layout: &Layout, origin: Origin) -> Result<bool, ApiError> {
    let stream = if origin.later { &layout.later } else { &layout.jobs };
    Ok(connection.stored_nanos(stream, origin.sequence).await? == Some(origin.stored_nanos))
}

/// Looks up what is doubted, for as long as the connection is there.
pub(crate) async fn keep_looking(connection: Arc<Connection>, layout: Layout) {
    loop {
        let (doubts, generation) = connection.exchange.doubts().await;
        let mut all_told = true;
        for later in [false, true] {
            let of_stream = doubts.iter().copied().filter(|doubt| doubt.origin.later == later);
            all_told &= look(&connection, &layout, of_stream, generation).await;
        }
        if !all_told {
            tokio::time::sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
        }
    }
}

/// Looks up `doubts`, all of one stream: whether the server could tell. From its end, for where one message is still the
/// same, those before it are too; few at first, because most often the very last one is.
async fn look(connection: &Connection, layout: &Layout, doubts: impl Iterator<Item = Doubt>, generation: u64) -> bool {
    // Several may be about one message.
    let mut messages: BTreeMap<(u64, u64), Vec<Doubt>> = BTreeMap::new();
    for doubt in doubts {
        messages.entry((doubt.origin.sequence, doubt.origin.stored_nanos)).or_default().push(doubt);
    }
    let mut messages = messages.into_values().rev();
    let (mut width, mut same, mut all_told) = (FIRST, false, true);
    loop {
        let wanted = |doubts: &Vec<Doubt>| !same || doubts.iter().any(|doubt| doubt.alone);
        let these: Vec<Vec<Doubt>> = messages.by_ref().filter(wanted).take(width).collect();
        if these.is_empty() {
            return all_told;
        }
        let looked =
            join_all(these.iter().flat_map(|doubts| doubts.first()).map(|doubt| is_stored(connection, layout, doubt.origin)));
        for (doubts, looked) in these.iter().zip(looked.await) {
            let stored = match looked {
                Ok(stored) => stored,
                Err(error) if error.is_retryable() => {
                    all_told = false;
                    continue;
                }
                Err(error) => {
                    // Rather than never settling anything.
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "cannot look up whether messages are still stored; taking it for granted");
                    true
                }
            };
            same |= stored;
            doubts.iter().for_each(|doubt| connection.exchange.looked_up(*doubt, generation, stored));
        }
        width = (width * 4).min(MOST);
    }
}
