//! What is left of a body whose request was answered before it was read to its end: too large, of a wrong type.
//!
//! Whoever still sends may never see the answer when the connection is closed under it, and whoever takes a connection
//! for alive that the server has given up loses its next request. So the rest is read and thrown away for a moment,
//! and if there is more than that, the answer says that it is the connection's last.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;

/// How long the rest of a body is read.
const MOMENT: Duration = Duration::from_secs(1);

/// Lets `next` answer, then sees to what it has not read.
pub(super) async fn see_to_it(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    // The others have streams of their own, which end without the connection.
    let http1 = request.version() <= Version::HTTP_11;
    // Who waits to be told before it sends need not be told.
    let sends = !request.headers().contains_key(header::EXPECT);
    let (head, body) = request.into_parts();
    let rest = Rest(Arc::new(Mutex::new(State { body, touched: false, ended: false })));
    let mut response = next.run(Request::from_parts(head, Body::new(rest.clone()))).await;
    let (touched, ended) = rest.state();
    let ended = ended || ((sends || touched) && tokio::time::timeout(MOMENT, rest.run_dry()).await.is_ok());
    if !ended && http1 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A body that can still be read when the request is answered.
#[derive(Clone)]
struct Rest(Arc<Mutex<State>>);

struct State {
    body: Body,
    touched: bool,
    ended: bool,
}

impl Rest {
    fn state(&self) -> (bool, bool) {
        let state = self.0.lock();
        (state.touched, state.ended)
    }

    async fn run_dry(mut self) {
        while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await {
            // A fast sender must not hold up the others.
            tokio::task::consume_budget().await;
        }
    }
}

impl HttpBody for Rest {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut state = self.0.lock();
        state.touched = true;
        let polled = Pin::new(&mut state.body).poll_frame(cx);
        state.ended |= matches!(polled, Poll::Ready(None | Some(Err(_)))) || state.body.is_end_stream();
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().body.size_hint()
    }
}
