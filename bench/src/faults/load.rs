//! A producer at work: calls at a moderate rate, all of them written down before and after.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::caller::Caller;
use super::journal::{Entry, Journal, Told};
use super::order::{Mix, Order, Orders};

/// Calls under way at once.
const CALLERS: u64 = 4;
/// The part of the calls that have a name of their own.
const NAMED: f64 = 0.2;
/// How often a call with a name is made again while nobody knows, and how long it waits in between.
const AGAIN: u32 = 20;
const PAUSE: Duration = Duration::from_millis(500);

/// What a producer does.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) producer: String,
    pub(crate) mix: Mix,
    /// Calls per second.
    pub(crate) rate: f64,
    pub(crate) seed: u64,
}

/// Calls until `over`, and then until every call is answered.
///
/// # Errors
/// When something cannot be written down.
pub(crate) async fn produce(load: &Load, caller: Caller, journal: Arc<Journal>, over: CancellationToken) -> anyhow::Result<()> {
    let mut callers = JoinSet::new();
    for n in 0..CALLERS {
        let (producer, seed) = (format!("{}{n}", load.producer), load.seed.wrapping_mul(CALLERS).wrapping_add(n));
        let orders = Orders::new(&producer, load.mix.clone(), seed);
        let (caller, journal, over, rate) = (caller.clone(), journal.clone(), over.clone(), load.rate / CALLERS as f64);
        callers.spawn(async move { call(orders, &caller, &journal, rate, &over).await });
    }
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    Ok(())
}

async fn call(mut orders: Orders, caller: &Caller, journal: &Journal, rate: f64, over: &CancellationToken) -> anyhow::Result<()> {
    loop {
        let pause = Duration::from_secs_f64(2.0 * orders.rng.f64() / rate);
        if over.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return Ok(());
        }
        let call = orders.call();
        let named = orders.rng.f64() < NAMED && caller.takes_names();
        // The first key is nobody else's.
        let name = call.first().map(|order| order.key.clone()).filter(|_| named);
        let once = named && caller.keeps_names();
        for _ in 0..AGAIN {
            let told = make(&call, name.as_deref(), once, caller, journal).await?;
            // Only with a name it is safe to try again; and only while nobody knows there is a reason to.
            if name.is_none() || !told.iter().any(|told| matches!(told, Told::Unknown { .. })) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn make(call: &[Order], name: Option<&str>, once: bool, caller: &Caller, journal: &Journal) -> anyhow::Result<Vec<Told>> {
    for order in call {
        journal.write(Entry::Intent { key: order.key.clone(), once })?;
    }
    let told = caller.send(call, name).await;
    for (order, told) in call.iter().zip(&told) {
        journal.write(Entry::Answer { key: order.key.clone(), told: told.clone() })?;
    }
    Ok(told)
}
