//! Serves connections: bounded in number, in silence and in time to end.

mod quiet;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use axum::routing::RouterIntoService;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{HttpState, router};
use crate::HttpOptions;
use quiet::{Busy, Quiet};

/// Why HTTP cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address cannot be listened on: it is taken, not this machine's, or not allowed.
    #[error("cannot listen on {addr}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// An HTTP server that is bound to its address.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    local_addr: SocketAddr,
    state: HttpState,
}

impl Server {
    /// Takes the address `addr`; port 0 takes any that is free. Connections wait until [`Server::serve`].
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn bind(addr: SocketAddr, state: HttpState) -> Result<Self, ServeError> {
        let bound = async {
            let listener = TcpListener::bind(addr).await?;
            let local_addr = listener.local_addr()?;
            Ok((listener, local_addr))
        };
        let (listener, local_addr) = bound.await.map_err(|source| ServeError::Bind { addr, source })?;
        Ok(Self { listener, local_addr, state })
    }

    /// The address that is served, with its port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `shutdown` is cancelled: then takes no more connections, answers at once who waits for an
    /// outcome, lets requests under way end within [`crate::HttpOptions::drain_deadline`], and cuts off the rest.
    /// Close the producer afterwards.
    pub async fn serve(self, shutdown: CancellationToken) {
        let Self { listener, state, .. } = self;
        let options = state.options.clone();
        let app = TowerToHyperService::new(router(state.clone()).into_service::<Incoming>());
        let places = Arc::new(Semaphore::new(options.connections));
        let graceful = GracefulShutdown::new();
        let cut_off = CancellationToken::new();
        let builder = builder(&options);
        loop {
            let accepted = async {
                // Who finds no place waits in the operating system's queue.
                let place = places.clone().acquire_owned().await;
                (place, listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                accepted = accepted => accepted,
                () = shutdown.cancelled() => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: trying again at once would only burn the processor.
                    tracing::warn!(error = %error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(50 + fastrand::u64(..100))).await;
                    continue;
                }
            };
            tune(&stream);
            let (io, service) = guarded(stream, app.clone(), options.idle_timeout);
            let connection = graceful.watch(builder.serve_connection(io, service).into_owned());
            let cut_off = cut_off.clone();
            tokio::spawn(async move {
                if let Some(Err(error)) = cut_off.run_until_cancelled(connection).await {
                    tracing::debug!(error = %error, "a connection ended");
                }
                drop(place);
            });
        }
        drop(listener);
        state.stopping.cancel();
        if tokio::time::timeout(options.drain_deadline, graceful.shutdown()).await.is_err() {
            tracing::warn!(deadline_s = options.drain_deadline.as_secs(), "requests under way were cut off");
        }
        cut_off.cancel();
    }
}

impl HttpState {
    /// Serves one connection that somebody else has accepted, until its caller ends it or is cut.
    pub async fn serve_stream<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(self, stream: S) {
        let options = self.options.clone();
        let app = TowerToHyperService::new(router(self).into_service::<Incoming>());
        let (io, service) = guarded(stream, app, options.idle_timeout);
        if let Err(error) = builder(&options).serve_connection(io, service).await {
            tracing::debug!(error = %error, "a connection ended");
        }
    }
}

/// The limits of every connection.
fn builder(options: &HttpOptions) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(options.header_timeout)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .keep_alive_interval(options.idle_timeout / 2)
        .keep_alive_timeout(options.idle_timeout / 2);
    builder
}

/// All that is served, as hyper has it.
type App = TowerToHyperService<RouterIntoService<Incoming>>;

/// What serves the requests that come over `stream`, and ends it once nothing happens there for `idle`.
fn guarded<S>(
    stream: S,
    app: App,
    idle: Duration,
) -> (TokioIo<Quiet<S>>, impl Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send + 'static>) {
    let busy = Busy::default();
    let service = {
        let busy = busy.clone();
        hyper::service::service_fn(move |request| {
            let (answer, busy) = (app.call(request), busy.guard());
            async move {
                let answer = answer.await;
                drop(busy);
                answer
            }
        })
    };
    (TokioIo::new(Quiet::new(stream, busy, idle)), service)
}

/// Small answers leave at once, and peers that are gone are found out.
fn tune(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10));
    let tuned = stream.set_nodelay(true).and_then(|()| SockRef::from(stream).set_tcp_keepalive(&keepalive));
    if let Err(error) = tuned {
        tracing::debug!(error = %error, "a connection could not be tuned");
    }
}

impl std::fmt::Debug for HttpState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpState").field("options", &self.options).finish_non_exhaustive()
    }
}
