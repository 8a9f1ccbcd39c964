//! One round: jobs flow, things are done to those who carry them, then everything has to come to its end, and the
//! verdict is given.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::archive::{Archive, add_embedded};
use super::check::{Findings, check};
use super::evidence::Evidence;
use super::scenario::Scenario;
use super::setup::{LEASE, Store};
use super::site::Site;

/// How often it is looked whether everything has come to its end.
const LOOK: Duration = Duration::from_millis(250);
/// How long nothing may happen before it is given up, beside two leases.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long jobs flow before and after what is done to them, in milliseconds.
const FLOW: std::ops::RangeInclusive<u64> = 500..=1_500;

/// What is kept of rounds.
pub(crate) struct Keep {
    /// Where the journals go.
    pub(crate) folder: PathBuf,
    /// Also of rounds without findings.
    pub(crate) all: bool,
}

/// What a round came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) findings: Findings,
    /// Where its journals are, if they were kept.
    pub(crate) kept: Option<PathBuf>,
    pub(crate) took: Duration,
    /// How often something was done to it.
    pub(crate) disturbances: usize,
}

/// Plays `scenario` once, as `seed` has it. The journals of a round with findings are kept in `keep`.
///
/// # Errors
/// When it could not be played.
pub(crate) async fn play(scenario: &Scenario, seed: u64, small: bool, keep: &Keep) -> anyhow::Result<Outcome> {
    let began = Instant::now();
    let folder = tempfile::Builder::new().prefix(&format!("{}-{seed}-", scenario.name)).tempdir_in(&keep.folder)?;
    let setup = (scenario.setup)(small);
    let mut site = match Box::pin(Site::open(setup, folder.path(), seed)).await {
        Ok(site) => site,
        Err(error) => return Err(error.context(format!("its journals are in {}", folder.keep().display()))),
    };
    let played = Box::pin(through(scenario, &mut site)).await;
    let mut outcome =
        Outcome { findings: Findings::default(), kept: None, took: began.elapsed(), disturbances: site.disturbances.len() };
    if let Ok(findings) = &played
        && !findings.is_bad()
        && !keep.all
    {
        outcome.findings = findings.clone();
        return Ok(outcome);
    }
    let told = played.as_ref().map_or_else(|error| format!("{error:#}"), |findings| findings.words.join("\n"));
    let disturbances = site.disturbances.iter().map(|d| format!("\n{} to {}: {} ({:?})", d.from, d.until, d.what, d.whom));
    std::fs::write(folder.path().join("findings"), told + &disturbances.collect::<String>() + "\n")?;
    std::fs::write(folder.path().join("server.log"), site.server_log().unwrap_or_default())?;
    let kept = folder.keep();
    outcome.findings = played.with_context(|| format!("its journals are in {}", kept.display()))?;
    outcome.kept = Some(kept);
    Ok(outcome)
}

async fn through(scenario: &Scenario, site: &mut Site) -> anyhow::Result<Findings> {
    site.pause(FLOW).await;
    (scenario.strike)(site).await?;
    site.pause(FLOW).await;
    site.end_load().await?;
    let mut strays = Vec::new();
    if let Some(left) = settle(site).await? {
        strays.push(format!("stuck: {left} messages wait at the broker, and nothing happens any more"));
    }
    for node in site.nodes() {
        if let Some(status) = node.ended() {
            strays.push(format!("stuck: {} ended by itself: {status}", node.name()));
        }
    }
    let end = site.clock.now();
    for node in site.nodes() {
        if !node.drain().await? {
            strays.push(format!("stuck: {} did not end well", node.name()));
        }
    }
    let mut evidence = Evidence {
        end,
        lease: LEASE.as_millis() as u64,
        margin: site.setup.store.margin(),
        longest_job: site.setup.mix.longest_ms,
        disturbances: site.disturbances.clone(),
        begins_once: site.setup.begins_once,
        ..Evidence::default()
    };
    evidence.add_journals(&site.folder)?;
    match site.setup.store {
        Store::Embedded => Box::pin(add_embedded(&site.url, &mut evidence)).await?,
        _ => Archive::of(&site.url).await?.add_to(&mut evidence).await?,
    }
    let mut findings = check(&evidence);
    findings.stuck += strays.len() as u64;
    findings.words.extend(strays);
    findings.broken += site.broken.len() as u64;
    findings.words.extend(site.broken.iter().map(|words| format!("broken: {words}")));
    Ok(findings)
}

/// Waits until everything that was accepted has its outcome and nothing is under way any more, or nothing happens: then
/// how many messages wait, if all outcomes are there.
async fn settle(site: &mut Site) -> anyhow::Result<Option<u64>> {
    let archive = match site.setup.store {
        Store::Embedded => None,
        _ => Some(Archive::of(&site.url).await?),
    };
    let (mut seen, mut since) = (None, Instant::now());
    loop {
        let mut evidence = Evidence::default();
        evidence.add_journals(&site.folder)?;
        let mut waiting = Some(0);
        if let Some(archive) = &archive {
            // A server that does not answer is one that does nothing.
            waiting = archive.waiting().await.ok();
            archive.add_dead(&mut evidence).await.ok();
        }
        if evidence.open().is_empty() && waiting == Some(0) {
            return Ok(None);
        }
        let ended = evidence.runs.iter().filter(|run| run.ended.is_some()).count();
        let now = Some((evidence.runs.len(), ended, evidence.dead.len(), waiting));
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        if since.elapsed() > 2 * LEASE + PATIENCE {
            // What is open is found by the check, one by one.
            return Ok(waiting.filter(|_| evidence.open().is_empty()));
        }
        tokio::time::sleep(LOOK).await;
    }
}
