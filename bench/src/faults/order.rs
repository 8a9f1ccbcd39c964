//! The jobs that a round runs, made from its seed.

use fastrand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wf_schema::{Job, JobError, Limits};

/// How the keys of jobs end that can only become dead letters.
pub(crate) const DOOMED: &str = "!";

/// The args of a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    /// What it is called, in all journals. Its own.
    pub(crate) key: String,
    /// How long it takes, in milliseconds.
    pub(crate) ms: u64,
    /// How many of its attempts fail.
    pub(crate) fails: u32,
}

/// What sorts of jobs there are, and how many of each, in parts of their sum.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Mix {
    /// Done at once.
    pub(crate) quick: u32,
    /// They wait for something.
    pub(crate) slow: u32,
    /// They hold their thread.
    pub(crate) blocking: u32,
    /// Their first attempts fail.
    pub(crate) failing: u32,
    /// All of their attempts fail.
    pub(crate) hopeless: u32,
    /// Their first attempts panic.
    pub(crate) panicking: u32,
    /// They take their executor with them.
    pub(crate) poison: u32,
    /// They are for later.
    pub(crate) later: u32,
    /// The longest that a slow or a blocking one takes, in milliseconds.
    pub(crate) longest_ms: u64,
    /// The longest that one for later is put off, in milliseconds.
    pub(crate) latest_ms: u64,
}

impl Default for Mix {
    fn default() -> Self {
        Self {
            quick: 60,
            slow: 25,
            blocking: 0,
            failing: 8,
            hopeless: 2,
            panicking: 2,
            poison: 0,
            later: 3,
            longest_ms: 300,
            latest_ms: 3_000,
        }
    }
}

/// The kinds, as handlers are registered for them.
pub(crate) mod kind {
    pub(crate) const QUICK: &str = "quick";
    pub(crate) const SLOW: &str = "slow";
    pub(crate) const BLOCKING: &str = "blocking";
    pub(crate) const PANICKING: &str = "panicking";
    pub(crate) const POISON: &str = "poison";
}

/// One job to be enqueued.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) key: String,
    json: String,
}

impl Order {
    /// As people write it.
    pub(crate) fn json(&self) -> &str {
        &self.json
    }

    /// As programs do.
    ///
    /// # Errors
    /// When it is no job.
    pub(crate) fn job(&self) -> Result<Job<'static>, JobError> {
        Ok(Job::from_json(self.json.as_bytes(), &Limits::default())?.into_owned())
    }
}

/// Makes orders for one producer.
#[derive(Debug)]
pub(crate) struct Orders {
    producer: String,
    next: u64,
    mix: Mix,
    pub(crate) rng: Rng,
}

impl Orders {
    pub(crate) fn new(producer: &str, mix: Mix, seed: u64) -> Self {
        Self { producer: producer.to_owned(), next: 0, mix, rng: Rng::with_seed(seed) }
    }

    /// As many orders as one call gives: mostly one.
    pub(crate) fn call(&mut self) -> Vec<Order> {
        let jobs = if self.rng.f64() < 0.7 { 1 } else { self.rng.u32(2..=20) };
        (0..jobs).map(|_| self.order()).collect()
    }

    fn order(&mut self) -> Order {
        self.next += 1;
        let (mix, rng) = (&self.mix, &mut self.rng);
        let parts = [mix.quick, mix.slow, mix.blocking, mix.failing, mix.hopeless, mix.panicking, mix.poison, mix.later];
        let mut drawn = rng.u32(..parts.iter().sum::<u32>().max(1));
        let sort = parts
            .iter()
            .position(|part| {
                drawn < *part || {
                    drawn -= part;
                    false
                }
            })
            .unwrap_or_default();
        // Who reads a dead letter has to see whether its job had it coming.
        let mark = if matches!(sort, 4 | 6) { DOOMED } else { "" };
        let key = format!("{}-{}{mark}", self.producer, self.next);
        let quick = Task { key: key.clone(), ms: 0, fails: 0 };
        let long = Task { ms: rng.u64(1..=mix.longest_ms.max(1)), ..quick.clone() };
        let (kind, task) = match sort {
            1 => (kind::SLOW, long),
            2 => (kind::BLOCKING, long),
            3 => (kind::QUICK, Task { fails: rng.u32(1..=2), ..quick }),
            4 => (kind::QUICK, Task { fails: u32::MAX, ..quick }),
            5 => (kind::PANICKING, Task { fails: rng.u32(1..=2), ..quick }),
            6 => (kind::POISON, quick),
            _ => (kind::QUICK, quick),
        };
        let mut job = json!({ "kind": kind, "args": task, "max_attempts": if task.fails > 2 { 2 } else { 5 } });
        job["backoff"] = json!({ "min": "100ms", "max": "500ms" });
        if rng.bool() {
            job["store_result"] = Value::Bool(true);
        }
        if sort == 7 {
            job["delay"] = format!("{}ms", rng.u64(1_000..=mix.latest_ms.max(1_001))).into();
        }
        Order { key, json: job.to_string() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_sort_is_a_job_and_a_seed_makes_the_same_ones_again() {
        let mix = Mix { blocking: 10, poison: 10, later: 20, ..Mix::default() };
        let made = |seed| {
            let mut orders = Orders::new("p", mix.clone(), seed);
            (0..50).flat_map(|_| orders.call()).map(|order| order.json().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(made(1), made(1));
        assert_ne!(made(1), made(2));
        let mut orders = Orders::new("p", mix, 3);
        for order in (0..50).flat_map(|_| orders.call()) {
            let job = order.job().unwrap();
            let task: Task = serde_json::from_slice(&job.args).unwrap();
            assert_eq!(task.key, order.key);
        }
    }
}
