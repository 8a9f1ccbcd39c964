//! Something that goes on for a while and happens many times: said when it begins, and now and then while it lasts.

use std::time::Duration;

use tokio::time::Instant;

/// Decides when to say something that keeps happening. An episode is over once nothing has happened for as long as the
/// pause between two lines.
#[derive(Debug)]
pub struct Episode {
    pause: Duration,
    /// When it was last said.
    said: Option<Instant>,
    /// How often it has happened since.
    unsaid: u64,
}

impl Episode {
    /// One that is said at most once in `pause`.
    pub const fn new(pause: Duration) -> Self {
        Self { pause, said: None, unsaid: 0 }
    }

    /// It has happened `times` more: how often since it was last said, if it is to be said now.
    pub fn happened(&mut self, times: u64) -> Option<u64> {
        self.unsaid += times;
        let now = Instant::now();
        if self.unsaid == 0 || self.said.is_some_and(|said| now.duration_since(said) < self.pause) {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }

    /// It is over: the next time is a new episode.
    pub fn over(&mut self) {
        self.said = None;
        self.unsaid = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_said_when_it_begins_and_once_a_pause() {
        let mut episode = Episode::new(Duration::from_secs(60));
        assert_eq!(episode.happened(0), None);
        assert_eq!((episode.happened(3), episode.happened(4), episode.happened(5)), (Some(3), None, None));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!((episode.happened(0), episode.happened(1)), (Some(9), None));
        episode.over();
        assert_eq!(episode.happened(2), Some(2));
    }
}
