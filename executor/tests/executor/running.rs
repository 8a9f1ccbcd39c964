//! How jobs are run: together, but not too many, and whatever the handlers do.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Barrier, Semaphore, mpsc};
use wf_executor::{Executor, ExecutorOptions, JobContext, JobFailure, Registry, stock};
use wf_schema::{Job, Lane, Queue};

use crate::yard::{Yard, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_run_at_once_as_may_over_all_batches() {
    let yard = Yard::new(Duration::from_secs(30));
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    // Each waits until six run at once: with fewer, none would ever end; and there are never more.
    let meeting = Arc::new(Barrier::new(6));
    let counts = (now.clone(), most.clone());
    let registry = Registry::new().register("meet", move |_: JobContext, ()| {
        let ((now, most), meeting) = (counts.clone(), meeting.clone());
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            meeting.wait().await;
            now.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, JobFailure>(())
        }
    });
    let executor = yard.start(registry, 6);
    let job = Job::new("meet", &()).unwrap().store_result();
    let mut batches = Vec::new();
    for _ in 0..6 {
        batches.push(yard.publish(&vec![job.clone(); 5]).await);
    }
    for batch in batches {
        yard.until_final(batch, 5).await;
    }
    assert_eq!(most.load(Ordering::SeqCst), 6);
    let report = within("the drain", executor.drain(None)).await;
    assert!(report.confirmed);
    assert_eq!((executor.stats().completed, executor.stats().running), (30, 0));
}

#[tokio::test]
async fn what_is_fetched_ahead_can_be_changed_while_it_works() {
    let yard = Yard::new(Duration::from_secs(30));
    let (open, started) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (gate, count) = (open.clone(), started.clone());
    let registry = Registry::new().register("wait", move |_: JobContext, _: String| {
        count.add_permits(1);
        let gate = gate.clone();
        async move {
            gate.acquire().await.map(|permit| permit.forget()).map_err(|_| JobFailure::retryable("closed", "the test is over"))
        }
    });
    // A budget for less than one holds nobody up while there are slots: what bytes bind is told by credit's own tests.
    let executor = yard.start(registry, 20);
    let prefetch = executor.prefetch();
    executor.prefetch_bytes(64 << 10);
    // Each 150 KB on the wire, for noise cannot be compressed: one is more than may be fetched.
    let noise = |_| (0..200_000).map(|_| fastrand::alphanumeric()).collect::<String>();
    for args in (0..10).map(noise) {
        yard.publish(&[Job::new("wait", &args).unwrap()]).await;
    }
    within("the first", started.acquire()).await.unwrap().forget();
    assert!(prefetch.set_bytes(8 << 20));
    within("the others", started.acquire_many(9)).await.unwrap().forget();
    assert_eq!((executor.stats().deliveries, executor.stats().running), (10, 10));
    open.add_permits(10);
    let report = within("the drain", executor.drain(None)).await;
    assert_eq!((report.finished, report.released), (10, 0));
    drop(executor);
    assert!(!prefetch.set_bytes(1), "it does not keep the executor");
}

