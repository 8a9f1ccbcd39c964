//! Reads request bodies: piece by piece, decompressed, never more than allowed, never for ever.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::io::StreamReader;

use super::media::{Coding, coding};
use super::problem::Problem;

/// A body that is being read.
pub(super) struct BodyReader {
    source: Source,
    read: u64,
    limit: u64,
    idle: Duration,
}

enum Source {
    Plain(BodyDataStream),
    Packed(Pin<Box<dyn AsyncRead + Send>>),
}

impl BodyReader {
    /// The size of the pieces in which a compressed body is read, in bytes.
    const PIECE: usize = 64 << 10;
    /// The largest window of a zstd body, as a power of two: 8 MiB, what RFC 8878 asks decoders to support. Each
    /// request holds that much.
    const ZSTD_WINDOW: u32 = 23;

    /// Reads `body`: at most `limit` bytes once decompressed, with at most `idle` of silence.
    pub(super) fn new(headers: &HeaderMap, body: Body, limit: u64, idle: Duration) -> Result<Self, Problem> {
        let coding = coding(headers)?;
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse::<u64>().ok());
        // Compressed bodies only grow, so this holds for them too.
        if let Some(announced) = announced.filter(|announced| *announced > limit) {
            return Err(too_large(limit).with("size", announced));
        }
        let stream = body.into_data_stream();
        let source = match coding {
            Coding::None => Source::Plain(stream),
            Coding::Gzip => {
                let mut decoder = GzipDecoder::new(StreamReader::new(stream.map_err(io::Error::other)));
                decoder.multiple_members(true);
                Source::Packed(Box::pin(decoder))
            }
            Coding::Zstd => {
                let window = [DParameter::window_log_max(Self::ZSTD_WINDOW)];
                let mut decoder = ZstdDecoder::with_params(StreamReader::new(stream.map_err(io::Error::other)), &window);
                decoder.multiple_members(true);
                Source::Packed(Box::pin(decoder))
            }
        };
        Ok(Self { source, read: 0, limit, idle })
    }

    /// The next piece, or `None` at the end.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, Problem> {
        // A body that comes out of the decompressor is always ready: others must get their turn too.
        tokio::task::consume_budget().await;
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
        let piece = tokio::time::timeout(self.idle, next).await.map_err(|_| {
            let detail = format!("nothing came for {} s in the middle of the body", self.idle.as_secs());
            Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", "Too slow", detail).header(header::CONNECTION, "close")
        })??;
        self.read += piece.as_ref().map_or(0, |piece| piece.len() as u64);
        if self.read > self.limit { Err(too_large(self.limit)) } else { Ok(piece) }
    }

    /// All of it.
    pub(super) async fn whole(mut self) -> Result<Bytes, Problem> {
        let mut whole = BytesMut::new();
        while let Some(piece) = self.piece().await? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }
}

fn too_large(limit: u64) -> Problem {
    Problem::too_large(format!("the body is larger than {limit} bytes: send it in several requests")).with("limit", limit)
}
