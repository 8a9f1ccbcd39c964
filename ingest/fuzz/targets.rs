//! What must hold for any bytes that a caller may send. Run by the fuzzer, and by the replay of its corpus.
//!
//! A panic is a finding; whatever else the server answers, or that it ends the connection, is right.

use std::cell::OnceCell;
use std::time::Duration;

use futures::future::join;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use wf_broker::{Embedded, EmbeddedOptions};
use wf_ingest::{HttpOptions, HttpState, Producer, ProducerOptions};

/// More than any input is answered with.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server in this process, over a broker in memory. Made once: it has to serve on, whatever it was sent before.
struct Site {
    runtime: Runtime,
    state: HttpState,
}

thread_local! {
    static SITE: OnceCell<Site> = const { OnceCell::new() };
}

impl Site {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let state = runtime.block_on(async {
            // Nobody takes jobs out again: full lanes are part of it.
            let small = EmbeddedOptions::default().lane_bytes(1 << 20).and_then(|options| options.total_bytes(16 << 20));
            let broker = Embedded::memory(small.expect("options")).expect("a broker");
            // Long enough for a job to be stored, short enough for many inputs a second.
            let moment = Duration::from_millis(2);
            let http = HttpOptions {
                body_limit: 1 << 20,
                whole_limit: 256 << 10,
                header_timeout: moment,
                idle_timeout: moment,
                wait_limit: moment,
                drain_deadline: moment,
                ..HttpOptions::default()
            };
            HttpState::new(Producer::new(broker, ProducerOptions { room_timeout: moment, ..ProducerOptions::default() }), http)
        });
        Self { runtime, state }
    }

    fn answers(&self, data: &[u8]) -> Vec<u8> {
        self.runtime.block_on(async {
            let (server, client) = tokio::io::duplex(64 << 10);
            let (mut read, mut write) = tokio::io::split(client);
            let serving = self.state.clone().serve_stream(server);
            let asking = async {
                // The server may have had enough before it has read all of it. It is the server that ends the connection:
                // a caller that leaves gets no answers.
                let sending = write.write_all(data);
                let mut answers = Vec::new();
                let _ = join(sending, read.read_to_end(&mut answers)).await;
                answers
            };
            tokio::time::timeout(PATIENCE, join(serving, asking)).await.expect("a connection ends").1
        })
    }
}

/// A connection: what the server does with it is an answer, and it serves the next.
pub fn http_request(data: &[u8]) {
    SITE.with(|site| {
        let site = site.get_or_init(Site::new);
        let first = site.answers(data);
        assert!(!first.starts_with(b"HTTP/1.1 500"), "{}", String::from_utf8_lossy(&first));
        let well = site.answers(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        assert!(well.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&well));
    });
}

/// The target called `name`, for those who have it from a directory.
pub fn named(name: &str) -> Option<fn(&[u8])> {
    (name == "http_request").then_some(http_request as fn(&[u8]))
}
