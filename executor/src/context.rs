//! What a handler is told about the attempt it makes.

use std::fmt;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use wf_schema::{Batch, Header, JobId, JobView, Kind, Millis};

/// One attempt at one job, as its handler sees it. Cheap to clone.
#[derive(Clone)]
pub struct JobContext {
    shared: Arc<Shared>,
    kind: u16,
    index: u32,
    attempt: u32,
}

/// The context of a job, not made yet: most handlers do not want it, and making it is not free beside a cheap job.
#[derive(Clone, Copy)]
pub struct ContextOf<'a> {
    shared: &'a Arc<Shared>,
    kind: usize,
    index: u32,
    attempt: u32,
}

impl<'a> ContextOf<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>, job: &JobView<'_>) -> Self {
        Self { shared, kind: job.kind_slot(), index: job.index(), attempt: job.attempt() }
    }

    /// That of `context`.
    #[cfg(test)]
    pub(crate) fn again(context: &'a JobContext) -> Self {
        Self { shared: &context.shared, kind: context.kind as usize, index: context.index, attempt: context.attempt }
    }

    /// The context itself.
    pub fn make(self) -> JobContext {
        JobContext::new(self.shared.clone(), self.kind, self.index, self.attempt)
    }
}

/// What the contexts of one run share.
pub(crate) struct Shared {
    pub(crate) header: Header,
    pub(crate) kinds: Arc<[Kind]>,
    /// Cancelled when the attempts of the run have become worthless, or the time to end them is over.
    pub(crate) cancelled: CancellationToken,
    /// Cancelled when the node begins to drain.
    pub(crate) draining: CancellationToken,
}

impl Shared {
    pub(crate) fn new(batch: &Batch, header: Header, draining: CancellationToken) -> Self {
        Self { header, kinds: batch.kinds().clone(), cancelled: CancellationToken::new(), draining }
    }
}

impl JobContext {
    pub(crate) fn new(shared: Arc<Shared>, kind: usize, index: u32, attempt: u32) -> Self {
        // A batch has far fewer kinds than 65,536.
        Self { shared, kind: kind as u16, index, attempt }
    }

    /// A context without a batch behind it, for trying handlers in tests.
    ///
    /// # Errors
    /// When `kind` is no kind.
    pub fn for_test(kind: &str, id: JobId, attempt: u32) -> Result<Self, wf_schema::NameError> {
        let shared = Shared {
            header: Header::new(id.batch, wf_schema::Format::Json),
            kinds: [Kind::new(kind)?].into(),
            cancelled: CancellationToken::new(),
            draining: CancellationToken::new(),
        };
        Ok(Self::new(Arc::new(shared), 0, id.index, attempt))
    }

    /// The job's id. The same over all its attempts: with [`JobContext::attempt`] it makes a key for side effects that
    /// must not happen twice.
    pub fn id(&self) -> JobId {
        JobId { batch: self.shared.header.id, index: self.index }
    }

    /// Which attempt this is, from 1. An attempt whose executor was lost is made again under the same number.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The job's kind: the one the handler is registered for.
    pub fn kind(&self) -> &Kind {
        &self.shared.kinds[self.kind as usize]
    }

    /// When the job was enqueued, first of all.
    pub fn enqueued_at(&self) -> Millis {
        self.shared.header.enqueued_at
    }

    /// The trace the job belongs to, as a W3C `traceparent`.
    pub fn trace(&self) -> Option<&str> {
        self.shared.header.trace.as_deref()
    }

    /// Cancelled when the attempt has become worthless: another executor has taken the batch over, or the node is
    /// stopping and its deadline has passed. Whatever the handler returns then is dropped, and it is itself dropped
    /// at its next `await`.
    pub fn cancelled(&self) -> &CancellationToken {
        &self.shared.cancelled
    }

    /// Cancelled when the node begins to drain. The attempt still counts if it ends before the deadline; a long one
    /// may want to save its progress and return a retryable failure.
    pub fn draining(&self) -> &CancellationToken {
        &self.shared.draining
    }
}

impl fmt::Debug for JobContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobContext")
            .field("id", &self.id())
            .field("kind", self.kind())
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}
