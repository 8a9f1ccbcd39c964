//! When a job that is to be run later falls due.

use wf_schema::Millis;

const SECOND: Millis = 1_000;

/// The time at which a job wanted at `run_at` falls due, if it is not due by `now`: never before `run_at`, at least a
/// second ahead (nearer is more than a broker can do), and on a whole second, so that jobs due at about the same time
/// share a batch.
pub(crate) fn due(run_at: Option<Millis>, now: Millis) -> Option<Millis> {
    let run_at = run_at.filter(|at| *at > now)?;
    Some(run_at.max(now + SECOND).div_ceil(SECOND).saturating_mul(SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_never_early_and_shares_the_second() {
        assert_eq!(due(None, 5_000), None);
        assert_eq!(due(Some(4_000), 5_000), None);
        assert_eq!(due(Some(5_000), 5_000), None);
        assert_eq!(due(Some(5_001), 5_000), Some(6_000));
        assert_eq!(due(Some(5_300), 5_200), Some(7_000));
        assert_eq!(due(Some(9_000), 5_000), Some(9_000));
        assert_eq!(due(Some(9_001), 5_000), Some(10_000));
        assert_eq!(due(Some(Millis::MAX), 5_000), Some(Millis::MAX));
    }
}
