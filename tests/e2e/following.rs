//! The profile `auto`: a process whose link changes follows it, without a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use wf_nats::testing::{DelayProxy, ServerOptions, TestServer};
use wf_schema::config::{Loader, Profile};
use work_factory::{Factory, Job, JobContext, JobFailure, Registry, Tuned};

use crate::support::{PATIENCE, Stage, until};

/// A producer and an executor, busy with jobs whose args cannot be compressed.
struct Busy {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    enqueueing: JoinHandle<()>,
}

impl Busy {
    fn with(factory: &Factory, registry: Registry, done: Arc<AtomicU64>) -> (Self, work_factory::Executor) {
        let executor = factory.executor(registry).unwrap();
        let (producer, stop) = (factory.producer(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let enqueueing = tokio::spawn(async move {
            let noise: String = (0..20_000).map(|_| fastrand::alphanumeric()).collect();
            let job = |n: usize| Job::new("count", &&noise[n % 10_000..n % 10_000 + 10_000]).unwrap();
            while !stopped.load(Ordering::Relaxed) {
                producer.enqueue_all((0..2_000).map(|_| job(fastrand::usize(..)))).await.unwrap();
            }
            producer.close().await.unwrap();
        });
        (Self { stop, done, enqueueing }, executor)
    }

    /// Lets `count` more jobs be done.
    async fn work(&self, count: u64) {
        let enough = self.done.load(Ordering::Relaxed) + count;
        until("jobs to be done", async || (self.done.load(Ordering::Relaxed) >= enough).then_some(())).await;
    }
}

/// Waits until what was tuned is `right`.
async fn tuned_to(factory: &Factory, right: impl Fn(&Tuned) -> bool) -> Tuned {
    let mut watch = factory.tuner().watch().unwrap();
    let tuned = tokio::time::timeout(PATIENCE, watch.wait_for(|tuned| right(tuned))).await;
    let tuned = tuned.map(|tuned| tuned.unwrap().clone());
    tuned.unwrap_or_else(|_| {
        let Tuned { link, tuning, .. } = &*watch.borrow();
        panic!("stayed at: {link}; {tuning}")
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_follows_its_link_from_near_to_far_and_back() {
    let server = TestServer::start(ServerOptions::new());
    let link = DelayProxy::start(server.address(), Duration::ZERO);
    let loader = Loader::new().flags([("profile", "auto"), ("broker.url", &link.url())]);
    let factory = Factory::load(&loader).await.unwrap();
    let near = tuned_to(&factory, |_| true).await;
    let connections = link.connections();
    // Which of the near ones depends on how busy this machine is.
    assert_ne!(near.tuning.profile, Profile::Wan, "{}", near.link);

    let done = Arc::new(AtomicU64::new(0));
    let counted = done.clone();
    let registry = Registry::new().register("count", move |_: JobContext, _: String| {
        counted.fetch_add(1, Ordering::Relaxed);
        async { Ok::<_, JobFailure>(()) }
    });
    let (busy, executor) = Busy::with(&factory, registry, done);
    busy.work(5_000).await;
    let near = factory.tuner().watch().unwrap().borrow().clone();

    // From 0 to 100 ms, with all of it going on.
    link.set_delay(Duration::from_millis(50));
    let far = tuned_to(&factory, |tuned| tuned.tuning.profile == Profile::Wan).await;
    assert!(far.link.round_trips.shortest().unwrap() >= Duration::from_millis(100), "{}", far.link);
    let carried = far.link.up.bytes_per_second().unwrap();
    // Room for what this machine carried before, over the long link, unless the profile says that is too much.
    let needed = (carried * 0.1).min(16e6) as usize;
    assert!(far.tuning.window.bytes >= needed, "{} bytes a second in {}", carried, far.tuning);
    assert!(far.tuning.window.bytes >= near.tuning.window.bytes, "{} and then {}", near.tuning, far.tuning);
    assert!(far.tuning.prefetch_bytes >= near.tuning.prefetch_bytes, "{} and then {}", near.tuning, far.tuning);
    assert!(far.tuning.linger > near.tuning.linger);
    busy.work(5_000).await;

    // And back.
    link.set_delay(Duration::ZERO);
    tuned_to(&factory, |tuned| tuned.tuning.profile != Profile::Wan).await;
    busy.work(5_000).await;
    assert_eq!(link.connections(), connections, "the same from beginning to end");
    busy.stop.store(true, Ordering::Relaxed);
    busy.enqueueing.await.unwrap();
    executor.drain(Duration::from_secs(10)).await;
    factory.close().await.unwrap();
}

/// What somebody has set stays, and what was chosen is said.
#[tokio::test]
async fn the_program_says_what_it_chose() {
    let server = TestServer::start(ServerOptions::new());
    let link = DelayProxy::start(server.address(), Duration::from_millis(50));
    let stage = Stage::with("profile = \"auto\"\n[publish]\nwindow_bytes = \"3 MiB\"\n");
    let broker = format!("--broker {}", link.url());
    stage.run(&format!("broker setup {broker}")).await.expect(0);
    let mut executor = stage.start(&format!("executor {broker}"));
    let line = executor.says("measured the link").await;
    for said in ["round trip 10", "MB/s", "wan: window 3 MiB", "linger 5 ms"] {
        assert!(line.contains(said), "no `{said}` in: {line}");
    }
    assert!(executor.says("running jobs").await.contains("profile=wan"));
    executor.signal("TERM");
    executor.wait().await.expect(0);
}

/// With a broker in the process there is no link to follow.
#[tokio::test]
async fn a_broker_in_the_process_needs_no_tuning() {
    let factory = Factory::load(&Loader::new().flags([("profile", "auto"), ("broker.url", "memory://")])).await.unwrap();
    assert!(factory.tuner().watch().is_none());
}
