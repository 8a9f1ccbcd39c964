//! Messages that a consumer gives up, because somebody has changed it, become dead letters and are gone from the lane.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use serde_json::{Value, json};
use wf_broker::{Consume as _, DeadLetters as _, DeliverySource, Message, Publish as _};
use wf_nats::testing::{ServerOptions, TestServer};
use wf_nats::{FactorySettings, NatsBroker, NatsOptions};
use wf_schema::{DeadLetter, Lane, Limits, Remains};

const PATIENCE: Duration = Duration::from_secs(30);

fn lane() -> Lane {
    "mail.normal".parse().unwrap()
}

struct Yard {
    broker: Arc<NatsBroker>,
    admin: async_nats::Client,
    _server: TestServer,
}

impl Yard {
    async fn new() -> Self {
        let server = tokio::task::spawn_blocking(|| TestServer::start(ServerOptions::new())).await.unwrap();
        let mut settings = FactorySettings::default();
        settings.lease = Duration::from_secs(1);
        let broker = NatsBroker::connect_or_setup(NatsOptions::new([server.url()]).unwrap(), &settings).await.unwrap();
        let admin = async_nats::connect(server.url()).await.unwrap();
        Self { broker, admin, _server: server }
    }

    async fn node(&self) -> (Arc<NatsBroker>, Box<dyn DeliverySource>) {
        let node = NatsBroker::connect(NatsOptions::new([self._server.url()]).unwrap()).await.unwrap();
        let mut source = node.lane(lane()).await.unwrap();
        source.grant(100, 1 << 20);
        (node, source)
    }

