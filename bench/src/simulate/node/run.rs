//! `wf run` of a file, killed and resumed.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use wf_executor::ExecutorOptions;
use wf_ingest::{Patience, Window};
use wf_schema::{JobId, Limits};
use work_factory::Tuner;
use work_factory::feed::Input;
use work_factory::progress::Show;
use work_factory::run::{Earlier, JournalError, RunError, RunOptions, run_here};

use super::super::broker::Session;
use super::super::disk::{Lines, Writing};
use super::super::history::Spec;
use super::super::job;
use super::super::world::{World, ms};
use super::registry;

/// How often somebody tries to resume a file before giving up.
const TRIES: u32 = 60;

/// A file of jobs whose tags begin at `first`.
pub(crate) struct File {
    pub(crate) node: usize,
    pub(crate) first: u32,
    pub(crate) jobs: Vec<Spec>,
    pub(crate) kills: Vec<(u32, u32)>,
}

/// Runs the file to its end, over all lives.
pub(crate) async fn live(world: World, file: File) {
    let File { node, first, jobs, kills } = file;
    let text: String = (first..).zip(&jobs).map(|(tag, spec)| format!("{}\n", job::json(spec, tag))).collect();
    let (lines, mut kills) = (Lines::default(), kills.into_iter());
    let mut earlier = Earlier::Refuse;
    for _ in 0..TRIES {
        let (life, died) = {
            let mut world = world.lock();
            (world.begin(node), world.nodes[node].died.clone())
        };
        let session = Session::new(&world, node, life);
        let Some(options) = options(&world, earlier) else { return };
        let input = Input { name: format!("file {first}"), size: None, file: None, reader: Box::new(Cursor::new(text.clone())) };
        let outlet = Arc::new(Writing { lines: lines.clone(), session: session.clone() });
        let kill = kills.next();
        let run = run_here(session.clone(), registry(&session), input, options, outlet, CancellationToken::new());
        let ended = tokio::select! {
            biased;
            () = died.notified() => None,
            () = sleep(ms(kill.map_or(u32::MAX, |(after, _)| after))) => None,
            ended = run => Some(ended),
        };
        let pause = {
            let mut world = world.lock();
            // At its end it gives back what it has begun of others' jobs.
            world.truth.ends(node, Instant::now());
            if ended.is_none() && world.is_alive(node, life) {
                world.hit("kill Run");
                world.kill(node);
            }
            world.nodes[node].alive = false;
            world.forget(node);
            world.say(|| format!("the file from {first} on: {:?}", ended.as_ref().map(|e| e.as_ref().map(|s| s.jobs))));
            let share = world.rng.u8(..);
            if ended.is_none() {
                lines.tear(share);
            }
            kill.filter(|_| ended.is_none()).map_or(Duration::from_secs(2), |(_, pause)| ms(pause))
        };
        earlier = match ended {
            Some(Ok(_)) => return check(&world, first, jobs.len(), &lines.text()),
            // It never got as far as its journal; or further, and only the answer to its last write was lost.
            Some(Err(RunError::Journal(JournalError::Nothing { .. }))) => {
                if lines.text().lines().count() >= jobs.len() {
                    return check(&world, first, jobs.len(), &lines.text());
                }
                Earlier::Refuse
            }
            Some(Err(error)) => {
                world.lock().hit("wf run fails");
                tracing::debug!(error = &error as &dyn std::error::Error, "wf run failed");
                Earlier::Resume
            }
            None => Earlier::Resume,
        };
        sleep(pause).await;
    }
    let mut world = world.lock();
    if !world.truth.is_excused(first, jobs.len()) {
        world.truth.violated("file never ends", format!("the file from job {first} on was resumed {TRIES} times"));
    }
}

fn options(world: &World, earlier: Earlier) -> Option<RunOptions> {
    let (batch_jobs, slots) = {
        let world = world.lock();
        (world.setting.batch_jobs as usize, usize::from(world.setting.slots))
    };
    Some(RunOptions {
        results: None,
        earlier,
        batch_jobs,
        batch_raw_bytes: 1 << 20,
        window: Window::default(),
        patience: Patience::default(),
        executor: ExecutorOptions::new("run").ok()?.serving([]).concurrency(slots).ok()?,
        drain: Duration::from_secs(5),
        limits: Limits::default(),
        show: Show::Nothing,
        tuner: Tuner::idle(),
    })
}

/// A line for each job, once.
fn check(world: &World, first: u32, jobs: usize, text: &str) {
    let mut world = world.lock();
    if world.truth.is_excused(first, jobs) {
        return;
    }
    let mut found: BTreeMap<u32, u32> = BTreeMap::new();
    for line in text.lines() {
        if line.contains(r#""state":"unknown""#) {
            world.hit("outcome unknown");
            if world.server.kept_since == 0 {
                world.truth.violated("results", format!("nothing was dropped, and nobody knows: {line}"));
            }
        }
        let id = line.strip_prefix(r#"{"id":""#).and_then(|rest| rest.split('"').next()).and_then(|id| id.parse::<JobId>().ok());
        match id.and_then(|id| world.truth.tag_of(id)) {
            Some(tag) => *found.entry(tag).or_default() += 1,
            None => world.truth.violated("results", format!("a line of no job: {line}")),
        }
    }
    for tag in (first..).take(jobs) {
        match found.get(&tag).copied().unwrap_or_default() {
            1 => {}
            0 => world.truth.violated("results", format!("job {tag} has no line")),
            n => world.truth.violated("results", format!("job {tag} has {n} lines")),
        }
        // Whoever runs the file is told of each job.
        world.truth.accepted(tag);
    }
}
