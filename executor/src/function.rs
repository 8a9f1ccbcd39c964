//! Functions that run jobs: those that want to know which attempt they make, and those that only want the args.

use serde::de::DeserializeOwned;

use crate::JobContext;

/// What [`crate::Registry::register`] takes: a function of the args, or of a [`JobContext`] and the args. `Form` only
/// tells the two apart; it is found by the compiler.
pub trait Function<Form>: Send + Sync + 'static {
    /// What it takes.
    type Args: DeserializeOwned + 'static;
    /// What it returns.
    type Output;

    /// Calls it with `args`. Only one that wants its context asks for it: making it is not free beside a cheap job.
    fn call(&self, context: impl FnOnce() -> JobContext, args: Self::Args) -> Self::Output;
}

impl<F, A, O> Function<(A,)> for F
where
    F: Fn(A) -> O + Send + Sync + 'static,
    A: DeserializeOwned + 'static,
{
    type Args = A;
    type Output = O;

    fn call(&self, _context: impl FnOnce() -> JobContext, args: A) -> O {
        self(args)
    }
}

impl<F, A, O> Function<(JobContext, A)> for F
where
    F: Fn(JobContext, A) -> O + Send + Sync + 'static,
    A: DeserializeOwned + 'static,
{
    type Args = A;
    type Output = O;

    fn call(&self, context: impl FnOnce() -> JobContext, args: A) -> O {
        self(context(), args)
    }
}
