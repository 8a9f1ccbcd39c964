//! Playing one history, from its first step until everything has healed and come to rest.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use wf_broker::{Message, Publish as _};
use wf_schema::{Lane, Queue};

use super::breaks::Breaks;
use super::broker::{Session, pump};
use super::clock;
use super::history::{Fault, History, Place, Role, Spec, Step, What};
use super::job;
use super::node::ingest::Front;
use super::node::{executor, ingest, run};
use super::strike::strike;
use super::truth::{Violation, Way};
use super::world::{Inner, World, ms};

/// What came of a history.
pub(crate) struct Outcome {
    pub(crate) violations: Vec<Violation>,
    /// All that happened, as a number.
    pub(crate) sum: u64,
    pub(crate) hits: BTreeMap<String, u64>,
    pub(crate) text: Vec<String>,
    /// How long it took, in its own time.
    pub(crate) lasted: Duration,
    pub(crate) jobs: usize,
}

/// How long everything may take to come to rest, once it has healed.
const REST: Duration = Duration::from_secs(300);

/// Plays `history`, on this thread.
pub(crate) fn play(history: &History, breaks: &Breaks, text: bool) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    let outcome = runtime.block_on(async {
        clock::begin(history.seed);
        let world = World::new(history, breaks.clone(), text);
        let began = Instant::now();
        Box::pin(all(history, &world)).await;
        let mut world = world.lock();
        world.truth.conclude();
        Outcome {
            violations: std::mem::take(&mut world.truth.violations),
            sum: world.trace.sum,
            hits: std::mem::take(&mut world.hits),
            text: world.trace.text.take().unwrap_or_default(),
            lasted: began.elapsed(),
            jobs: world.truth.tags.len(),
        }
    });
    drop(runtime);
    clock::end();
    Ok(outcome)
}

/// Everybody who asks for something.
struct Callers {
    world: World,
    front: Front,
    tasks: JoinSet<()>,
    runs: JoinSet<()>,
    /// The nodes that run files, by the number of the step.
    files: BTreeMap<u32, usize>,
    cli: usize,
}

async fn all(history: &History, world: &World) {
    let front = Front::default();
    let mut nodes = JoinSet::new();
    let (mut executors, mut files) = (Vec::new(), BTreeMap::new());
    for index in 0..history.setting.ingests {
        let node = world.lock().add_node(Role::Ingest, index);
        nodes.spawn(ingest::live(world.clone(), front.clone(), node, index));
    }
    for index in 0..history.setting.executors {
        let node = world.lock().add_node(Role::Executor, index);
        executors.push(node);
        nodes.spawn(executor::live(world.clone(), node));
    }
    for step in history.steps.iter().filter(|step| matches!(step.what, What::Run { .. })) {
        let node = world.lock().add_node(Role::Run, files.len() as u8);
        files.insert(step.number, node);
    }
    let cli = world.lock().add_node(Role::Cli, 0);
    world.lock().begin(cli);
    nodes.spawn(tend(world.clone()));
    let mut callers =
        Callers { world: world.clone(), front: front.clone(), tasks: JoinSet::new(), runs: JoinSet::new(), files, cli };
    let began = Instant::now();
    nodes.spawn(snapshots(snapshot_times(history), world.clone(), began));
    for step in &history.steps {
        sleep_until(began + ms(step.at)).await;
        callers.take(step, history.setting.ingests);
    }
    heal(world);
    let rested = rest(world, &front, &mut callers).await;
    if !rested {
        stuck(world, &front, &callers);
    }
    close(world, &executors).await;
}

impl Callers {
    fn take(&mut self, step: &Step, ingests: u8) {
        let first = step.number * 1_000 + 1;
        let world = self.world.clone();
        match &step.what {
            What::Post { ingest, key, jobs, again } => {
                self.ask(first, jobs, if *key { Way::Keyed } else { Way::Plain });
                let (jobs, again) = (jobs.clone(), if *key { again.clone() } else { Vec::new() });
                let key = key.then(|| format!("key-{}", step.number));
                let index = ingest % ingests.max(1);
                self.tasks.spawn(ingest::post(world, self.front.clone(), index, first, key, jobs, again));
            }
            What::Raw { place, jobs } => {
                self.ask(first, jobs, Way::Plain);
                let session = Session::new(&world, self.cli, 1);
                self.tasks.spawn(raw(world, session, *place, first, jobs.clone()));
            }
            What::Run { jobs, kills } => {
                self.ask(first, jobs, Way::File);
                let Some(node) = self.files.get(&step.number).copied() else { return };
                let file = run::File { node, first, jobs: jobs.clone(), kills: kills.clone() };
                self.runs.spawn(run::live(world, file));
            }
            What::Fault(fault) => strike(&world, fault),
        }
    }

    fn ask(&self, first: u32, jobs: &[Spec], way: Way) {
        let mut world = self.world.lock();
        for (tag, spec) in (first..).zip(jobs) {
            world.truth.asked(tag, way, spec.kills);
        }
    }
}

