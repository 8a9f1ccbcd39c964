//! What happens to a cluster of three servers that store everything three times.

use futures::FutureExt;
use futures::future::BoxFuture;
use wf_nats::testing::TestCluster;

use super::{Scenario, anywhere};
use crate::faults::evidence::Whom;
use crate::faults::setup::{Setup, Store};
use crate::faults::site::Site;

/// The stream whose leader is struck.
const JOBS: &str = "WF_JOBS";
/// All of them.
const STREAMS: &[&str] = &[JOBS, "WF_LATER", "WF_RUNS", "WF_RESULTS", "WF_DEAD", "KV_WF_STATE"];

pub(super) fn scenarios() -> Vec<Scenario> {
    let of_cluster =
        |name, about, small, strike| Scenario { name, about, small, setup: |_| setup(), strike, unavailable: anywhere };
    vec![
        of_cluster("cluster-leader-kill", "the leader of the jobs is killed, and comes back", true, |site| {
            kill(site, true).boxed()
        }),
        of_cluster("cluster-follower-kill", "another server is killed, and comes back", false, |site| kill(site, false).boxed()),
        of_cluster("cluster-rolling-restart", "each server is stopped and started, one after the other", false, rolling),
        of_cluster("cluster-minority", "a server is cut off from the other two, and joins again", false, minority),
    ]
}

fn setup() -> Setup {
    Setup { store: Store::Cluster, settings: vec![("factory.replicas", "3".to_owned())], rate: 10.0, ..Setup::default() }
}

async fn kill(site: &mut Site, leader: bool) -> anyhow::Result<()> {
    for _ in 0..site.rng.u32(1..=2) {
        let cluster = site.cluster()?;
        let led = waited(cluster.leader_of(JOBS));
        let n = if leader { led } else { (led + site.rng.usize(1..=2)) % 3 };
        let ongoing = site.disturb(format!("server {n} is killed"), Whom::Broker);
        let cluster = site.cluster()?;
        tokio::task::block_in_place(|| cluster.kill(n));
        site.pause(500..=3_000).await;
        restart(site, n).await?;
        site.over(ongoing);
        site.pause(500..=2_000).await;
    }
    Ok(())
}

fn rolling(site: &mut Site) -> BoxFuture<'_, anyhow::Result<()>> {
    async {
        for n in 0..3 {
            let ongoing = site.disturb(format!("server {n} is restarted"), Whom::Broker);
            let cluster = site.cluster()?;
            tokio::task::block_in_place(|| cluster.stop(n));
            site.pause(0..=1_000).await;
            restart(site, n).await?;
            site.over(ongoing);
            site.pause(200..=1_000).await;
        }
        Ok(())
    }
    .boxed()
}

/// Whoever goes on to the next server has to wait until this one has all that the others have.
async fn restart(site: &mut Site, n: usize) -> anyhow::Result<()> {
    let cluster = site.cluster()?;
    tokio::task::block_in_place(|| cluster.restart(n));
    in_step(cluster);
    Ok(())
}

fn in_step(cluster: &TestCluster) {
    STREAMS.iter().for_each(|stream| waited(cluster.in_step(stream)));
}

/// What `future` comes to. Here and now, for it cannot go from thread to thread.
fn waited<T>(future: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(future))
}

fn minority(site: &mut Site) -> BoxFuture<'_, anyhow::Result<()>> {
    async {
        for _ in 0..site.rng.u32(1..=2) {
            let n = site.rng.usize(..3);
            let ongoing = site.disturb(format!("server {n} is cut off"), Whom::Broker);
            site.cluster()?.isolate(n);
            site.pause(1_000..=8_000).await;
            let cluster = site.cluster()?;
            cluster.rejoin(n);
            in_step(cluster);
            site.over(ongoing);
            site.pause(500..=2_000).await;
        }
        Ok(())
    }
    .boxed()
}
