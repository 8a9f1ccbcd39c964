//! How long round trips took, one after another.

use std::time::Duration;

/// The times of round trips, in the order in which they were made, one at a time. There is one at least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoundTrips {
    in_order: Vec<Duration>,
    sorted: Vec<Duration>,
}

impl RoundTrips {
    /// The times `in_order`; `None` when there are none.
    pub fn new(in_order: Vec<Duration>) -> Option<Self> {
        let mut sorted = in_order.clone();
        sorted.sort_unstable();
        (!sorted.is_empty()).then_some(Self { in_order, sorted })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// The shortest: the link without waiting.
    pub fn min(&self) -> Duration {
        self.sorted.first().copied().unwrap_or_default()
    }

    /// The one that half of them are shorter than.
    pub fn median(&self) -> Duration {
        self.sorted.get(self.sorted.len() / 2).copied().unwrap_or_default()
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        self.sorted.last().copied().unwrap_or_default()
    }

    /// The mean difference between one and the next.
    pub fn jitter(&self) -> Duration {
        let differences: Duration = self.in_order.windows(2).map(|pair| pair[0].abs_diff(pair[1])).sum();
        differences / u32::try_from(self.in_order.len().saturating_sub(1)).unwrap_or(u32::MAX).max(1)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_the_mean_difference_of_neighbours() {
        let of = |ms: &[u64]| RoundTrips::new(ms.iter().map(|ms| Duration::from_millis(*ms)).collect());
        assert_eq!(of(&[]), None);
        let one = of(&[5]).unwrap();
        assert_eq!((one.min(), one.median(), one.jitter()), (one.max(), one.min(), Duration::ZERO));
        let some = of(&[100, 110, 100, 140, 100]).unwrap();
        assert_eq!(some.jitter(), Duration::from_millis(25));
        assert_eq!((some.min().as_millis(), some.median().as_millis(), some.max().as_millis()), (100, 100, 140));
    }
}
