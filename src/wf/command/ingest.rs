//! `wf ingest`: jobs over HTTP, for executors elsewhere.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use wf_broker::Broker;
use wf_ingest::{HttpState, Producer, ProducerOptions, Server, Spool, SpoolError};
use work_factory::connect::{Layout, Refusal};
use work_factory::settings;

use super::{Failure, Session};
use crate::exit::Exit;

pub(super) async fn ingest(mut session: Session) -> Result<Exit, Failure> {
    settings::needs_a_server(session.config(), "wf ingest").map_err(|error| Failure::failed(error, Exit::Usage))?;
    // First: who may have it need not wait for the broker.
    let spool = open_spool(&session).await?;
    let (broker, refusal) = session.connect_soon(Layout::Make).await?;
    let front = Front::bind(&broker, spool, &session).await?;
    let (served, refused) = tokio::join!(front.serve(session.stop.clone()), ended_by(refusal, &session.stop));
    broker.close().await?;
    refused?;
    served?;
    Ok(Exit::Done)
}

/// Stops everything if the broker, looked for in the background, refuses soon after the start: no way to find out about
/// wrong credentials is worse than hours later.
pub(super) async fn ended_by(refusal: Refusal, stop: &CancellationToken) -> Result<(), Failure> {
    let Some(refused) = stop.run_until_cancelled(refusal.came()).await else { return Ok(()) };
    stop.cancel();
    Err(refused.into())
}

/// The spool, if there is one.
pub(super) async fn open_spool(session: &Session) -> Result<Option<Spool>, Failure> {
    settings::open_spool(session.config()).await.map_err(|error| {
        let exit = if matches!(error, SpoolError::Foreign { .. }) { Exit::Usage } else { Exit::Failed };
        Failure::failed(error, exit)
    })
}

/// HTTP, and the producer behind it.
pub(super) struct Front {
    server: Server,
    producer: Producer,
    spool: Option<Spool>,
}

impl Front {
    /// Listens where the configuration says.
    pub(super) async fn bind(broker: &Arc<dyn Broker>, spool: Option<Spool>, session: &Session) -> Result<Self, Failure> {
        let config = session.config();
        let options = ProducerOptions { spool: spool.clone(), ..settings::producer(config) };
        let producer = Producer::new(broker.clone(), options.measured(broker));
        session.tuner.producer(&producer);
        let listen: SocketAddr = config.ingest().listen;
        let server = Server::bind(listen, HttpState::new(producer.clone(), settings::http(config))).await;
        let taken = |error| Failure::usage(format!("HTTP cannot be served on {listen} (ingest.listen): {error}"), Exit::Usage);
        let server = server.map_err(taken)?;
        tracing::info!("taking jobs on http://{}", server.local_addr());
        Ok(Self { server, producer, spool })
    }

    /// Serves until `stop`, lets requests under way end, and waits for jobs that were answered early.
    pub(super) async fn serve(self, stop: CancellationToken) -> Result<(), Failure> {
        self.server.serve(stop).await;
        let closed = self.producer.close().await.map_err(|error| Failure::failed(error, Exit::Failed));
        if let Some(spool) = self.spool {
            spool.close().await.map_err(|error| Failure::failed(error, Exit::Failed))?;
        }
        closed
    }
}
