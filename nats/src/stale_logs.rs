//! Stale logs: those of runs whose message is gone, and that nobody has ended, because whoever settled the run crashed
//! between its ack and the end of its log.
//!
//! Nobody waits for them, but nothing else would ever remove them: the stream of the logs has no limits. Every node that
//! consumes looks now and then at what is older than a day, from the oldest on, and ends what it finds. Several may end
//! the same log; one of them does.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use wf_broker::{LogEnd, RunLog, Version};
use wf_schema::now;

use crate::api::{ApiError, StoredMessage, code};
use crate::connection::Connection;
use crate::exchange::Unanswered;
use crate::lease::Ends;
use crate::outcome_log::{END, MESSAGE, end_of};

/// How old a record is before anybody asks whether its message is gone.
const OLD: Duration = Duration::from_secs(24 * 3600);
/// How often somebody looks, on average.
const EVERY: Duration = Duration::from_secs(3600);
/// How long an end made up for is remembered at least: what was asked to be remembered went with whoever crashed.
const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);
/// The most messages of one look, and their bytes: the next look goes on from there.
const MOST: usize = 1_000;
const MOST_BYTES: usize = 8 << 20;

/// Ends stale logs.
pub(crate) struct StaleLogs {
    pub(crate) asker: Arc<Connection>,
    pub(crate) ends: Arc<Ends>,
    /// Where the next look begins.
    pub(crate) from: u64,
}

impl StaleLogs {
    /// Looks for ever; ends when this user may not.
    pub(crate) async fn keep_ending(mut self) {
        loop {
            // Nodes that were started together do not look together.
            sleep(EVERY.mul_f64(0.5 + fastrand::f64())).await;
            match self.look(OLD).await {
                Err(ApiError::Unanswered(Unanswered::Closed)) => return,
                Err(error @ ApiError::Unanswered(Unanswered::Denied(_))) => {
                    tracing::info!(%error, "logs of runs that are gone are left to those who may end them");
                    return;
                }
                // The next look comes to it again.
                Err(error) => tracing::debug!(%error, "logs of runs that are gone could not be ended"),
                Ok(0) => {}
                Ok(ended) => tracing::info!(ended, "ended logs of runs that are gone"),
            }
        }
    }

    /// Ends the logs whose last record is `old`, and whose message is gone, among the next so many: how many it ended.
    pub(crate) async fn look(&mut self, old: Duration) -> Result<usize, ApiError> {
        let layout = &self.ends.layout;
        let filter = format!("{}.runs.>", layout.prefix);
        let (messages, more) = self.asker.page(&layout.runs, &filter, self.from, MOST, MOST_BYTES).await?;
        let before = now().saturating_sub(u64::try_from(old.as_millis()).unwrap_or(u64::MAX));
        // They are in the order in which they were stored.
        let old = |message: &StoredMessage| message.at <= before;
        self.from = match messages.last().filter(|last| more && old(last)) {
            Some(last) => last.sequence + 1,
            None => 1,
        };
        let mut ended = 0;
        for message in messages.iter().take_while(|message| old(message)) {
            ended += usize::from(message.headers.get(END).is_none() && self.end(message).await?);
        }
        Ok(ended)
    }

    /// Ends the log that `record` is the last of, if its message is gone.
    async fn end(&self, record: &StoredMessage) -> Result<bool, ApiError> {
        let layout = &self.ends.layout;
        let Some((batch, run)) = layout.run_of(&record.subject) else { return Ok(false) };
        let last = self.asker.last(&layout.runs, &record.subject).await?;
        if last.is_none_or(|last| last.sequence != record.sequence) || self.is_stored(run, record.at).await? {
            return Ok(false);
        }
        let message = record.headers.get(MESSAGE).map_or("", |id| id.as_str()).into();
        let log = RunLog { batch, run, message };
        let end = LogEnd { log, version: Version(record.sequence), keep: Some(KEEP) };
        let end = end_of(layout, &end, self.ends.window);
        match self.asker.store(&end.subject, end.headers.unwrap_or_default(), end.payload).await {
            // Somebody else did.
            Err(error) if error.code() == Some(code::WRONG_LAST) => Ok(false),
            ended => ended.map(|_| true),
        }
    }

    /// Whether the message of `run` is stored, or might be. One that was stored after a record of the run is another,
    /// which has its sequence.
    async fn is_stored(&self, run: wf_schema::RunId, recorded: u64) -> Result<bool, ApiError> {
        let layout = &self.ends.layout;
        let stream = match run.to_string().as_bytes().first() {
            Some(b'j') => &layout.jobs,
            Some(b'l') => &layout.later,
            _ => return Ok(true),
        };
        let stored = self.asker.stored_nanos(stream, run.sequence()).await?;
        Ok(stored.is_some_and(|nanos| nanos / 1_000_000 <= recorded))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use wf_broker::{Consume as _, Message, OutcomeLog as _, Publish as _};
    use wf_schema::{BatchId, Lane};

    use super::*;
    use crate::testing::{ServerOptions, TestServer};
    use crate::{FactorySettings, NatsBroker, NatsOptions};

    #[tokio::test]
    async fn logs_of_messages_that_are_gone_are_ended_and_no_others() {
        let server = TestServer::start(ServerOptions::new());
        let options = NatsOptions::new([server.url()]).unwrap();
        let broker = NatsBroker::connect_or_setup(options, &FactorySettings::default()).await.unwrap();
        let lane = Lane::default();
        let mut source = broker.lane(lane.clone()).await.unwrap();
        source.grant(10, 1 << 20);
        let mut open = Vec::new();
        for n in 0..3 {
            let message = Message { lane: lane.clone(), id: format!("m{n}").into(), bytes: "x".into() };
            broker.publish(message).await.unwrap();
            let delivery = source.next().await.unwrap();
            let log = RunLog { batch: BatchId::new(), run: delivery.run, message: delivery.id.clone() };
            let version = broker.append(log.clone(), Version::NONE, "one".into()).await.unwrap();
            open.push((log, version, delivery));
        }
        // The second is acknowledged by somebody who crashes before its log is ended.
        open[1].2.lease.ack(None);
        broker.settled().await.unwrap();
        let mut stale = StaleLogs { asker: broker.asker().clone(), ends: broker.ends.clone(), from: 1 };
        assert_eq!(stale.look(OLD).await.unwrap(), 0, "they are young");
        assert_eq!(stale.look(Duration::ZERO).await.unwrap(), 1);
        assert_eq!(stale.look(Duration::ZERO).await.unwrap(), 0);
        for (place, (log, version, _)) in open.iter().enumerate() {
            let run = broker.read_run(log.clone()).await.unwrap();
            assert_eq!(run.ended, place == 1, "{place}");
            let appended = broker.append(log.clone(), *version, "two".into()).await;
            assert_eq!(appended.is_ok(), place != 1, "{appended:?}");
        }
    }
}