    async fn api(&self, subject: &str, request: Value) -> Value {
        let answer = self.admin.request(format!("$JS.API.{subject}"), request.to_string().into()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        assert!(answer["error"].is_null(), "{answer}");
        answer
    }

    /// What an operator should not do.
    async fn limit_deliveries(&self, most: i64) {
        let mut config = self.api("CONSUMER.INFO.WF_JOBS.mail-normal", json!({})).await["config"].clone();
        config["max_deliver"] = most.into();
        let update = json!({ "stream_name": "WF_JOBS", "action": "update", "config": config });
        self.api("CONSUMER.CREATE.WF_JOBS.mail-normal", update).await;
    }

    /// What a pull of the lane by a client of another make brings.
    async fn pull(&self) -> async_nats::Message {
        let inbox = self.admin.new_inbox();
        let mut answers = self.admin.subscribe(inbox.clone()).await.unwrap();
        let pull = r#"{"batch":1,"expires":20000000000}"#.into();
        self.admin.publish_with_reply("$JS.API.CONSUMER.MSG.NEXT.WF_JOBS.mail-normal", inbox, pull).await.unwrap();
        tokio::time::timeout(PATIENCE, answers.next()).await.unwrap().unwrap()
    }

    async fn publish(&self, text: &'static str) {
        self.broker.publish(Message { lane: lane(), id: text.replace(' ', "-").into(), bytes: text.into() }).await.unwrap();
    }

    /// The raw dead letters, once there are `count` and nothing is left of their messages.
    async fn letters(&self, count: usize) -> Vec<(String, String)> {
        let began = Instant::now();
        loop {
            let page = self.broker.dead(None, 0, 100).await.unwrap();
            let left = self.api("STREAM.INFO.WF_JOBS", json!({})).await["state"]["messages"].as_u64().unwrap();
            if page.letters.len() >= count && left == 0 {
                let read = |bytes| match DeadLetter::decode(bytes, &Limits::default()).unwrap().remains {
                    Remains::Raw { failure, bytes } => (String::from_utf8(bytes.to_vec()).unwrap(), failure.to_string()),
                    Remains::Jobs(_) => panic!("jobs"),
                };
                return page.letters.iter().map(|letter| read(&letter.bytes)).collect();
            }
            assert!(began.elapsed() < PATIENCE, "{} letters, {left} messages left", page.letters.len());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_gives_up_is_a_dead_letter_once() {
    let yard = Yard::new().await;
    // Two who are told.
    let (_one, mut source) = yard.node().await;
    let (_two, _other) = yard.node().await;
    drop(_other);
    yard.limit_deliveries(2).await;
    yard.publish("lost twice").await;
    for _ in 0..2 {
        // Taken, and neither renewed nor settled.
        tokio::time::timeout(PATIENCE, source.next()).await.unwrap().unwrap();
    }
    let letters = yard.letters(1).await;
    assert_eq!(letters.len(), 1);
    assert!(letters[0].0 == "lost twice" && letters[0].1.contains("past max_deliver"), "{letters:?}");
    // The lane goes on.
    yard.publish("after").await;
    let after = tokio::time::timeout(PATIENCE, source.next()).await.unwrap().unwrap();
    assert_eq!(after.bytes, "after");
    after.lease.ack(None);
    assert_eq!(yard.letters(1).await.len(), 1);
}

/// What is logged as a warning.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, about: &tracing::Metadata<'_>) -> bool {
        *about.level() <= tracing::Level::WARN
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut said = String::new();
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| said += &format!("{field}={value:?} "));
        self.0.lock().unwrap().push(said);
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// A work queue drops what somebody ends with `+TERM`: nothing is left to bury, so those who serve the lane say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_terminates_is_gone_and_told_of() {
    let warnings = Warnings::default();
    tracing::subscriber::set_global_default(warnings.clone()).unwrap();
    let yard = Yard::new().await;
    // It serves the lane, and leaves what is in it to another.
    let node = NatsBroker::connect(NatsOptions::new([yard._server.url()]).unwrap()).await.unwrap();
    let mut source = node.lane(lane()).await.unwrap();
    let began = Instant::now();
    let mut names = 0..;
    let told = loop {
        let id = format!("terminated-{}", names.next().unwrap()).into();
        yard.broker.publish(Message { lane: lane(), id, bytes: "terminated".into() }).await.unwrap();
        let taken = yard.pull().await;
        assert_eq!(taken.payload, "terminated");
        yard.admin.publish(taken.reply.unwrap(), "+TERM it looks bad".into()).await.unwrap();
        // What was ended before it listened for that it cannot know of.
        let soon = Instant::now() + Duration::from_secs(2);
        let told = loop {
            let said = warnings.0.lock().unwrap().clone();
            // Others of this process were told of what was delivered twice.
            let told = said.into_iter().find(|said| said.contains("terminated is gone") && said.contains("deliveries=1 "));
            if told.is_some() || Instant::now() > soon {
                break told;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        match told {
            Some(told) => break told,
            None => assert!(began.elapsed() < PATIENCE, "nobody said anything"),
        }
    };
    assert!(told.contains("WF_JOBS") && told.contains("lane=mail.normal"), "{told}");
    assert!(yard.letters(0).await.is_empty());
    // The lane goes on.
    source.grant(100, 1 << 20);
    yard.publish("after").await;
    let after = tokio::time::timeout(PATIENCE, source.next()).await.unwrap().unwrap();
    assert_eq!(after.bytes, "after");
    after.lease.ack(None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_was_told_of_is_found() {
    let yard = Yard::new().await;
    {
        // Whoever was there when it was given up had no right to sweep, or was gone by then.
        let config = json!({
            "durable_name": "mail-normal", "filter_subjects": ["wf.jobs.mail", "wf.jobs.mail.normal"], "ack_policy": "explicit",
            "ack_wait": 100_000_000, "max_deliver": 1,
        });
        let create = json!({ "stream_name": "WF_JOBS", "action": "create", "config": config });
        yard.api("CONSUMER.CREATE.WF_JOBS.mail-normal", create).await;
        yard.publish("given up").await;
        let inbox = yard.admin.new_inbox();
        let mut answers = yard.admin.subscribe(inbox.clone()).await.unwrap();
        let mut pull = async |request: &'static str| {
            let subject = "$JS.API.CONSUMER.MSG.NEXT.WF_JOBS.mail-normal";
            yard.admin.publish_with_reply(subject, inbox.clone(), request.into()).await.unwrap();
            tokio::time::timeout(PATIENCE, answers.next()).await.unwrap().unwrap().payload
        };
        // This one waits: the server confirms a message before the consumer hears of it.
        assert_eq!(pull(r#"{"batch":1,"expires":10000000000}"#).await, "given up");
        // That its lease is over is noticed when somebody pulls.
        let began = Instant::now();
        while yard.api("CONSUMER.INFO.WF_JOBS.mail-normal", json!({})).await["num_ack_pending"] != 0 {
            assert!(began.elapsed() < PATIENCE && pull(r#"{"batch":1,"no_wait":true}"#).await.is_empty());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let (_node, mut source) = yard.node().await;
    // What is owned and renewed all the while is nobody's orphan.
    yard.limit_deliveries(-1).await;
    yard.publish("owned").await;
    let owned = tokio::time::timeout(PATIENCE, source.next()).await.unwrap().unwrap();
    assert_eq!(owned.bytes, "owned");
    let lease = owned.lease.clone();
    let keeping = tokio::spawn(async move {
        loop {
            lease.renew();
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    });
    // Some looks around: as long as anything is in flight, nobody can tell an orphan from what is owned elsewhere.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(yard.broker.dead(None, 0, 100).await.unwrap().letters.is_empty());
    keeping.abort();
    owned.lease.ack(None);
    let letters = yard.letters(1).await;
    assert_eq!((letters.len(), letters[0].0.as_str()), (1, "given up"));
}
