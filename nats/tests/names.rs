//! Messages at names that no lane can have become dead letters; names that lead nowhere are refused by the server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use serde_json::{Value, json};
use wf_broker::{Consume as _, DeadLetters as _, Message, Publish as _, Unserved};
use wf_nats::testing::{ServerOptions, TestServer};
use wf_nats::{Checkup, FactorySettings, NatsBroker, NatsOptions};
use wf_schema::{DeadLetter, Lane, Limits, Remains};

const PATIENCE: Duration = Duration::from_secs(30);

/// The reasons and contents of the raw dead letters.
async fn letters(broker: &NatsBroker) -> BTreeMap<String, String> {
    let page = broker.dead(None, 0, 1_000).await.unwrap();
    let read = |bytes| match DeadLetter::decode(bytes, &Limits::default()).unwrap().remains {
        Remains::Raw { failure, bytes } => (String::from_utf8(bytes.to_vec()).unwrap(), failure.to_string()),
        Remains::Jobs(_) => panic!("jobs"),
    };
    page.letters.iter().map(|letter| read(&letter.bytes)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_executor_can_serve_becomes_a_dead_letter_with_its_reason() {
    let server = tokio::task::spawn_blocking(|| TestServer::start(ServerOptions::new())).await.unwrap();
    let options = || NatsOptions::new([server.url()]).unwrap();
    let mut settings = FactorySettings::default();
    settings.lease = Duration::from_secs(1);
    let broker = NatsBroker::connect_or_setup(options(), &settings).await.unwrap();
    let admin = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());

    let long = format!("wf.jobs.{}", "q".repeat(65));
    let very_long = format!("wf.jobs.{}.high", "q".repeat(900));
    let named = ["wf.jobs.mail:out", "wf.jobs.\u{c4}", "wf.jobs.\u{c4}.low", "wf.jobs.a\"b", "wf.jobs.a*", &long, &very_long];
    for subject in named {
        admin.publish(subject.to_owned(), subject.to_owned().into()).await.unwrap().await.unwrap();
    }
    // What falls due at such a name is swept as well.
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Schedule", "@at 2026-01-01T00:00:00Z");
    headers.insert("Nats-Schedule-Target", "wf.fire.mail:later.normal");
    admin.publish_with_headers("wf.at.misnamed", headers, "due".into()).await.unwrap().await.unwrap();
    // A name that is a pattern is stored as well. It is told, and no lane is read for it.
    admin.publish("wf.jobs.*", "pattern".into()).await.unwrap().await.ok();
    // Nobody stores these.
    for subject in ["wf.jobs.a.b.c", "wf.jobs.q.urgent", "wf.jobs"] {
        let refused = admin.publish(subject, "{}".into()).await.unwrap().await;
        assert!(refused.is_err(), "{subject}: {refused:?}");
    }
    // Lanes are left alone, served or not.
    for lane in ["mail.normal", "unserved.high"] {
        let lane: Lane = lane.parse().unwrap();
        broker.publish(Message { lane: lane.clone(), id: lane.to_string().into(), bytes: "job".into() }).await.unwrap();
    }

    let checkup = Checkup::connect(options()).await.unwrap();
    let wanted: Vec<&str> =
        named.into_iter().chain(["wf.fire.mail:later.normal", "wf.jobs.*", "mail.normal", "unserved.high"]).collect();
    let began = Instant::now();
    let unserved = loop {
        // A schedule fires a moment after it is due.
        let unserved = checkup.unserved().await.unwrap();
        if unserved.len() >= wanted.len() {
            break unserved;
        }
        assert!(began.elapsed() < PATIENCE, "{unserved:?}");
    };
    let told: Vec<&str> = unserved.iter().map(|unserved| unserved.name.as_str()).collect();
    for name in &wanted {
        assert!(told.contains(name), "{name} is not told in {told:?}");
    }
    let fits = |unserved: &Unserved| unserved.messages == 1 && (unserved.oldest.is_some() || unserved.name == "wf.jobs.*");
    assert!(unserved.iter().all(fits), "{unserved:?}");

    // Whoever serves any lane sweeps.
    let _source = broker.lane("mail.normal".parse().unwrap()).await.unwrap();
    let (began, expected) = (Instant::now(), named.len() + 1);
    let letters = loop {
        let letters = letters(&broker).await;
        if letters.len() >= expected {
            break letters;
        }
        assert!(began.elapsed() < PATIENCE, "{letters:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    for subject in named {
        let why = &letters[subject];
        assert!(why.contains("names no lane") && why.contains(&subject.chars().take(100).collect::<String>()), "{why}");
    }
    assert!(letters["due"].contains("wf.fire.mail:later.normal"), "{letters:?}");
    loop {
        let left = checkup.unserved().await.unwrap();
        if left.iter().all(|unserved| unserved.lane.is_some() || unserved.name == "wf.jobs.*") {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{left:?}");
    }
    let info = admin.get_stream("WF_JOBS").await.unwrap();
    assert_eq!(info.cached_info().state.messages, 3, "the jobs of lanes, and what is at a pattern, are there still");
    assert_eq!(json!(letters.len()), Value::from(expected), "each became one letter");
}
