//! Which handler runs which kind.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use wf_schema::{Kind, NameError};

use crate::function::Function;
use crate::handler::Typed;
use crate::{Handler, JobContext, JobFailure};

/// The handlers of an executor, by kind. A second handler for a kind replaces the first.
///
/// ```
/// use serde::Deserialize;
/// use wf_executor::{JobFailure, Registry};
///
/// #[derive(Deserialize)]
/// struct Letter {
///     to: String,
/// }
///
/// let registry = Registry::new()
///     .register("send_letter", |letter: Letter| async move {
///         Ok::<_, JobFailure>(format!("sent to {}", letter.to))
///     });
/// assert_eq!(registry.kinds().count(), 1);
/// ```
#[derive(Clone, Default)]
pub struct Registry {
    handlers: BTreeMap<Kind, Arc<dyn Handler>>,
    /// The first name that was no kind: told when the executor starts, so that registering reads as a list.
    wrong: Option<NameError>,
}

impl Registry {
    /// No handlers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs jobs of `kind` through the async function `run`, which takes the args, or a [`JobContext`] and the args. Its
    /// args are read from the job's, its result is written in the same format (JSON or postcard).
    ///
    /// A kind that is no name is reported by [`crate::Executor::start`].
    #[must_use]
    pub fn register<F, Form, R>(self, kind: &str, run: F) -> Self
    where
        F: Function<Form, Output: Future<Output = Result<R, JobFailure>> + Send + 'static>,
        Form: 'static,
        R: Serialize + 'static,
    {
        self.register_handler(kind, Typed::new(run))
    }

