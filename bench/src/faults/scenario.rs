//! What can happen to a factory, one scenario after the other.

use futures::future::BoxFuture;

use super::setup::Setup;
use super::site::Site;

mod broker;
mod clocks;
mod cluster;
mod files;
mod handlers;
mod leaf;
mod letters;
mod links;
mod names;
mod nodes;
mod spool;

/// A kind of misfortune.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// What is done, in a few words.
    pub(crate) about: &'static str,
    /// Whether it is short enough for the small form.
    pub(crate) small: bool,
    /// The site; `true` in the small form.
    pub(crate) setup: fn(bool) -> Setup,
    /// Does it, while jobs flow.
    pub(crate) strike: for<'a> fn(&'a mut Site) -> BoxFuture<'a, anyhow::Result<()>>,
    /// Why it cannot be played here, if it cannot.
    pub(crate) unavailable: fn() -> Option<String>,
}

/// All of them.
pub(crate) fn all() -> Vec<Scenario> {
    [
        broker::scenarios(),
        nodes::scenarios(),
        links::scenarios(),
        handlers::scenarios(),
        cluster::scenarios(),
        clocks::scenarios(),
        spool::scenarios(),
        letters::scenarios(),
        leaf::scenarios(),
        names::scenarios(),
        files::scenarios(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// For what can be played everywhere.
fn anywhere() -> Option<String> {
    None
}
