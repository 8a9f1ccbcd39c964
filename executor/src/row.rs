//! Jobs in a row: cheap jobs are begun one behind the other by one call of their handler, which costs a cheap job less
//! than a call, a future on the heap and a catch of panics for each.

use bytes::Bytes;

use crate::JobFailure;
use crate::context::ContextOf;
use crate::handler::Args;

/// Jobs of one kind that are begun one behind the other, by `Handler::begin`.
pub trait Row {
    /// The next job. `None` says that there is none to begin now.
    fn next(&mut self) -> Option<(ContextOf<'_>, Args<'_>)>;

    /// What became of the job that [`Row::next`] gave last, which has ended at its first poll.
    fn ended(&mut self, result: Result<Bytes, JobFailure>);
}
