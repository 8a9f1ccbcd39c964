//! Reads request bodies: piece by piece, decompressed, never more than allowed, never for ever, and all of them together
//! in bounded memory.

mod budget;
mod clock;

use std::io;
use std::ops::Deref;
use std::pin::Pin;

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;
use tokio_util::io::StreamReader;

use super::HttpState;
use super::media::{Coding, coding};
use super::problem::Problem;

pub(super) use budget::Budget;
use budget::Share;
use clock::Clock;

/// A body that is being read.
pub(super) struct BodyReader {
    source: Source,
    read: u64,
    limit: u64,
    clock: Clock,
    /// What it takes of the memory that all bodies share: what was read and is not done with, and what decompressing
    /// takes.
    share: Share,
    decoder: usize,
}

enum Source {
    Plain(BodyDataStream),
    Packed(Pin<Box<dyn AsyncRead + Send>>),
}

/// A body that was read whole. It takes its share of the memory as long as this is there.
pub(super) struct Whole {
    bytes: Bytes,
    _share: Share,
}

impl Deref for Whole {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.bytes
    }
}

impl BodyReader {
    /// The size of the pieces in which a compressed body is read, in bytes.
    const PIECE: usize = 64 << 10;
    /// The largest window of a zstd body, as a power of two: 8 MiB, what RFC 8878 asks decoders to support. Each
    /// request holds that much.
    const ZSTD_WINDOW: u32 = 23;

    /// Reads `body`: at most `limit` bytes once decompressed.
    pub(super) fn new(state: &HttpState, headers: &HeaderMap, body: Body, limit: u64) -> Result<Self, Problem> {
        let coding = coding(headers)?;
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse::<u64>().ok());
        // Compressed bodies only grow, so this holds for them too.
        if let Some(announced) = announced.filter(|announced| *announced > limit) {
            return Err(too_large(limit).with("size", announced));
        }
        let stream = body.into_data_stream();
        let (source, decoder) = match coding {
            Coding::None => (Source::Plain(stream), 0),
            Coding::Gzip => {
                let mut decoder = GzipDecoder::new(StreamReader::new(stream.map_err(io::Error::other)));
                decoder.multiple_members(true);
                (Source::Packed(Box::pin(decoder)), Self::PIECE)
            }
            Coding::Zstd => {
                let window = [DParameter::window_log_max(Self::ZSTD_WINDOW)];
                let mut decoder = ZstdDecoder::with_params(StreamReader::new(stream.map_err(io::Error::other)), &window);
                decoder.multiple_members(true);
                (Source::Packed(Box::pin(decoder)), 1 << Self::ZSTD_WINDOW)
            }
        };
        let (clock, share) = (Clock::new(&state.options), state.bodies.share());
        Ok(Self { source, read: 0, limit, clock, share, decoder })
    }

    /// The next piece, or `None` at the end. `held` is what the caller still has in memory of those before, in bytes.
    pub(super) async fn piece(&mut self, held: usize) -> Result<Option<Bytes>, Problem> {
        // A body that comes out of the decompressor is always ready: others must get their turn too.
        tokio::task::consume_budget().await;
        // Before anything is decompressed, or there would be no bound to what decompressing takes.
        self.share.take(self.decoder + held).await?;
        let next = async {
            match &mut self.source {
                Source::Plain(stream) => stream.next().await.transpose().map_err(|error| {
                    Problem::new(StatusCode::BAD_REQUEST, "broken-body", "The body broke off", error.to_string())
                }),
                Source::Packed(reader) => {
                    let mut piece = BytesMut::with_capacity(Self::PIECE);
                    match reader.read_buf(&mut piece).await {
                        Ok(0) => Ok(None),
                        Ok(_) => Ok(Some(piece.freeze())),
                        Err(error) => Err(Problem::new(
                            StatusCode::BAD_REQUEST,
                            "broken-body",
                            "The body cannot be decompressed",
                            format!("after {} decompressed bytes: {error}", self.read),
                        )),
                    }
                }
            }
        };
        let began = Instant::now();
        let piece = tokio::time::timeout(self.clock.patience(), next).await.map_err(|_| {
            let detail = self.clock.verdict(began.elapsed());
            Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", "Too slow", detail).header(header::CONNECTION, "close")
        })??;
        let size = piece.as_ref().map_or(0, Bytes::len);
        self.clock.came(size, began.elapsed());
        self.read += size as u64;
        if self.read > self.limit {
            return Err(too_large(self.limit));
        }
        self.share.take(self.decoder + held + size).await?;
        Ok(piece)
    }

    /// All of it.
    pub(super) async fn whole(mut self) -> Result<Whole, Problem> {
        let mut whole = BytesMut::new();
        while let Some(piece) = self.piece(whole.len()).await? {
            whole.extend_from_slice(&piece);
        }
        self.share.take(whole.len()).await?;
        Ok(Whole { bytes: whole.freeze(), _share: self.share })
    }
}

fn too_large(limit: u64) -> Problem {
    Problem::too_large(format!("the body is larger than {limit} bytes: send it in several requests")).with("limit", limit)
}