/// Somebody publishes plain JSON.
async fn raw(world: World, session: std::sync::Arc<Session>, place: Place, first: u32, jobs: Vec<Spec>) {
    let lines: String = (first..).zip(&jobs).map(|(tag, spec)| format!("{}\n", job::plain(spec, tag))).collect();
    let Some(lane) = lane(place) else { return };
    let message = Message { lane, id: format!("cli-{first}").into(), bytes: Bytes::from(lines) };
    if session.publish(message).await.is_ok() {
        let mut world = world.lock();
        (first..).take(jobs.len()).for_each(|tag| world.truth.accepted(tag));
    }
}

/// The lane at `place`.
pub(crate) fn lane(place: Place) -> Option<Lane> {
    format!("{}.{}", place.queue(), place.priority()).parse().ok().or_else(|| {
        let queue = Queue::new(place.queue()).ok()?;
        Lane::of(&queue).into_iter().find(|lane| lane.priority.as_str() == place.priority())
    })
}

/// The server's own time: what falls due does.
async fn tend(world: World) {
    let alarm = world.lock().alarm.clone();
    loop {
        let next = {
            let mut world = world.lock();
            let now = Instant::now();
            turn(&mut world, now);
            let wall = world.wall();
            let up = world.down.filter(|until| *until > now);
            let cuts = world.nodes.iter().filter_map(|node| node.cut.map(|(_, until)| until)).filter(|until| *until > now).min();
            let event = world.server.next_event(now, wall).map(|at| up.map_or(at, |up| at.max(up)));
            let owed =
                world.sources.values().filter_map(|source| source.owed.front()).map(|(at, _)| *at).filter(|at| *at > now).min();
            event.into_iter().chain(cuts).chain(owed).chain(up).min()
        };
        match next {
            Some(at) => tokio::select! {
                biased;
                () = alarm.notified() => {}
                () = sleep_until(at) => {}
            },
            None => alarm.notified().await,
        }
    }
}

fn turn(world: &mut Inner, now: Instant) {
    if world.down.is_some_and(|until| now < until) {
        return;
    }
    let wall = world.wall();
    for (uid, run, _) in world.server.fire(now, wall) {
        world.truth.fired(uid, run);
        world.hit("schedule fired");
    }
    world.ask_again(now);
    for lane in world.server.lanes() {
        pump(world, &lane, now);
    }
}

/// When what is stored is kept, for the rollbacks to come.
fn snapshot_times(history: &History) -> Vec<u32> {
    let rollbacks = history.steps.iter().filter_map(|step| match step.what {
        What::Fault(Fault::Rollback { ms }) => Some(step.at.saturating_sub(ms)),
        _ => None,
    });
    let mut times: Vec<u32> = rollbacks.collect();
    times.sort_unstable();
    times
}

async fn snapshots(times: Vec<u32>, world: World, began: Instant) {
    for at in times {
        sleep_until(began + ms(at)).await;
        let mut world = world.lock();
        let server = world.server.clone();
        world.snapshots.push_back((Instant::now(), server));
    }
}

/// Everything is as it should be from now on.
fn heal(world: &World) {
    let mut world = world.lock();
    world.healed = true;
    world.mishaps.clear();
    (world.lag, world.disorder) = (None, None);
    world.disks_full.clear();
    world.server.full.clear();
    let now = Instant::now();
    // Those that are cut off or away come back in their own time, but not too late.
    let soon = now + Duration::from_secs(3);
    for node in &mut world.nodes {
        node.cut = node.cut.map(|(since, until)| (since, until.min(soon)));
    }
    world.down = world.down.map(|until| until.min(soon));
    world.alarm.notify_one();
}

/// Waits until nothing is left to do: whether that came.
async fn rest(world: &World, front: &Front, callers: &mut Callers) -> bool {
    let until = Instant::now() + REST;
    loop {
        while callers.tasks.try_join_next().is_some() || callers.runs.try_join_next().is_some() {}
        let idle = {
            let world = world.lock();
            // A run whose jobs a rollback took away waits for them.
            (callers.runs.is_empty() || world.truth.is_rolled_back())
                && world.server.messages.is_empty()
                && world.server.later.is_empty()
        };
        if idle && callers.tasks.is_empty() && front.spooled() == 0 {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        sleep(Duration::from_millis(500)).await;
    }
}

fn stuck(world: &World, front: &Front, callers: &Callers) {
    let (callers, runs) = (callers.tasks.len(), callers.runs.len());
    let mut world = world.lock();
    let left: Vec<String> = world
        .server
        .messages
        .values()
        .map(|kept| format!("{} in {} ({:?}, delivered {} times)", kept.run, kept.lane, kept.state, kept.delivered))
        .take(5)
        .collect();
    let (later, spooled) = (world.server.later.len(), front.spooled());
    let detail = format!("{callers} callers, {runs} files, {later} for later, {spooled} spooled, messages: {}", left.join("; "));
    world.truth.violated("stuck", detail);
}

/// Stops the executors politely.
async fn close(world: &World, executors: &[usize]) {
    {
        let mut world = world.lock();
        world.closing = true;
        for node in executors {
            world.nodes[*node].deadline_ms = 1_000;
            world.nodes[*node].ordered.notify_one();
        }
    }
    let until = Instant::now() + Duration::from_secs(60);
    while Instant::now() < until {
        {
            let world = world.lock();
            if executors.iter().all(|node| !world.nodes[*node].alive) {
                return;
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
    world.lock().truth.violated("drain hangs", "executors do not come to an end".to_owned());
}
