//! The producer and the publisher, over a broker that does as it is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use futures::future::join_all;
use support::{Fault, Op, Puppet};
use wf_broker::{Broker, BrokerError};
use wf_ingest::{BatchOptions, EnqueueError, Pace, Patience, Producer, ProducerOptions, PublishError, Publisher, Window};
use wf_schema::{Batch, BatchBuilder, BatchId, Format, Header, Job, JobId, Lane, Limits, Priority, Queue, now};

fn job(n: usize) -> Job<'static> {
    Job::new("math_add", &serde_json::json!({"a": n, "b": 1})).unwrap()
}

fn large(n: usize) -> Job<'static> {
    let noise: String = (0..n).map(|_| fastrand::alphanumeric()).collect();
    Job::new("echo", &noise).unwrap()
}

fn lane(queue: &str) -> Lane {
    Lane::new(Queue::new(queue).unwrap(), Priority::Normal)
}

fn options() -> ProducerOptions {
    support::http::options()
}

fn producer(broker: &Arc<Puppet>, options: ProducerOptions) -> Producer {
    Producer::new(broker.clone(), options)
}

fn batch_of(jobs: impl IntoIterator<Item = Job<'static>>) -> BatchBuilder {
    let mut batch = BatchBuilder::new(Header::new(BatchId::new(), Format::Json));
    for job in jobs {
        batch.push(&job).unwrap();
    }
    batch
}

