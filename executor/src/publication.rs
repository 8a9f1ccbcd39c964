//! What a record obliges its run to publish.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use wf_broker::{BoxFuture, Broker, BrokerError, Key, Message, Result, RunLog, Scheduled};
use wf_schema::{Lane, Millis, Record, WireError};

use crate::intake::Work;
use crate::patience::insist;
use crate::{bury, retry};

/// One message that a record obliges to. Its name follows from (batch, run, record, first job): a broker that has it
/// already does not store it twice.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Publication {
    name: Arc<str>,
    lane: Lane,
    bytes: Bytes,
    to: To,
}

#[derive(Clone, Debug, PartialEq)]
enum To {
    /// Back to its lane.
    Lane,
    /// Back to its lane, at a time.
    Later(Millis),
    /// To the dead letters.
    Dead,
    /// To those who want to know what became of the jobs: this record of the log.
    Readers(RunLog, u32),
}

/// What every record with outcomes obliges to: to show itself, `bytes`, record number `step` of `log`, to readers.
pub(crate) fn copy(log: &RunLog, step: u32, lane: &Lane, bytes: Bytes) -> Publication {
    Publication { name: Arc::default(), lane: lane.clone(), bytes, to: To::Readers(log.clone(), step) }
}

/// All that `record` obliges to, in messages of at most `max` bytes.
///
/// # Errors
/// When a single job does not fit.
pub(crate) fn plan(record: &Record, work: &Work, max: usize) -> Result<Vec<Publication>, WireError> {
    let header = record.header();
    let name = |what: &dyn fmt::Display, first: u32| -> Arc<str> {
        format!("{}.{}.{}.{what}.{first}", header.batch, header.run, header.step).into()
    };
    let again = retry::messages(record, work, max)?.into_iter().map(|message| Publication {
        name: name(&message.due.unwrap_or(0), message.first),
        lane: header.lane.clone(),
        bytes: message.bytes,
        to: message.due.map_or(To::Lane, To::Later),
    });
    let dead = bury::letters(record, work, max)?.into_iter().map(|letter| Publication {
        name: name(&"dead", letter.first),
        lane: header.lane.clone(),
        bytes: letter.bytes,
        to: To::Dead,
    });
    Ok(again.chain(dead).collect())
}

impl Publication {
    /// Publishes it, for as long as it takes.
    pub(crate) async fn publish(self, broker: &dyn Broker) -> Result<()> {
        match &self.to {
            To::Readers(log, step) => {
                let shown = insist("publish an outcome", || broker.publish_outcome(log.clone(), *step, self.bytes.clone())).await;
                match shown {
                    // The log has taken as much. Whoever wants to know goes without, and the jobs go on.
                    Err(error @ BrokerError::TooLarge { .. }) => {
                        tracing::warn!(batch = %log.batch, %error, "an outcome is not shown");
                        Ok(())
                    }
                    shown => shown,
                }
            }
            To::Dead => insist("bury", || broker.bury(self.lane.queue.clone(), self.name.clone(), self.bytes.clone())).await,
            To::Later(due) => self.schedule(broker, *due).await,
            To::Lane => {
                let message = || Message { lane: self.lane.clone(), id: self.name.clone(), bytes: self.bytes.clone() };
                match insist("publish a retry", || if_possible(broker, message())).await? {
                    Some(()) => Ok(()),
                    // Waiting for room could be waiting for ourselves: the lane may be full of what executors hold that
                    // all wait like this. Schedules have room of their own, and every executor may make them.
                    None => self.schedule(broker, 0).await,
                }
            }
        }
    }

    async fn schedule(&self, broker: &dyn Broker, due: Millis) -> Result<()> {
        let key = Key::new(&self.name).map_err(|error| BrokerError::fatal("schedule a retry", error))?;
        let scheduled = || Scheduled { lane: self.lane.clone(), key: key.clone(), due, bytes: self.bytes.clone() };
        insist("schedule a retry", || broker.publish_at(scheduled())).await
    }
}

/// Publishes `message`; `None` if its lane is full, or this executor may not publish to lanes.
fn if_possible(broker: &dyn Broker, message: Message) -> BoxFuture<'_, Option<()>> {
    Box::pin(async move {
        match broker.publish(message).await {
            Ok(_) => Ok(Some(())),
            Err(BrokerError::Full { .. } | BrokerError::Denied { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    })
}
