//! Saying that jobs wait where no executor asks for them.
//!
//! Such jobs fail nowhere: they only wait. So whoever has the broker open looks now and then, and says it once when it
//! begins and once when it is over.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

use wf_broker::{Broker, BrokerError, Unserved};
use wf_schema::now;

/// From one look to the next, at least; up to half as much again. What is seen at two looks in a row has gone unserved for
/// at least as long.
const EVERY: Duration = Duration::from_secs(60);

/// Names in one line of the log, at most.
const NAMED: usize = 6;

/// Looks at `broker` until it is gone, or refuses.
pub(crate) async fn watch(broker: Weak<dyn Broker>) {
    let mut seen = Seen::default();
    loop {
        tokio::time::sleep(EVERY.mul_f64(1.0 + fastrand::f64() / 2.0)).await;
        let Some(broker) = broker.upgrade() else { return };
        match broker.unserved().await {
            Ok(found) => {
                let Changes { begun, over } = seen.look(found);
                if !begun.is_empty() {
                    tracing::warn!(
                        lanes = listed(&begun),
                        "jobs wait and no executor asks for them; start one with these queues in executor.queues, or correct \
                         the names where they are enqueued"
                    );
                }
                if !over.is_empty() {
                    tracing::info!(lanes = over.join(", "), "no more jobs wait there without an executor");
                }
            }
            Err(error @ BrokerError::Denied { .. }) => {
                tracing::info!(error = &error as &dyn std::error::Error, "lanes without executors are left to others to see");
                return;
            }
            Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "could not look for lanes without executors"),
        }
    }
}

/// What was seen at the last look: by name, whether it was said.
#[derive(Debug, Default)]
struct Seen(BTreeMap<String, bool>);

/// What is to be said.
#[derive(Debug, Default, PartialEq)]
struct Changes {
    begun: Vec<Unserved>,
    over: Vec<String>,
}

impl Seen {
    /// Looks at what was `found` now.
    fn look(&mut self, found: Vec<Unserved>) -> Changes {
        let mut before = std::mem::take(&mut self.0);
        let mut changes = Changes::default();
        for unserved in found {
            let said = before.remove(&unserved.name);
            self.0.insert(unserved.name.clone(), said.is_some());
            if said == Some(false) {
                changes.begun.push(unserved);
            }
        }
        changes.over = before.into_iter().filter(|(_, said)| *said).map(|(name, _)| name).collect();
        changes
    }
}

/// Some of them, with how much waits for how long.
fn listed(unserved: &[Unserved]) -> String {
    let told = unserved.iter().take(NAMED).map(|Unserved { name, messages, oldest, .. }| {
        // Names at a server come from outside.
        let name: String = name.chars().take(100).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        match oldest {
            Some(oldest) => format!("{name} ({messages} batches, the oldest {} s old)", now().saturating_sub(*oldest) / 1_000),
            None => format!("{name} ({messages} batches)"),
        }
    });
    let mut told: Vec<String> = told.collect();
    if unserved.len() > NAMED {
        told.push(format!("and {} more", unserved.len() - NAMED));
    }
    told.join(", ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn found(names: &[&str]) -> Vec<Unserved> {
        let unserved = |name: &&str| Unserved { name: (*name).into(), lane: name.parse().ok(), messages: 3, oldest: None };
        names.iter().map(unserved).collect()
    }

    #[test]
    fn it_is_said_at_the_second_look_and_once_more_when_it_is_over() {
        let mut seen = Seen::default();
        let mut look = |names: &[&str]| {
            let Changes { begun, over } = seen.look(found(names));
            (begun.into_iter().map(|unserved| unserved.name).collect::<Vec<_>>().join(" "), over.join(" "))
        };
        let told = |begun: &str, over: &str| (begun.to_owned(), over.to_owned());
        assert_eq!(look(&["a.high"]), told("", ""));
        assert_eq!(look(&["a.high", "b.low"]), told("a.high", ""));
        assert_eq!(look(&["a.high"]), told("", ""), "b.low was served before anything was said");
        assert_eq!(look(&["b.low"]), told("", "a.high"));
        assert_eq!(look(&["a.high", "b.low"]), told("b.low", ""), "a.high begins a new episode");
        assert_eq!(look(&[]), told("", "b.low"));
    }

    #[test]
    fn a_line_has_numbers_and_a_few_names() {
        let mut unserved = found(&["a.high", "b", "c", "d", "e", "f", "g", "h\u{1b}[2J"]);
        unserved[1].oldest = Some(now() - 90_500);
        let line = listed(&unserved);
        assert!(line.starts_with("a.high (3 batches), b (3 batches, the oldest 90 s old), c"), "{line}");
        assert!(line.ends_with("f (3 batches), and 2 more"), "{line}");
        assert!(!listed(&unserved[6..]).contains('\u{1b}'));
    }
}
