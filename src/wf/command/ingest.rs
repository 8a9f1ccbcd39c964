//! `wf ingest`: jobs over HTTP, for executors elsewhere.

use std::net::SocketAddr;
use std::sync::Arc;

use wf_broker::Broker;
use wf_ingest::{HttpState, Producer, Server};
use wf_schema::config::Config;
use work_factory::connect::Layout;
use work_factory::settings;

use super::{Failure, Session};
use crate::exit::Exit;

pub(super) async fn ingest(mut session: Session) -> Result<Exit, Failure> {
    settings::needs_a_server(session.config(), "wf ingest").map_err(|error| Failure::failed(error, Exit::Usage))?;
    let broker = session.connect(Layout::Make).await?;
    let server = bind(&broker, session.config()).await?;
    server.serve(session.stop.clone()).await;
    broker.close().await?;
    Ok(Exit::Done)
}

/// Listens where the configuration says.
pub(super) async fn bind(broker: &Arc<dyn Broker>, config: &Config) -> Result<Server, Failure> {
    let producer = Producer::new(broker.clone(), settings::producer(config));
    let listen: SocketAddr = config.ingest().listen;
    let state = HttpState::new(producer, settings::http(config));
    let server = Server::bind(listen, state)
        .await
        .map_err(|error| Failure::usage(format!("HTTP cannot be served on {listen} (ingest.listen): {error}"), Exit::Usage))?;
    tracing::info!("taking jobs on http://{}", server.local_addr());
    Ok(server)
}