    /// The same for a function that blocks: it runs on tokio's blocking threads. One that outlives its timeout cannot
    /// be stopped; its attempt counts as failed, and its thread stays busy until it returns.
    #[must_use]
    pub fn register_blocking<F, Form, R>(self, kind: &str, run: F) -> Self
    where
        F: Function<Form, Args: Send, Output = Result<R, JobFailure>>,
        Form: 'static,
        R: Serialize + Send + 'static,
    {
        let run = Arc::new(run);
        self.register(kind, move |context: JobContext, args: F::Args| {
            let run = run.clone();
            async move {
                match tokio::task::spawn_blocking(move || run.call(|| context, args)).await {
                    Ok(result) => result,
                    // So that a panic over there is the same outcome as one here.
                    Err(error) => match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(error) => Err(error.into()),
                    },
                }
            }
        })
    }

    /// Runs jobs of `kind` through `handler`.
    #[must_use]
    pub fn register_handler(mut self, kind: &str, handler: impl Handler) -> Self {
        match Kind::new(kind) {
            Ok(kind) => {
                self.handlers.insert(kind, Arc::new(handler));
            }
            Err(error) => self.wrong = self.wrong.or(Some(error)),
        }
        self
    }

    /// The kinds that there is a handler for, in the order of the alphabet.
    pub fn kinds(&self) -> impl Iterator<Item = &Kind> {
        self.handlers.keys()
    }

    pub(crate) fn checked(self) -> Result<Self, NameError> {
        match self.wrong {
            Some(error) => Err(error),
            None => Ok(self),
        }
    }

    pub(crate) fn get(&self, kind: &Kind) -> Option<&Arc<dyn Handler>> {
        self.handlers.get(kind)
    }

    /// What becomes of a job of `kind` when nobody handles it. The list is for the person who mistyped it, so it is
    /// cut to what a person reads.
    pub(crate) fn nobody(&self, kind: &Kind) -> JobFailure {
        const SHOWN: usize = 20;
        let names: Vec<&str> = self.kinds().take(SHOWN).map(Kind::as_str).collect();
        let message = match (names.len(), self.handlers.len() - names.len()) {
            (0, _) => format!("no handler for `{kind}`: none is registered"),
            (_, 0) => format!("no handler for `{kind}`; registered: {}", names.join(", ")),
            (_, more) => format!("no handler for `{kind}`; registered: {} and {more} more", names.join(", ")),
        };
        JobFailure::permanent("no_handler", message)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.kinds()).finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde::Deserialize;
    use wf_schema::{BatchId, Format, JobId};

    use super::*;
    use crate::handler::Args;

    #[derive(Deserialize)]
    struct Pair {
        a: f64,
        b: f64,
    }

    fn registry() -> Registry {
        Registry::new().register("add", |p: Pair| async move { Ok::<_, JobFailure>(p.a + p.b) })
    }

    fn run(registry: &Registry, args: &[u8], format: Format, wanted: bool) -> Result<Vec<u8>, JobFailure> {
        let context = JobContext::for_test("add", JobId { batch: BatchId::new(), index: 0 }, 1).unwrap();
        let handler = registry.get(&Kind::new("add").unwrap()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(handler.start(context, Args::new(args, format, wanted))).map(|bytes| bytes.to_vec())
    }

    #[test]
    fn args_and_results_are_typed_in_both_formats() {
        let registry = registry();
        assert_eq!(run(&registry, br#"{"a":1,"b":2}"#, Format::Json, true), Ok(b"3.0".to_vec()));
        let args = postcard::to_stdvec(&(1.0, 2.0)).unwrap();
        assert_eq!(run(&registry, &args, Format::Postcard, true), Ok(postcard::to_stdvec(&3.0).unwrap()));
        assert_eq!(run(&registry, br#"{"a":1,"b":2}"#, Format::Json, false), Ok(Vec::new()));
    }

    #[test]
    fn a_context_is_for_those_who_ask_for_it() {
        let twice = |p: Pair| async move { Ok::<_, JobFailure>(2.0 * p.a) };
        let id = |context: JobContext, _: Pair| async move { Ok::<_, JobFailure>(context.id().index) };
        let kind = |context: JobContext, _: Pair| Ok::<_, JobFailure>(context.kind().to_string());
        for (registry, wanted) in [
            (Registry::new().register("add", twice), "2.0"),
            (Registry::new().register("add", id), "0"),
            (Registry::new().register_blocking("add", |p: Pair| Ok::<_, JobFailure>(p.b)), "2.0"),
            (Registry::new().register_blocking("add", kind), "\"add\""),
        ] {
            assert_eq!(run(&registry, br#"{"a":1,"b":2}"#, Format::Json, true), Ok(wanted.as_bytes().to_vec()));
        }
    }

    #[test]
    fn bad_args_are_permanent_and_name_the_field() {
        for (args, says) in [
            (&br#"{"a":1}"#[..], "missing field `b`"),
            (br#"{"a":1,"b":"two"}"#, "`b`: invalid type: string \"two\", expected f64"),
            (br#"{"a":1,"b":2} x"#, "trailing characters"),
            (b"", "EOF"),
        ] {
            let failure = run(&registry(), args, Format::Json, true).unwrap_err();
            assert!(failure.is_permanent());
            assert_eq!(failure.failure().kind, "bad_args");
            assert!(failure.failure().message.contains(says), "{failure}");
        }
        assert_eq!(run(&registry(), b"", Format::Postcard, true).unwrap_err().failure().kind, "bad_args");
    }

    #[test]
    fn who_asks_for_an_unknown_kind_is_told_the_known_ones() {
        let unknown = Kind::new("ad").unwrap();
        assert!(registry().nobody(&unknown).failure().message.contains("registered: add"));
        let many = (0..30).fold(Registry::new(), |r, n| r.register_handler(&format!("k{n:02}"), crate::stock::Noop));
        assert!(many.nobody(&unknown).failure().message.ends_with("k19 and 10 more"));
        assert!(Registry::new().nobody(&unknown).failure().message.ends_with("none is registered"));
    }

    #[test]
    fn a_kind_that_is_no_name_is_told_at_the_start() {
        assert!(registry().register_handler("two words", crate::stock::Noop).checked().is_err());
    }
}