#[tokio::test]
async fn a_handler_that_blocks_everything_loses_no_lease() {
    let lease = Duration::from_millis(300);
    let yard = Yard::new(lease);
    // On this runtime of one thread, nothing else moves while it blocks. (Sleeping is what is tested here.)
    let registry = Registry::new().register("block", move |_: JobContext, ()| async move {
        std::thread::sleep(lease * 4);
        Ok::<_, JobFailure>(())
    });
    let executor = yard.start(registry, 1);
    let batch = yard.publish(&[Job::new("block", &()).unwrap().store_result()]).await;
    yard.until_final(batch, 1).await;
    within("the drain", executor.drain(None)).await;
    let stats = executor.stats();
    assert_eq!((stats.deliveries, stats.redeliveries, stats.fenced, stats.acked), (1, 0, 0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_compute_for_long_run_beside_each_other() {
    let yard = Yard::new(Duration::from_secs(30));
    // The second and the third hold each other up until both run, each on a thread.
    let meeting = Arc::new(std::sync::Barrier::new(2));
    let registry = Registry::new().register("compute", move |context: JobContext, ()| {
        let meeting = meeting.clone();
        async move {
            match context.id().index {
                0 => std::thread::sleep(Duration::from_millis(5)),
                _ => drop(meeting.wait()),
            }
            Ok::<_, JobFailure>(())
        }
    });
    let executor = yard.start(registry, 4);
    let batch = yard.publish(&vec![Job::new("compute", &()).unwrap().store_result(); 3]).await;
    yard.until_final(batch, 3).await;
    within("the drain", executor.drain(None)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_can_be_added_and_once_is_enough() {
    let yard = Yard::new(Duration::from_secs(30));
    let executor = yard.start(stock::register(Registry::new()), 4);
    let mail = Queue::new("mail").unwrap();
    executor.serve(mail.clone());
    executor.serve(mail.clone());
    for lane in Lane::of(&mail) {
        let job = Job::new("noop", &()).unwrap().queue(lane.queue).priority(lane.priority).store_result();
        let batch = yard.publish(&[job]).await;
        yard.until_final(batch, 1).await;
    }
    within("the drain", executor.drain(None)).await;
    assert_eq!(executor.stats().deliveries, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_work_is_left_to_others() {
    let yard = Yard::new(Duration::from_secs(30));
    let gate = Arc::new(Semaphore::new(0));
    let (started, mut starts) = mpsc::unbounded_channel();
    let held = gate.clone();
    let registry = Registry::new().register("wait", move |_: JobContext, ()| {
        let (gate, started) = (held.clone(), started.clone());
        async move {
            started.send(())?;
            gate.acquire().await?.forget();
            Ok::<_, JobFailure>(())
        }
    });
    for _ in 0..40 {
        yard.publish(&[Job::new("wait", &()).unwrap()]).await;
    }
    let executor = yard.start(registry, 2);
    for _ in 0..2 {
        within("a start", starts.recv()).await.unwrap();
    }
    // Two run, a few are at hand; the rest is still there for another node.
    let stats = yard.broker.stats(Lane::default()).await.unwrap();
    assert!(stats.pending >= 30, "{stats:?}");
    gate.add_permits(1_000);
    for _ in 2..40 {
        within("a start", starts.recv()).await.unwrap();
    }
    within("the drain", executor.drain(None)).await;
    assert_eq!(executor.stats().acked, 40);
}

/// Ten slow lanes whose batches were all delivered before have the node's slots busy for a minute, and more batches at
/// hand than can have their turn. Another lane, also of batches that were delivered before, gets its share of the slots.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_lanes_of_redelivered_batches_hold_no_other_lane_up() {
    const SLOW: usize = 10;
    let yard = Yard::new(Duration::from_secs(60));
    let job = |kind, lane: &str| {
        let mut job = Job::new(kind, &HashMap::from([("ms", 40)])).unwrap();
        job.lane = lane.parse().unwrap();
        job
    };
    for queue in 0..SLOW {
        let jobs: Vec<_> = (0..100).map(|_| job("sleep", &format!("slow{queue}.low"))).collect();
        for _ in 0..8 {
            yard.publish(&jobs).await;
        }
        yard.deliver_in_vain(&format!("slow{queue}.low"), 8).await;
    }
    let done = Arc::new(AtomicUsize::new(0));
    let count = done.clone();
    let registry = stock::register(Registry::new()).register("count", move |_: HashMap<String, u32>| {
        count.fetch_add(1, Ordering::Relaxed);
        async { Ok::<_, JobFailure>(()) }
    });
    for _ in 0..40 {
        yard.publish(&[job("count", "fast.high")]).await;
    }
    yard.deliver_in_vain("fast.high", 40).await;

    let slow = (0..SLOW).map(|queue| Queue::new(&format!("slow{queue}")).unwrap());
    let options = ExecutorOptions::new("x").unwrap().concurrency(4).unwrap().serving(slow);
    let executor = Executor::start(yard.broker.clone(), registry, options).unwrap();
    // On a busy machine fewer may come before the first batches have shown how slow they are.
    let began = Instant::now();
    while executor.stats().deliveries < 4 * SLOW as u64 && began.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    executor.serve(Queue::new("fast").unwrap());
    within("the fast lane", async {
        while done.load(Ordering::Relaxed) < 40 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // Not one of the slow batches had to end for that.
    assert!(executor.stats().acked <= 40, "{} batches have ended", executor.stats().acked);
    within("the drain", executor.drain(Duration::ZERO)).await;
}
