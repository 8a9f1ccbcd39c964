//! The args as the result.

use bytes::Bytes;

use crate::JobContext;
use crate::handler::{Args, Attempt, Handler};

/// Returns its args, byte for byte.
#[derive(Clone, Copy, Debug)]
pub struct Echo;

impl Handler for Echo {
    fn start(&self, _: JobContext, args: Args<'_>) -> Attempt {
        let result = if args.result_wanted() { Bytes::copy_from_slice(args.bytes()) } else { Bytes::new() };
        Box::pin(std::future::ready(Ok(result)))
    }
}
