//! JetStream keeps the contract, also over restarts of the server and over lost connections.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use wf_broker::Broker;
use wf_broker::conformance::{Fill, Rig};
use wf_nats::testing::{ServerOptions, TestServer};
use wf_nats::{FactorySettings, NatsBroker, NatsOptions, OnDifference, setup};

/// So many messages fill a lane.
const LANE_MESSAGES: u32 = 800;

/// So many outcomes are kept.
const OUTCOMES: u32 = 500;

/// A server of its own for each case.
struct NatsRig {
    server: Arc<Mutex<TestServer>>,
    options: NatsOptions,
}

async fn rig() -> NatsRig {
    let server = tokio::task::spawn_blocking(|| TestServer::start(ServerOptions::new().sync_always(true))).await.unwrap();
    let options = NatsOptions::new([server.url()]).unwrap().name("conformance");
    let mut settings = FactorySettings::default();
    settings.lease = Duration::from_secs(1);
    settings.lane_messages = LANE_MESSAGES;
    settings.dead_bytes = 1 << 20;
    settings.results_messages = OUTCOMES;
    setup(&options, &settings, OnDifference::Refuse).await.unwrap();
    NatsRig { server: Arc::new(Mutex::new(server)), options }
}

impl Rig for NatsRig {
    fn open(&self) -> BoxFuture<'_, Arc<dyn Broker>> {
        async { NatsBroker::connect(self.options.clone()).await.unwrap() as Arc<dyn Broker> }.boxed()
    }

    fn fill(&self) -> Fill {
        Fill { messages: LANE_MESSAGES as usize, bytes: 10 }
    }

    fn outcomes(&self) -> usize {
        OUTCOMES as usize
    }

    fn restart(&self, down: Duration) -> BoxFuture<'_, ()> {
        let server = self.server.clone();
        async move {
            let restarting = tokio::task::spawn_blocking(move || {
                let mut server = server.lock().unwrap();
                server.kill();
                // How long it is away is what the case is about.
                std::thread::sleep(down);
                server.restart();
            });
            restarting.await.unwrap();
        }
        .boxed()
    }
}

wf_broker::conformance_tests!(rig);
wf_broker::conformance_restart_tests!(rig);
wf_broker::conformance_reconnect_tests!(rig);
