//! Handlers: what runs the jobs of a kind. Typed where people write them, erased here and nowhere else.

use std::cell::Cell;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::future::OptionFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use wf_schema::Format;

use crate::function::Function;
use crate::row::Row;
use crate::{JobContext, JobFailure};

/// The attempt that a handler makes: its result written in the format of its args, or why it failed.
pub type Attempt = Pin<Box<dyn Future<Output = Result<Bytes, JobFailure>> + Send>>;

/// Runs jobs of one kind. Most are async functions, see [`crate::Registry::register`]; implement this for one that
/// wants its args as they came.
pub trait Handler: Send + Sync + 'static {
    /// Makes one attempt. Called and first polled with other jobs waiting behind it: work belongs into the future, and
    /// work that blocks into `tokio::task::spawn_blocking`.
    fn start(&self, context: JobContext, args: Args<'_>) -> Attempt;

    /// Makes attempts at the jobs of `row`, each polled once, until there are no more or one of them waits: then that is
    /// returned, to be polled again elsewhere.
    #[doc(hidden)]
    fn begin(&self, row: &mut dyn Row) -> Option<Attempt> {
        while let Some((context, args)) = row.next() {
            let mut attempt = self.start(context.make(), args);
            match attempt.as_mut().poll(&mut idle()) {
                Poll::Ready(result) => row.ended(result),
                Poll::Pending => return Some(attempt),
            }
        }
        None
    }
}

/// For a first poll: nobody needs to be woken, for what waits is polled again from where it then is.
fn idle() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// A job's args as they came, and what is expected back.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    bytes: &'a [u8],
    format: Format,
    wanted: bool,
}

impl<'a> Args<'a> {
    /// Args written in `format`; `wanted` says whether anybody wants the result.
    pub fn new(bytes: &'a [u8], format: Format, wanted: bool) -> Self {
        Self { bytes, format, wanted }
    }

    /// The args themselves.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// How the args are written, and how the result is to be.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether the result will be stored. If not, no time needs to be spent on writing it.
    pub fn result_wanted(&self) -> bool {
        self.wanted
    }

    /// The args as an `A`.
    ///
    /// # Errors
    /// A permanent failure of type `bad_args` that names the field.
    pub fn read<A: DeserializeOwned>(&self) -> Result<A, JobFailure> {
        match self.format {
            Format::Json => serde_json::from_slice(self.bytes).map_err(|_| self.explain::<A>()),
            Format::Postcard => postcard::from_bytes(self.bytes)
                .map_err(|error| JobFailure::permanent("bad_args", format!("the args are not what the handler takes: {error}"))),
        }
    }

    /// Reads again, this time keeping track of where it is: slower, but only for args that are bad.
    fn explain<A: DeserializeOwned>(&self) -> JobFailure {
        let mut json = serde_json::Deserializer::from_slice(self.bytes);
        let message = match serde_path_to_error::deserialize::<_, A>(&mut json) {
            Ok(_) => json.end().err().map_or_else(|| "the args cannot be read".to_owned(), |error| error.to_string()),
            Err(error) => match error.path().to_string().as_str() {
                "." => error.inner().to_string(),
                path => format!("`{path}`: {}", error.inner()),
            },
        };
        JobFailure::permanent("bad_args", message)
    }

    /// The answer to give for `result`: written as the args were, or empty when nobody wants it.
    ///
    /// # Errors
    /// A permanent failure of type `bad_result` when it cannot be written so.
    pub fn write<R: Serialize>(&self, result: &R) -> Result<Bytes, JobFailure> {
        Answer { format: self.format, wanted: self.wanted }.write(result)
    }
}

/// What a result is written as, once the args are gone.
#[derive(Clone, Copy)]
struct Answer {
    format: Format,
    wanted: bool,
}

impl Answer {
    /// For the end of a future that was there.
    fn of<R: Serialize>(self, ended: Option<Result<R, JobFailure>>) -> Result<Bytes, JobFailure> {
        ended.unwrap_or_else(|| Err(JobFailure::retryable("lost", "the attempt was lost"))).and_then(|result| self.write(&result))
    }

    fn write<R: Serialize>(self, result: &R) -> Result<Bytes, JobFailure> {
        let bad = |error: String| JobFailure::permanent("bad_result", format!("the result cannot be written: {error}"));
        if !self.wanted {
            return Ok(Bytes::new());
        }
        // Taken, not borrowed: a result that is written by running other handlers finds an empty one.
        let mut scratch = SCRATCH.take();
        scratch.clear();
        let written = match self.format {
            Format::Json => serde_json::to_writer(&mut scratch, result).map_err(|error| bad(error.to_string())),
            Format::Postcard => match postcard::to_extend(result, std::mem::take(&mut scratch)) {
                Ok(written) => {
                    scratch = written;
                    Ok(())
                }
                Err(error) => Err(bad(error.to_string())),
            },
        };
        let bytes = Bytes::copy_from_slice(&scratch);
        if scratch.capacity() <= SCRATCH_KEPT {
            SCRATCH.set(scratch);
        }
        written.map(|()| bytes)
    }
}

// What results are written into, before it is known how long they are.
thread_local!(static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) });

/// The most of it that a thread keeps, in bytes.
const SCRATCH_KEPT: usize = 64 << 10;

/// An async function as a handler. `Form` is what it takes.
pub(crate) struct Typed<F, Form> {
    run: F,
    form: PhantomData<fn(Form)>,
}

impl<F, Form> Typed<F, Form> {
    pub(crate) fn new(run: F) -> Self {
        Self { run, form: PhantomData }
    }
}

impl<F, Form, R> Handler for Typed<F, Form>
where
    F: Function<Form, Output: Future<Output = Result<R, JobFailure>> + Send + 'static>,
    Form: 'static,
    R: Serialize,
{
    fn start(&self, context: JobContext, args: Args<'_>) -> Attempt {
        let answer = Answer { format: args.format, wanted: args.wanted };
        match args.read() {
            Ok(args) => {
                let attempt = self.run.call(|| context, args);
                Box::pin(async move { attempt.await.and_then(|result| answer.write(&result)) })
            }
            Err(failure) => Box::pin(std::future::ready(Err(failure))),
        }
    }

    fn begin(&self, row: &mut dyn Row) -> Option<Attempt> {
        // One place on the heap for all the futures, until one of them stays in it.
        let mut place = Box::pin(OptionFuture::from(None));
        while let Some((context, args)) = row.next() {
            let answer = Answer { format: args.format, wanted: args.wanted };
            match args.read() {
                Ok(args) => place.set(Some(self.run.call(|| context.make(), args)).into()),
                Err(failure) => {
                    row.ended(Err(failure));
                    continue;
                }
            }
            let Poll::Ready(ended) = place.as_mut().poll(&mut idle()) else {
                return Some(Box::pin(async move { answer.of(place.await) }));
            };
            // What it holds is let go before it counts as ended.
            place.set(None.into());
            row.ended(answer.of(ended));
        }
        None
    }
}
