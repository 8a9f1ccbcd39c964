//! The args as the result.

use bytes::Bytes;

use crate::JobContext;
use crate::handler::{Args, Attempt, Handler};
use crate::row::Row;

/// Returns its args, byte for byte.
#[derive(Clone, Copy, Debug)]
pub struct Echo;

impl Handler for Echo {
    fn start(&self, _: JobContext, args: Args<'_>) -> Attempt {
        Box::pin(std::future::ready(Ok(echo(args))))
    }

    fn begin(&self, row: &mut dyn Row) -> Option<Attempt> {
        while let Some((_, args)) = row.next() {
            let result = echo(args);
            row.ended(Ok(result));
        }
        None
    }
}

fn echo(args: Args<'_>) -> Bytes {
    if args.result_wanted() { Bytes::copy_from_slice(args.bytes()) } else { Bytes::new() }
}
