//! Reading the input ahead, on a thread of its own, so that a pipe which pauses is noticed.

use std::io::Read;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// How much is read at a time, in bytes.
const CHUNK: usize = 256 * 1024;
/// How many chunks are read ahead, at most.
const AHEAD: usize = 4;

/// The input as it comes.
pub(super) struct Chunks {
    chunks: Receiver<std::io::Result<Vec<u8>>>,
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
        Ok(Self { chunks })
    }

    /// The next bytes. Waits for `patience`, or for as long as it takes if that is `None`.
    pub(super) fn next(&self, patience: Option<Duration>) -> std::io::Result<Chunk> {
        let received = match patience {
            Some(patience) => self.chunks.recv_timeout(patience),
            None => self.chunks.recv().map_err(|_| RecvTimeoutError::Disconnected),
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
    loop {
        let mut chunk = vec![0; CHUNK];
        let read = match input.read(&mut chunk) {
            Ok(0) => return,
            Ok(n) => {
                chunk.truncate(n);
                Ok(chunk)
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let failed = read.is_err();
        if chunks.send(read).is_err() || failed {
            return;
        }
    }
}