#[tokio::test]
async fn a_job_is_stored_under_the_id_its_caller_is_told() {
    let broker = Puppet::new();
    let producer = producer(&broker, options());
    let id = producer.enqueue(job(7)).await.unwrap();
    assert_eq!(broker.jobs(), [(id, "math_add".to_owned(), r#"{"a":7,"b":1}"#.to_owned())]);
    assert_eq!(broker.messages()[0].id.as_ref(), id.batch.to_string());
}

#[tokio::test]
async fn callers_share_a_batch_while_another_is_on_its_way() {
    let broker = Puppet::new();
    broker.hold();
    let patient = BatchOptions { linger: Duration::from_secs(60), ..BatchOptions::default() };
    let producer = producer(&broker, ProducerOptions { batch: patient, ..options() });
    let first = tokio::spawn({
        let producer = producer.clone();
        async move { producer.enqueue(job(0)).await }
    });
    broker.under_way(1).await;
    let others = join_all((1..100).map(|n| producer.submit(job(n)))).await;
    broker.let_go(1);
    broker.under_way(1).await;
    broker.let_go(1);
    first.await.unwrap().unwrap();
    let mut ids = HashSet::new();
    for submitted in others {
        let submitted = submitted.unwrap();
        submitted.stored.await.unwrap();
        ids.insert(submitted.id);
    }
    assert_eq!(ids.len(), 99);
    assert_eq!(broker.messages().len(), 2, "one alone, and all that came meanwhile together");
}

#[tokio::test]
async fn many_jobs_are_stored_in_order_under_their_ids() {
    let broker = Puppet::new();
    let producer = producer(&broker, options());
    let ranges = producer.enqueue_all((0..20_000).map(job)).await.unwrap();
    let ids: Vec<JobId> = ranges.iter().flat_map(|range| range.ids()).collect();
    let mut stored: Vec<_> = broker.jobs();
    let place: std::collections::HashMap<JobId, usize> = ids.iter().enumerate().map(|(n, id)| (*id, n)).collect();
    assert_eq!((ids.len(), place.len(), stored.len()), (20_000, 20_000, 20_000));
    stored.sort_by_key(|(id, _, _)| place[id]);
    for (n, (_, _, args)) in stored.iter().enumerate() {
        assert_eq!(*args, format!(r#"{{"a":{n},"b":1}}"#));
    }
    let stats = producer.stats();
    assert_eq!((stats.jobs, stats.messages as usize, stats.duplicates), (20_000, broker.messages().len(), 0));
    assert!(stats.wire_bytes < 12 * 20_000, "{} bytes a job", stats.wire_bytes as f64 / 20_000.0);
    assert!(stats.messages < 40, "{} messages", stats.messages);
}

#[tokio::test]
async fn what_is_no_job_is_refused_before_it_spoils_a_batch() {
    let broker = Puppet::new();
    let producer = producer(&broker, options());
    let bad_kind = Job { kind: "a b".into(), ..job(1) };
    let mut no_attempts = job(1);
    no_attempts.policy.max_attempts = 0;
    for bad in [bad_kind, no_attempts, large(300 << 10)] {
        assert!(matches!(producer.enqueue(bad).await, Err(EnqueueError::Invalid(_))));
    }
    let mixed = vec![job(1), Job { kind: "".into(), ..job(2) }, job(3)];
    assert!(matches!(producer.enqueue_all(mixed).await, Err(EnqueueError::Invalid(_))));
    assert_eq!(broker.jobs().len(), 1, "what stands before it is taken");
}

#[tokio::test]
async fn a_batch_larger_than_the_broker_takes_is_split_and_keeps_its_ids() {
    let broker = Puppet::new();
    broker.max_message.store(8 << 10, SeqCst);
    let batch = batch_of((0..50).map(|_| large(1_000)));
    let id = batch.header().id;
    let publisher = Publisher::new(broker.clone(), Window::default());
    let published = publisher.publish(Lane::default(), &batch).await.unwrap();
    let messages = broker.messages();
    assert!(published.messages > 1 && published.messages == messages.len());
    let mut indexes = Vec::new();
    for message in &messages {
        assert!(message.bytes.len() <= 8 << 10);
        let part = Batch::decode(&message.bytes, &Limits::default()).unwrap();
        let first = part.get(0).unwrap().index();
        let name = if first == 0 { id.to_string() } else { format!("{id}.{first}") };
        assert_eq!(message.id.as_ref(), name);
        indexes.extend(part.iter().map(|job| (job.id().batch, job.index())));
    }
    indexes.sort_unstable();
    assert_eq!(indexes, (0..50).map(|index| (id, index)).collect::<Vec<_>>());
    // The same batch again is the same messages.
    let again = publisher.publish(Lane::default(), &batch).await.unwrap();
    assert_eq!(again.duplicates, again.messages);
    assert_eq!(publisher.stats().duplicates as usize, again.messages);
}

#[tokio::test]
async fn no_more_is_on_its_way_than_the_window_holds() {
    let broker = Puppet::new();
    broker.hold();
    let window = Window { bytes: 64 << 10, messages: 4 };
    let publisher = Publisher::new(broker.clone(), window);
    let sending = tokio::spawn({
        let publisher = publisher.clone();
        async move {
            let mut all = Vec::new();
            for n in 0..20 {
                // Some larger than the whole window.
                let batch = batch_of([large(if n % 5 == 0 { 100 << 10 } else { 10 << 10 })]);
                all.push(publisher.send(Lane::default(), &batch).await.unwrap());
                let stats = publisher.stats();
                assert!(stats.in_flight_bytes <= 64 << 10 && stats.in_flight_messages <= 4);
            }
            futures::future::try_join_all(all).await.unwrap()
        }
    });
    for _ in 0..20 {
        broker.under_way(1).await;
        broker.let_go(1);
    }
    assert_eq!(sending.await.unwrap().len(), 20);
    assert!(broker.most_in_flight.load(SeqCst) <= 4);
    assert_eq!(publisher.stats().in_flight_bytes, 0);
}

#[tokio::test]
async fn a_producer_changes_its_pace_while_it_publishes() {
    let broker = Puppet::new();
    broker.hold();
    let mut options = options();
    options.window = Window { bytes: 1 << 20, messages: 1 };
    let producer = producer(&broker, options.clone());
    // Each lane sends the first that comes at once.
    for n in 0..4 {
        producer.submit(job(n).queue(Queue::new(&format!("q{n}")).unwrap())).await.unwrap();
    }
    broker.under_way(1).await;
    let pace =
        Pace { linger: Duration::ZERO, wire_bytes: 8 << 10, room: 1 << 20, window: Window { bytes: 1 << 20, messages: 3 } };
    let setter = producer.pace_setter();
    assert!(setter.set(&pace));
    broker.under_way(3).await;
    assert_eq!((producer.stats().window, producer.stats().in_flight_messages), (pace.window, 3));
    assert!(setter.set(&Pace { window: Window { bytes: 1 << 20, messages: 1 }, ..pace }));
    broker.let_go(2);
    while producer.stats().messages < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(producer.stats().in_flight_messages, 1, "one is on its way still, so the fourth waits");
    broker.let_go(2);
    producer.close().await.unwrap();
    assert_eq!(broker.most_in_flight.load(SeqCst), 3);
    drop(producer);
    assert!(!setter.set(&pace), "it does not keep the producer");
}

#[tokio::test(start_paused = true)]
async fn what_can_be_tried_again_is_under_the_same_id() {
    let broker = Puppet::new();
    broker.fail(Op::Publish, [Some(Fault::Away), Some(Fault::AnswerLost), Some(Fault::Away)]);
    let publisher = Publisher::new(broker.clone(), Window::default());
    let published = publisher.publish(Lane::default(), &batch_of([job(1)])).await.unwrap();
    assert_eq!((published.duplicates, broker.messages().len(), broker.calls(Op::Publish)), (1, 1, 4));
    assert_eq!(publisher.stats().retries, 3);
}

#[tokio::test(start_paused = true)]
async fn trying_ends_when_patience_does_and_at_once_where_it_is_useless() {
    let broker = Puppet::new();
    broker.set_away(true);
    let patience = Patience { full: Duration::ZERO, away: Duration::from_secs(20) };
    let publisher = Publisher::new(broker.clone(), Window::default()).patience(patience);
    let began = tokio::time::Instant::now();
    let error = publisher.publish(Lane::default(), &batch_of([job(1)])).await.unwrap_err();
    assert!(error.is_retryable());
    assert!(began.elapsed() <= Duration::from_secs(20));
    assert!(broker.calls(Op::Publish) > 5);

    broker.set_away(false);
    broker.fail(Op::Publish, [Some(Fault::Denied)]);
    let error = publisher.publish(Lane::default(), &batch_of([job(1)])).await.unwrap_err();
    assert!(!error.is_retryable());
}

#[tokio::test(start_paused = true)]
async fn what_may_be_stored_is_not_called_refused() {
    let broker = Puppet::new();
    let patience = Patience { full: Duration::ZERO, away: Duration::from_secs(20) };
    let publisher = Publisher::new(broker.clone(), Window::default()).patience(patience);
    let publish = |n| {
        let publisher = publisher.clone();
        async move {
            match publisher.publish(Lane::default(), &batch_of([job(n)])).await {
                Err(PublishError::Broker(cause)) => cause,
                other => panic!("{other:?}"),
            }
        }
    };
    broker.fail(Op::Publish, [Some(Fault::NoRoom)]);
    assert!(matches!(*publish(1).await, BrokerError::NoRoom { .. }), "it was not stored, and nobody waits");
    assert_eq!(broker.calls(Op::Publish), 1);
    broker.fail(Op::Publish, std::iter::once(Some(Fault::AnswerLost)).chain([Some(Fault::NoRoom); 99]).collect::<Vec<_>>());
    assert!(matches!(*publish(2).await, BrokerError::Retryable { .. }), "the first try may have been made");
    assert_eq!(broker.messages().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_lane_keeps_no_other_out_of_the_window() {
    let broker = Puppet::new();
    broker.set_full(&lane("full"), true);
    let publisher = Publisher::new(broker.clone(), Window { bytes: 1 << 20, messages: 1 });
    let waiting = publisher.send(lane("full"), &batch_of([job(1)])).await.unwrap();
    let waiting = tokio::spawn(waiting);
    publisher.publish(lane("other"), &batch_of([job(2)])).await.unwrap();
    broker.set_full(&lane("full"), false);
    waiting.await.unwrap().unwrap();
    assert_eq!(broker.messages().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_producer_says_that_a_lane_is_full() {
    let broker = Puppet::new();
    broker.set_full(&lane("full"), true);
    let producer = producer(&broker, options());
    let error = producer.enqueue(job(1).queue(Queue::new("full").unwrap())).await.unwrap_err();
    let EnqueueError::Publish(PublishError::Broker(cause)) = &error else { panic!("{error:?}") };
    assert!(error.is_retryable() && matches!(**cause, BrokerError::Full { .. }));
    producer.enqueue(job(2)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_room_waits_a_while_and_is_told_why() {
    let broker = Puppet::new();
    broker.hold();
    let window = Window { bytes: 64 << 10, messages: 1 };
    let small = ProducerOptions { window, room: 256 << 10, room_timeout: Duration::from_secs(5), ..options() };
    let producer = producer(&broker, small);
    let mut taken = Vec::new();
    let began = tokio::time::Instant::now();
    let error = loop {
        match producer.submit(large(20_000)).await {
            Ok(submitted) => taken.push(submitted),
            Err(error) => break error,
        }
        assert!(taken.len() < 100, "room has no end");
    };
    assert!(matches!(error, EnqueueError::Busy { .. }), "{error:?}");
    assert!(began.elapsed() >= Duration::from_secs(5));
    assert!(producer.most_held() <= 256 << 10);
    assert!(taken.len() >= 8);
    // Room comes back as batches leave, and nothing that was taken is lost.
    broker.open_up();
    for submitted in taken {
        submitted.stored.await.unwrap();
    }
    producer.enqueue(job(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_room_because_the_broker_is_away_is_called_that() {
    let broker = Puppet::new();
    broker.set_away(true);
    let patience = Patience { full: Duration::ZERO, away: Duration::from_secs(600) };
    let window = Window { bytes: 64 << 10, messages: 1 };
    let producer = producer(&broker, ProducerOptions { window, room: 128 << 10, patience, ..options() });
    let error = loop {
        if let Err(error) = producer.submit(large(20_000)).await {
            break error;
        }
    };
    // Not that it is unknown what became of the job: nobody was given it.
    let EnqueueError::Publish(PublishError::Unreachable { source: Some(cause), .. }) = error else { panic!("{error:?}") };
    assert!(matches!(*cause, BrokerError::Retryable { .. }));
    broker.set_away(false);
    producer.flush().await.unwrap();
}

#[tokio::test]
async fn a_crowd_passes_through_a_small_room() {
    let broker = Puppet::new();
    broker.discard();
    let window = Window { bytes: 64 << 10, messages: 2 };
    let room_timeout = Duration::from_secs(60);
    let producer = producer(&broker, ProducerOptions { window, room: 64 << 10, room_timeout, ..options() });
    let callers = (0..64).map(|caller| {
        let producer = producer.clone();
        tokio::spawn(async move {
            for n in 0..50 {
                let queue = Queue::new(&format!("q{}", caller % 3)).unwrap();
                producer.enqueue(if n % 10 == 0 { large(9_000) } else { job(n) }.queue(queue)).await.unwrap();
            }
        })
    });
    for caller in join_all(callers).await {
        caller.unwrap();
    }
    assert_eq!(producer.stats().jobs, 64 * 50);
    assert!(producer.most_held() <= 64 << 10, "{}", producer.most_held());
}

#[tokio::test]
async fn jobs_for_later_are_scheduled_by_the_second() {
    let broker = Puppet::new();
    let producer = producer(&broker, options());
    let at = (now() / 1_000 + 100) * 1_000;
    let jobs = [job(0), job(1).run_at(at - 300), job(2).run_at(at), job(3).run_at(at + 1), job(4).run_at(1)];
    producer.enqueue_all(jobs).await.unwrap();
    assert_eq!(broker.messages().iter().map(|m| Batch::decode(&m.bytes, &Limits::default()).unwrap().len()).sum::<usize>(), 2);
    let mut scheduled = broker.scheduled();
    scheduled.sort_by_key(|scheduled| scheduled.due);
    assert_eq!(scheduled.iter().map(|s| s.due).collect::<Vec<_>>(), [at, at + 1_000]);
    let first = Batch::decode(&scheduled[0].bytes, &Limits::default()).unwrap();
    assert_eq!((first.len(), first.header().due), (2, Some(at)));
    assert_eq!(scheduled[0].key.as_str(), first.header().id.to_string());
}

#[tokio::test]
async fn an_early_answer_comes_before_the_broker_and_the_receipt_after() {
    let broker = Puppet::new();
    broker.hold();
    let producer = producer(&broker, options());
    let submitted = producer.submit(job(1)).await.unwrap();
    assert!(submitted.stored.peek().is_none());
    broker.let_go(1);
    submitted.stored.clone().await.unwrap();
    assert_eq!(broker.jobs()[0].0, submitted.id);

    broker.fail(Op::Publish, [Some(Fault::Denied)]);
    let submitted = producer.submit(job(2)).await.unwrap();
    broker.let_go(1);
    assert!(submitted.stored.await.is_err());
}

#[tokio::test]
async fn closing_takes_no_more_and_loses_nothing() {
    let broker = Puppet::new();
    let lingers = BatchOptions { linger: Duration::from_secs(1), ..BatchOptions::default() };
    let producer = producer(&broker, ProducerOptions { batch: lingers, ..options() });
    for n in 0..10 {
        producer.submit(job(n)).await.unwrap();
    }
    let other = producer.clone();
    producer.close().await.unwrap();
    assert_eq!(broker.jobs().len(), 10);
    assert!(matches!(other.enqueue(job(1)).await, Err(EnqueueError::Closed)));
}

#[tokio::test]
async fn what_the_last_clone_leaves_behind_still_goes() {
    let broker = Puppet::new();
    broker.hold();
    let lingers = BatchOptions { linger: Duration::from_secs(3_600), ..BatchOptions::default() };
    let producer = producer(&broker, ProducerOptions { batch: lingers, ..options() });
    let first = producer.submit(job(1)).await.unwrap();
    broker.under_way(1).await;
    let second = producer.submit(job(2)).await.unwrap();
    drop(producer);
    broker.open_up();
    first.stored.await.unwrap();
    second.stored.await.unwrap();
}

#[tokio::test]
async fn all_or_nothing_is_for_as_many_messages_as_the_broker_takes() {
    let broker = Puppet::new();
    let publisher = Publisher::new(broker.clone(), Window { bytes: 1 << 10, messages: 2 });
    let batches: Vec<BatchBuilder> = (0..51).map(|n| batch_of([job(n)])).collect();
    let with_lanes: Vec<_> = batches.iter().map(|batch| (Lane::default(), batch)).collect();
    let error = publisher.publish_all(&with_lanes).await.unwrap_err();
    assert!(matches!(error, PublishError::TooMany { messages: 51, limit: 50 }));
    publisher.publish_all(&with_lanes[..50]).await.unwrap();
    assert_eq!(broker.messages().len(), 50);
    assert_eq!(broker.ping().await.unwrap(), Duration::from_millis(1));
}

/// The broker knows an id for a while only. A message that may have been stored longer ago is looked for before it is
/// sent again.
#[tokio::test]
async fn what_is_in_doubt_for_long_is_looked_for_before_it_is_sent_again() {
    let patience = Patience { full: Duration::ZERO, away: Duration::from_secs(20) };
    let once = async |remember: u32, faults: Vec<Option<Fault>>, untold: bool| {
        let broker = Puppet::new();
        broker.window_ms.store(0, SeqCst);
        broker.fail(Op::Publish, faults);
        broker.fail(Op::Trace, [untold.then_some(Fault::Denied)]);
        let publisher = Publisher::new(broker.clone(), Window::default()).patience(patience);
        let mut batch = BatchBuilder::new(Header { remember, ..Header::new(BatchId::new(), Format::Json) });
        batch.push(&job(1)).unwrap();
        let published = publisher.publish(Lane::default(), &batch).await;
        (published.map(|published| published.duplicates), broker.calls(Op::Publish), broker.messages().len())
    };
    let (published, calls, stored) = once(0, vec![Some(Fault::AnswerLost)], false).await;
    assert_eq!((published.unwrap(), calls, stored), (1, 1, 1), "found");
    let (published, calls, stored) = once(3_600, vec![Some(Fault::Away)], false).await;
    assert_eq!((published.unwrap(), calls, stored), (0, 2, 1), "known to be missing");
    let (published, calls, _) = once(3_600, vec![Some(Fault::AnswerLost)], true).await;
    assert!(matches!(published, Err(PublishError::Broker(_))), "in doubt, and said so");
    assert_eq!(calls, 1);
    // Its run would not be remembered, so nobody will ever know: once too often is better than never.
    let (published, calls, stored) = once(0, vec![Some(Fault::Away)], false).await;
    assert_eq!((published.unwrap(), calls, stored), (0, 2, 1));
}
