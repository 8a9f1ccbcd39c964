//! Far more than the broker takes: callers are told, memory is bounded, and it passes.

use std::time::Duration;

use futures::future::join_all;
use wf_ingest::{HttpOptions, Window};

use crate::support::Puppet;
use crate::support::http::{Answer, Site, options};

#[tokio::test]
async fn callers_beyond_what_fits_are_refused_in_bounded_memory_and_it_passes() {
    let broker = Puppet::new();
    broker.hold();
    let mut producer = options();
    producer.room = 1 << 20;
    producer.window = Window { bytes: 512 << 10, messages: 8 };
    producer.room_timeout = Duration::from_millis(100);
    let http = HttpOptions { body_memory: 4 << 20, whole_limit: 2 << 20, ..HttpOptions::default() };
    let site = Site::with(broker.clone(), producer, http).await;
    let noise: String = (0..100_000).map(|_| fastrand::alphanumeric()).collect();
    let job = format!(r#"{{"kind":"k","args":"{noise}"}}"#);
    // 40 MB of bodies at once: single, bulk and whole ones, answered early, so that nobody waits for the broker.
    let single =
        (0..200).map(|_| Answer::of(site.post("/v1/jobs", "application/json", job.clone()).header("prefer", "respond-async")));
    let bulk = (0..50).map(|_| {
        let body = format!("[{}]", [job.as_str(); 2].join(","));
        Answer::of(site.post("/v1/jobs/batch", "application/json", body).header("prefer", "respond-async"))
    });
    let (single, bulk) = tokio::join!(join_all(single), join_all(bulk));
    let answers: Vec<_> = single.into_iter().chain(bulk).collect();
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status != 202).collect();
    assert!(refused.len() > 100, "{}", refused.len());
    for answer in &refused {
        assert!(matches!(answer.status.as_u16(), 429 | 503), "{answer:?}");
        assert!(answer.header("retry-after").is_some());
    }
    assert!(site.state.most_held_together() <= 4 << 20);
    assert!(site.producer.most_held() <= 1 << 20, "{}", site.producer.most_held());
    // What was taken arrives, and the next are taken.
    broker.open_up();
    site.producer.flush().await.unwrap();
    let taken: u64 =
        answers.iter().map(|answer| answer.body["accepted"].as_u64().unwrap_or(u64::from(answer.status == 202))).sum();
    assert_eq!(broker.jobs().len() as u64, taken);
    assert_eq!(site.job(&job).await.status, 202);
}
