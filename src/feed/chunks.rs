//! Reading the input ahead, on a thread of its own, so that a pipe which pauses is noticed.

use std::io::Read;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// How much is read at a time, in bytes.
const CHUNK: usize = 256 * 1024;
/// How many chunks are read ahead, at most.
const AHEAD: usize = 4;

/// The input as it comes.
pub(super) enum Chunks {
    /// Read ahead.
    Ahead(Receiver<std::io::Result<Vec<u8>>>),
    /// Read where it is asked for, without a thread and without pauses: for the simulator.
    Here(Box<dyn Read + Send>),
}

/// What [`Chunks::next`] found.
pub(super) enum Chunk {
    /// Some bytes.
    Bytes(Vec<u8>),
    /// Nothing came for the time it was ready to wait.
    Pause,
    /// There is no more.
    End,
}

impl Chunks {
    /// Starts reading `input`.
    pub(super) fn read(input: impl Read + Send + 'static) -> std::io::Result<Self> {
        let (sender, chunks) = sync_channel(AHEAD);
        std::thread::Builder::new().name("wf-input".into()).spawn(move || forward(input, &sender))?;
        Ok(Self::Ahead(chunks))
    }

    /// The next bytes. Waits for `patience`, or for as long as it takes if that is `None`.
    pub(super) fn next(&mut self, patience: Option<Duration>) -> std::io::Result<Chunk> {
        let chunks = match self {
            Self::Ahead(chunks) => chunks,
            Self::Here(input) => return Ok(read_some(input).transpose()?.map_or(Chunk::End, Chunk::Bytes)),
        };
        let received = match patience {
            Some(patience) => chunks.recv_timeout(patience),
            None => chunks.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match received {
            Ok(chunk) => chunk.map(Chunk::Bytes),
            Err(RecvTimeoutError::Timeout) => Ok(Chunk::Pause),
            Err(RecvTimeoutError::Disconnected) => Ok(Chunk::End),
        }
    }
}

/// Ends with the input, with an error, or when nobody listens any more.
fn forward(mut input: impl Read, chunks: &SyncSender<std::io::Result<Vec<u8>>>) {
    while let Some(read) = read_some(&mut input) {
        let failed = read.is_err();
        if chunks.send(read).is_err() || failed {
            return;
        }
    }
}

/// The next bytes of `input`, if there are any.
fn read_some(input: &mut impl Read) -> Option<std::io::Result<Vec<u8>>> {
    let mut chunk = vec![0; CHUNK];
    loop {
        return match input.read(&mut chunk) {
            Ok(0) => None,
            Ok(n) => {
                chunk.truncate(n);
                Some(Ok(chunk))
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => Some(Err(error)),
        };
    }
}
