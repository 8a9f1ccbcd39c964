//! Jobs of one caller, on their way to the batcher together. Neighbours that are alike but for their args are kept once,
//! with the args of all of them behind one another: most callers send many jobs of a kind.

use wf_schema::Job;

/// See the module.
#[derive(Default)]
pub(crate) struct Group<'a> {
    /// A job without its args, and the number of the first job that is like it.
    rows: Vec<(Job<'a>, usize)>,
    bytes: Vec<u8>,
    /// Where the args of each job end in `bytes`.
    ends: Vec<usize>,
}

/// The args of jobs in a row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ArgsRow<'a> {
    One(&'a [u8]),
    /// Behind one another in `bytes`, from `start` on.
    Many {
        bytes: &'a [u8],
        start: usize,
        ends: &'a [usize],
    },
}

impl<'a> Group<'a> {
    /// The most jobs in a group: enough that the lock of the batcher costs nothing a job, few enough to share it.
    const JOBS: usize = 64;
    /// The most bytes of args that wait for room at once, but for a single job's.
    const BYTES: usize = 256 << 10;

    /// Whether `job` still belongs to this group, rather than to the next.
    pub(crate) fn takes(&self, job: &Job<'_>) -> bool {
        self.is_empty() || self.len() < Self::JOBS && self.bytes.len() + job.args.len() <= Self::BYTES
    }

    pub(crate) fn add(&mut self, job: &Job<'a>) {
        self.bytes.extend_from_slice(&job.args);
        if !self.rows.last().is_some_and(|(like, _)| like.is_like(job)) {
            let (kind, policy, lane) = (job.kind.clone(), job.policy.clone(), job.lane.clone());
            let like = Job { kind, args: Default::default(), format: job.format, policy, lane, run_at: job.run_at };
            self.rows.push((like, self.ends.len()));
        }
        self.ends.push(self.bytes.len());
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        self.bytes.clear();
        self.ends.clear();
    }

    /// What is alike, with the args of each.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&Job<'a>, ArgsRow<'_>)> {
        let nexts = self.rows.iter().skip(1).map(|(_, first)| *first).chain([self.ends.len()]);
        let all = ArgsRow::Many { bytes: &self.bytes, start: 0, ends: &self.ends };
        self.rows.iter().zip(nexts).map(move |((job, first), next)| (job, all.first(next).behind(*first)))
    }
}

impl<'a> ArgsRow<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many { ends, .. } => ends.len(),
        }
    }

    /// The args of job number `n` of the row.
    #[inline]
    pub(crate) fn get(&self, n: usize) -> Option<&'a [u8]> {
        match *self {
            Self::One(args) => Some(args).filter(|_| n == 0),
            Self::Many { bytes, start, ends } => {
                let start = if n == 0 { start } else { *ends.get(n - 1)? };
                bytes.get(start..*ends.get(n)?)
            }
        }
    }

    /// The first `count` of the row.
    pub(crate) fn first(self, count: usize) -> Self {
        match self {
            Self::Many { bytes, start, ends } => Self::Many { bytes, start, ends: ends.get(..count).unwrap_or(ends) },
            Self::One(_) if count == 0 => Self::Many { bytes: &[], start: 0, ends: &[] },
            one => one,
        }
    }

    /// Those behind the first `count` of the row.
    pub(crate) fn behind(self, count: usize) -> Self {
        match (self, count) {
            (row, 0) => row,
            (Self::One(_), _) => Self::Many { bytes: &[], start: 0, ends: &[] },
            (Self::Many { bytes, start, ends }, _) => Self::Many {
                bytes,
                start: ends.get(count - 1).copied().unwrap_or(start),
                ends: ends.get(count..).unwrap_or_default(),
            },
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_that_are_alike_are_a_row() {
        let mut group = Group::default();
        for (kind, args) in [("a", 1), ("a", 22), ("b", 3), ("a", 4)] {
            group.add(&Job::new(kind, &args).unwrap());
        }
        group.add(&Job::new("a", &5).unwrap().max_attempts(1));
        let row = |(job, args): (&Job<'_>, ArgsRow<'_>)| {
            let args = (0..args.len()).map(|n| String::from_utf8(args.get(n).unwrap().to_vec()).unwrap());
            (job.kind.to_string(), args.collect::<Vec<_>>().join(" "))
        };
        let rows: Vec<_> = group.rows().map(row).collect();
        let wanted = [("a", "1 22"), ("b", "3"), ("a", "4"), ("a", "5")].map(|(kind, args)| (kind.to_owned(), args.to_owned()));
        assert_eq!(rows, wanted);
        group.clear();
        assert!(group.is_empty() && group.rows().next().is_none());
    }

    #[test]
    fn a_row_is_cut_anywhere() {
        let (bytes, ends) = ([1, 2, 2, 3, 3, 3], [1, 3, 6]);
        let row = ArgsRow::Many { bytes: &bytes, start: 0, ends: &ends };
        for at in 0..=4 {
            let cut = [row.first(at), row.behind(at)];
            assert_eq!(cut.map(|part| part.len()), [at.min(3), 3 - at.min(3)]);
            let args = cut.iter().flat_map(|part| (0..part.len()).map(|n| part.get(n).unwrap()));
            assert_eq!(args.collect::<Vec<_>>(), [&[1][..], &[2, 2], &[3, 3, 3]]);
        }
        let one = ArgsRow::One(&[7]);
        assert_eq!((one.get(0), one.get(1)), (Some(&[7][..]), None));
        assert_eq!([one.first(0), one.first(1), one.behind(0), one.behind(1)].map(|row| row.len()), [0, 1, 1, 0]);
    }

    #[test]
    fn a_group_is_bound_by_jobs_and_by_bytes() {
        let mut group = Group::default();
        let large = Job::new("k", &"x".repeat(200 << 10)).unwrap();
        assert!(group.takes(&large));
        group.add(&large);
        assert!(!group.takes(&large));
        let small = Job::new("k", &1).unwrap();
        while group.takes(&small) {
            group.add(&small);
        }
        assert_eq!(group.len(), 64);
    }
}
