//! What is served: ingest, or a handler that does nothing but parse.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::ListenerExt;
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use wf_ingest::{HttpState, Producer, Server};
use wf_schema::config::Config;
use work_factory::{Factory, settings};

use super::parse::Form;

/// How long what is still open may take to end.
const LAST: Duration = Duration::from_secs(5);

const ANYWHERE: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// An HTTP server with a runtime of its own, as in a process of its own.
pub(super) struct Front {
    ready: Ready,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<anyhow::Result<()>>,
}

/// What is known once it serves.
struct Ready {
    address: SocketAddr,
    factory: Option<Arc<Factory>>,
}

impl Front {
    /// Ingest with the producer and the broker of `config`.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    pub(super) async fn ours(config: Config) -> anyhow::Result<Self> {
        Self::start(async move |ready, stop| {
            let factory = Arc::new(Box::pin(Factory::with(config.clone())).await?);
            let producer = Producer::new(factory.broker().clone(), settings::producer(&config));
            let server = Server::bind(ANYWHERE.into(), HttpState::new(producer.clone(), settings::http(&config))).await?;
            tell(ready, Ready { address: server.local_addr(), factory: Some(factory.clone()) })?;
            tokio::select! {
                () = server.serve(Default::default()) => {}
                _ = stop => {}
            }
            producer.close().await?;
            factory.broker().close().await?;
            Ok(())
        })
        .await
    }

    /// A handler that reads a job and says that it has.
    ///
    /// # Errors
    /// When nothing can be served.
    pub(super) async fn bare() -> anyhow::Result<Self> {
        Self::start(async |ready, stop| {
            let listener = TcpListener::bind(ANYWHERE).await?;
            tell(ready, Ready { address: listener.local_addr()?, factory: None })?;
            // As ingest does: small answers leave at once.
            let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
            let served = axum::serve(listener, Router::new().route("/v1/jobs", post(parse)));
            tokio::select! {
                served = served.into_future() => served?,
                _ = stop => {}
            }
            Ok(())
        })
        .await
    }

    async fn start<F>(serve: F) -> anyhow::Result<Self>
    where
        F: AsyncFnOnce(oneshot::Sender<Ready>, oneshot::Receiver<()>) -> anyhow::Result<()> + Send + 'static,
    {
        let (ready, told) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("front").build()?;
        let thread = std::thread::spawn(move || {
            let served = runtime.block_on(serve(ready, stopped));
            runtime.shutdown_timeout(LAST);
            served
        });
        let Ok(ready) = told.await else {
            join(thread).await?;
            anyhow::bail!("the server ended by itself");
        };
        Ok(Self { ready, stop, thread })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.ready.address
    }

    /// What ingest stores in.
    pub(super) fn factory(&self) -> anyhow::Result<&Factory> {
        self.ready.factory.as_deref().context("a bare handler stores nothing")
    }

    /// Ends it.
    ///
    /// # Errors
    /// When something went wrong that no request was told.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        drop(self.stop);
        join(self.thread).await
    }
}

fn tell(ready: oneshot::Sender<Ready>, what: Ready) -> anyhow::Result<()> {
    ready.send(what).map_err(|_| anyhow::anyhow!("nobody waits for the server"))
}

async fn join(thread: JoinHandle<anyhow::Result<()>>) -> anyhow::Result<()> {
    let joined = tokio::task::spawn_blocking(move || thread.join()).await?;
    joined.unwrap_or_else(|_| Err(anyhow::anyhow!("the server panicked")))
}

/// The answer of the same size as ours.
#[derive(Serialize)]
struct Answer {
    id: &'static str,
}

async fn parse(body: Bytes) -> Response {
    match serde_json::from_slice::<Form<'_>>(&body) {
        Ok(form) => {
            std::hint::black_box(&form);
            (StatusCode::ACCEPTED, Json(Answer { id: "01JDB6K3Q2M8X7Z9V4T5R6W1YC-0" })).into_response()
        }
        Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()).into_response(),
    }
}
