//! Showing how far something has come: a bar on a terminal, plain lines otherwise, on standard error.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How often a bar is drawn anew.
const BAR_EVERY: Duration = Duration::from_millis(125);
/// How often a plain line is written.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The numbers behind the display, counted where things happen.
#[derive(Debug, Default)]
pub struct Meter {
    read_jobs: AtomicU64,
    read_bytes: AtomicU64,
    ended: AtomicU64,
    failed: AtomicU64,
}

impl Meter {
    /// Some of the input was read.
    pub fn read(&self, jobs: u64, bytes: u64) {
        self.read_jobs.fetch_add(jobs, Relaxed);
        self.read_bytes.fetch_add(bytes, Relaxed);
    }

    /// Some jobs have ended, some of them not as they should.
    pub fn ended(&self, jobs: u64, failed: u64) {
        self.ended.fetch_add(jobs, Relaxed);
        self.failed.fetch_add(failed, Relaxed);
    }

    /// The jobs that have ended.
    pub fn ended_jobs(&self) -> u64 {
        self.ended.load(Relaxed)
    }
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// A bar on a terminal, plain lines otherwise.
    Auto,
    /// Nothing.
    Nothing,
}

/// A display that ends when it is dropped.
pub struct Progress {
    bar: Option<ProgressBar>,
    _shown: DropGuard,
}

impl Progress {
    /// Shows `meter` from now on. `verb` is what happens to jobs ("run"); `size` is the size of the input in bytes,
    /// if it is known.
    pub fn start(meter: Arc<Meter>, verb: &'static str, size: Option<u64>, show: Show) -> Self {
        let stop = CancellationToken::new();
        let terminal = std::io::stderr().is_terminal();
        let bar = (show == Show::Auto && terminal).then(|| bar(size));
        match (&bar, show) {
            (Some(bar), _) => drop(tokio::spawn(draw(bar.clone(), meter, verb, size, stop.clone()))),
            (None, Show::Auto) => drop(tokio::spawn(tell(meter, verb, size, stop.clone()))),
            (None, Show::Nothing) => {}
        }
        Self { bar, _shown: stop.drop_guard() }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(size: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(size, ProgressDrawTarget::stderr());
    let template =
        if size.is_some() { "{spinner} {wide_bar} {percent:>3} %  {msg}  eta {eta}" } else { "{spinner} {elapsed}  {msg}" };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

async fn draw(bar: ProgressBar, meter: Arc<Meter>, verb: &'static str, size: Option<u64>, stop: CancellationToken) {
    let start = Instant::now();
    while stop.run_until_cancelled(tokio::time::sleep(BAR_EVERY)).await.is_some() {
        if size.is_some() {
            bar.set_position(done_bytes(&meter));
        } else {
            bar.tick();
        }
        bar.set_message(message(&meter, verb, start));
    }
}

async fn tell(meter: Arc<Meter>, verb: &'static str, size: Option<u64>, stop: CancellationToken) {
    let start = Instant::now();
    while stop.run_until_cancelled(tokio::time::sleep(LINE_EVERY)).await.is_some() {
        let share = size.filter(|size| *size > 0).map(|size| format!("{:>3} %  ", 100 * done_bytes(&meter) / size));
        let _unheard = writeln!(std::io::stderr(), "{}{}", share.unwrap_or_default(), message(&meter, verb, start));
    }
}

/// The bytes of the input whose jobs have ended, as far as it can be told from the average size of a job.
fn done_bytes(meter: &Meter) -> u64 {
    let read = meter.read_jobs.load(Relaxed).max(1);
    (u128::from(meter.read_bytes.load(Relaxed)) * u128::from(meter.ended.load(Relaxed).min(read)) / u128::from(read)) as u64
}

fn message(meter: &Meter, verb: &str, start: Instant) -> String {
    let ended = meter.ended.load(Relaxed);
    let rate = ended as f64 / start.elapsed().as_secs_f64().max(1e-3);
    let failed = match meter.failed.load(Relaxed) {
        0 => String::new(),
        n => format!(", {} not completed", grouped(n)),
    };
    format!("{} jobs {verb}{failed}, {} jobs/s", grouped(ended), grouped(rate as u64))
}

/// `1234567` as `1,234,567`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_by_three() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
