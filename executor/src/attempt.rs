//! One attempt at one job: begun, and brought to its end whatever the handler does.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;

use crate::handler::{Args, Attempt, Handler};
use crate::row::Row;
use crate::{JobContext, JobFailure};

/// Begins the jobs of `row`, each looked at at once: an attempt that is done by then costs neither a task nor a timer.
/// `Some` is one that waits, or the panic of one; there may be more behind it.
pub(crate) fn begin(handler: &dyn Handler, row: &mut dyn Row) -> Option<Result<Attempt, JobFailure>> {
    // Nothing of the attempt is looked at after a panic, so whatever state it was left in does not matter.
    match catch_unwind(AssertUnwindSafe(|| handler.begin(row))) {
        Ok(waiting) => waiting.map(Ok),
        Err(panic) => Some(Err(panicked(&*panic))),
    }
}

/// Makes the attempt without looking at it.
///
/// # Errors
/// When the handler panics before there is one.
pub(crate) fn start(handler: &dyn Handler, context: JobContext, args: Args<'_>) -> Result<Attempt, JobFailure> {
    catch_unwind(AssertUnwindSafe(|| handler.start(context, args))).map_err(|panic| panicked(&*panic))
}

/// Brings a waiting attempt to its end, within `limit`.
pub(crate) async fn finish(attempt: Attempt, limit: Duration) -> Result<Bytes, JobFailure> {
    match tokio::time::timeout(limit, AssertUnwindSafe(attempt).catch_unwind()).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(panicked(&*panic)),
        Err(_) => Err(JobFailure::retryable("timeout", format!("not done within {}", humantime::format_duration(limit)))),
    }
}

/// Retryable: the next attempt may not run into the same bug.
fn panicked(panic: &(dyn Any + Send)) -> JobFailure {
    let message = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "the handler panicked without a message".to_owned(),
    };
    JobFailure::retryable("panic", message)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use wf_schema::{BatchId, Format, JobId, Kind};

    use super::*;
    use crate::context::ContextOf;
    use crate::{Registry, stock};

    enum Begun {
        Done(Result<Bytes, JobFailure>),
        Waiting(Attempt),
    }

    /// One job in a row.
    struct Single<'a>(JobContext, Option<Args<'a>>, Option<Result<Bytes, JobFailure>>);

    impl Row for Single<'_> {
        fn next(&mut self) -> Option<(ContextOf<'_>, Args<'_>)> {
            Some((ContextOf::again(&self.0), self.1.take()?))
        }

        fn ended(&mut self, result: Result<Bytes, JobFailure>) {
            self.2 = Some(result);
        }
    }

    fn attempt(kind: &str, args: &str, poll: bool) -> Begun {
        let registry = stock::register(Registry::new());
        let context = JobContext::for_test(kind, JobId { batch: BatchId::new(), index: 0 }, 1).unwrap();
        let handler = &**registry.get(&Kind::new(kind).unwrap()).unwrap();
        let args = Args::new(args.as_bytes(), Format::Json, true);
        if !poll {
            return start(handler, context, args).map_or_else(|failure| Begun::Done(Err(failure)), Begun::Waiting);
        }
        let mut row = Single(context, Some(args), None);
        match begin(handler, &mut row) {
            None => Begun::Done(row.2.unwrap()),
            Some(Ok(waiting)) => Begun::Waiting(waiting),
            Some(Err(failure)) => Begun::Done(Err(failure)),
        }
    }

    #[test]
    fn what_is_ready_needs_no_runtime() {
        let Begun::Done(result) = attempt("math_add", r#"{"a":2,"b":3}"#, true) else { panic!("it waits") };
        assert_eq!(&*result.unwrap(), b"5.0");
        let Begun::Done(result) = attempt("echo", r#"{"x":[1]}"#, true) else { panic!("it waits") };
        assert_eq!(&*result.unwrap(), br#"{"x":[1]}"#);
        let Begun::Done(result) = attempt("noop", "1", true) else { panic!("it waits") };
        assert_eq!(&*result.unwrap(), b"null");
    }

    #[tokio::test(start_paused = true)]
    async fn panics_and_timeouts_are_outcomes() {
        let Begun::Done(result) = attempt("fail", r#"{"panic":true,"message":"boom"}"#, true) else { panic!("it waits") };
        assert_eq!(result.unwrap_err(), JobFailure::retryable("panic", "boom"));
        let Begun::Waiting(waiting) = attempt("fail", r#"{"panic":true,"message":"boom"}"#, false) else { panic!("done") };
        assert_eq!(finish(waiting, Duration::from_secs(1)).await.unwrap_err(), JobFailure::retryable("panic", "boom"));
        let Begun::Waiting(waiting) = attempt("sleep", r#"{"for":"1h"}"#, true) else { panic!("done") };
        let failure = finish(waiting, Duration::from_secs(90)).await.unwrap_err();
        assert_eq!(failure, JobFailure::retryable("timeout", "not done within 1m 30s"));
        let Begun::Waiting(waiting) = attempt("sleep", r#"{"ms":20}"#, true) else { panic!("done") };
        assert_eq!(&*finish(waiting, Duration::from_secs(1)).await.unwrap(), b"null");
    }

    #[test]
    fn fail_fails_as_it_is_told() {
        for (args, permanent) in [("{}", false), (r#"{"permanent":true}"#, true), (r#"{"times":1}"#, false)] {
            let Begun::Done(Err(failure)) = attempt("fail", args, true) else { panic!("{args} did not fail") };
            assert_eq!((failure.is_permanent(), failure.failure().kind.as_str()), (permanent, "failed_on_purpose"));
        }
        assert!(matches!(attempt("fail", r#"{"times":0}"#, true), Begun::Done(Ok(_))));
        assert!(matches!(attempt("sleep", "{}", true), Begun::Done(Err(_))));
    }
}
