//! Showing what is being looked at, on a terminal.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::progress::Show;

/// A line that says what is being looked at. Gone when it is dropped.
pub(super) struct Steps {
    bar: Option<ProgressBar>,
}

impl Steps {
    /// Shows steps on a terminal, and nothing elsewhere: it is over in seconds.
    pub(super) fn new(show: Show) -> Self {
        let bar = (show == Show::Auto && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed}  {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(125));
            bar
        });
        Self { bar }
    }

    /// Says that `what` is being looked at.
    pub(super) fn now(&self, what: impl Into<String>) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.into());
        }
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
