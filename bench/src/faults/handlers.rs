//! What executors of a round do: as the job says, and all of it is written down.

use std::sync::Arc;
use std::time::Duration;

use work_factory::{JobContext, JobFailure, Registry};

use super::journal::{Entry, Journal};
use super::order::{Task, kind};

type Done = Result<(), JobFailure>;

/// Handlers of all kinds, which write to `journal`.
pub(crate) fn registry(journal: &Arc<Journal>) -> Registry {
    let (quick, slow, blocking, panicking, poison) =
        (journal.clone(), journal.clone(), journal.clone(), journal.clone(), journal.clone());
    Registry::new()
        .register(kind::QUICK, move |context: JobContext, task: Task| {
            let did = begin(&quick, &context, &task).and_then(|()| end(&quick, &context, &task));
            std::future::ready(did)
        })
        .register(kind::SLOW, move |context: JobContext, task: Task| {
            let journal = slow.clone();
            async move {
                begin(&journal, &context, &task)?;
                tokio::time::sleep(Duration::from_millis(task.ms)).await;
                end(&journal, &context, &task)
            }
        })
        .register(kind::BLOCKING, move |context: JobContext, task: Task| {
            let journal = blocking.clone();
            async move {
                begin(&journal, &context, &task)?;
                // As people do who should not.
                std::thread::sleep(Duration::from_millis(task.ms));
                end(&journal, &context, &task)
            }
        })
        .register(kind::PANICKING, move |context: JobContext, task: Task| {
            let journal = panicking.clone();
            async move {
                begin(&journal, &context, &task)?;
                if context.attempt() <= task.fails {
                    std::panic::resume_unwind(Box::new("as it was told"));
                }
                end(&journal, &context, &task)
            }
        })
        .register(kind::POISON, move |context: JobContext, task: Task| {
            let journal = poison.clone();
            async move {
                begin(&journal, &context, &task)?;
                std::process::abort();
                #[allow(unreachable_code)]
                Ok::<_, JobFailure>(())
            }
        })
}

fn begin(journal: &Journal, context: &JobContext, task: &Task) -> Done {
    let (id, attempt) = (context.id(), context.attempt());
    Ok(journal.write(Entry::Begun { key: task.key.clone(), id, attempt })?)
}

/// Ends well, unless this is one of the attempts that fail.
fn end(journal: &Journal, context: &JobContext, task: &Task) -> Done {
    let (id, attempt) = (context.id(), context.attempt());
    let completed = attempt > task.fails;
    journal.write(Entry::Ended { key: task.key.clone(), id, attempt, completed })?;
    if completed { Ok(()) } else { Err(JobFailure::retryable("told_to", "as it was told")) }
}
