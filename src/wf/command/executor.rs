//! `wf executor`: a node that runs what was enqueued elsewhere.

use std::sync::Arc;

use wf_broker::Broker;
use wf_executor::{Executor, Registry, stock};
use wf_schema::config::Config;

use super::{Failure, Session};
use crate::exit::Exit;
use work_factory::connect::Layout;
use work_factory::settings;

pub(super) async fn executor(mut session: Session) -> Result<Exit, Failure> {
    settings::needs_a_server(session.config(), "wf executor").map_err(|error| Failure::failed(error, Exit::Usage))?;
    let broker = session.connect(Layout::Use).await?;
    let executor = start(&broker, &session)?;
    let ended = session.stop.run_until_cancelled(executor.stopped()).await;
    finish(executor, session.config()).await;
    let closed = broker.close().await;
    if let Some(ended) = ended {
        ended.map_err(|error| Failure::failed(error, Exit::Failed))?;
    }
    closed?;
    Ok(Exit::Done)
}

/// Starts an executor with the stock handlers on the configured queues.
pub(super) fn start(broker: &Arc<dyn Broker>, session: &Session) -> Result<Executor, Failure> {
    let config = session.config();
    let queues = config.executor().queues.clone();
    let names = queues.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let options = settings::executor(config, queues).map_err(|error| Failure::failed(error, Exit::Usage))?;
    let executor = Executor::start(broker.clone(), stock::register(Registry::new()), options);
    let executor = executor.map_err(|error| Failure::failed(error, Exit::Failed))?;
    session.tuner.executor(&executor);
    tracing::info!(queues = names, profile = %config.profile(), concurrency = config.executor().concurrency, "running jobs");
    Ok(executor)
}

/// Drains under the configured deadline and says what became of it.
pub(super) async fn finish(executor: Executor, config: &Config) {
    let report = executor.drain(config.executor().drain_deadline).await;
    let stats = executor.stats();
    tracing::info!(
        completed = stats.completed,
        moved = stats.moved,
        split = stats.split,
        handed_on = stats.handed_on,
        "what was done in all"
    );
    tracing::info!(
        finished = report.finished,
        released = report.released,
        abandoned = report.abandoned,
        unstopped = report.unstopped,
        confirmed = report.confirmed,
        took = ?report.took,
        "drained"
    );
}
