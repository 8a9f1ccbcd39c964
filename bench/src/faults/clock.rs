//! One clock for all processes of a round, which nobody can set.

use std::fs::File;
use std::os::unix::fs::FileExt;

use wf_schema::now;

/// Milliseconds since the machine started, to within ten: the same in every process, also in one whose wall clock was
/// moved. Where the machine does not tell, the wall clock has to do.
#[derive(Debug)]
pub(crate) struct Clock(Option<File>);

impl Clock {
    pub(crate) fn new() -> Self {
        Self(File::open("/proc/uptime").ok())
    }

    /// The time now.
    pub(crate) fn now(&self) -> u64 {
        self.uptime().unwrap_or_else(now)
    }

    fn uptime(&self) -> Option<u64> {
        let mut text = [0; 32];
        let length = self.0.as_ref()?.read_at(&mut text, 0).ok()?;
        let seconds: f64 = std::str::from_utf8(&text[..length]).ok()?.split(' ').next()?.parse().ok()?;
        Some((seconds * 1e3) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_goes_back() {
        let clock = Clock::new();
        let (first, second) = (clock.now(), clock.now());
        assert!(first > 0 && second >= first);
    }
}
