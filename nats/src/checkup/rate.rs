//! How much the link carries, each way, over one connection or several.
//!
//! Upwards, chunks go to a subject at which nobody listens, each followed by a mark that comes back; downwards, a chunk
//! that is sent once comes back sixteen times, to as many subscriptions. Nothing is stored, and no stream hears of it.
//! Who may not publish to its own inbox asks for a record instead, which every role may: with the chunk as the
//! request's payload upwards, with the answer coming back sixteen times downwards.
//!
//! What is under way begins small and grows by what has arrived, as TCP's own window does: a thin link is never
//! filled for longer than it has been measured.

mod flow;

use std::time::{Duration, Instant};

use async_nats::{Client, PublishError, Subscriber};
use bytes::Bytes;
use futures::StreamExt as _;

use self::flow::{Flow, steady};
use super::{Checkup, CheckupError, open};
use crate::connection::Connection;
use crate::exchange::NobodyThere;
use crate::layout::Layout;

/// How often what is sent once comes back.
const COPIES: u32 = 16;

/// The most bytes in one message.
const CHUNK: u32 = 32 << 10;

/// What the answer to a request is taken to have, in bytes, before it is known.
const ANSWER: u32 = 1 << 10;

/// What a message takes beside its own bytes, more or less: its line, its subject and its mark.
const AROUND: usize = 100;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the server.
    Up,
    /// From the server.
    Down,
}

/// How much a measurement may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RatePlan {
    /// How long it goes on, at most.
    pub within: Duration,
    /// The bytes that it moves, at most, over all connections.
    pub bytes: u64,
    /// The connections that share it.
    pub connections: u32,
}

/// What was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Bytes a second, once it had settled.
    pub bytes_per_s: f64,
    /// Whether it was still growing at the end: then the link carries more.
    pub rising: bool,
    /// The bytes that were sent for it,
    pub sent: u64,
    /// and received.
    pub received: u64,
}

/// What makes the server send something back.
#[derive(Clone)]
enum Way {
    /// A message to an inbox of our own.
    Echo,
    /// A request for a record: the subject of one that is there, and of one that is not.
    Ask { there: String, nowhere: String },
}

/// One connection's part in a measurement.
struct Pipe {
    connection: Connection,
    way: Way,
    /// What the subjects of its own begin with.
    inbox: String,
    chunk: Bytes,
}

impl Checkup {
    /// How much the link carries in `direction`, by connections of its own.
    ///
    /// # Errors
    /// When the user may not publish to its inbox and not ask for the factory's records, or nothing came back in time.
    pub async fn rate(&self, direction: Direction, plan: RatePlan) -> Result<Rate, CheckupError> {
        let way = self.way().await?;
        let connections = plan.connections.clamp(1, 16);
        let opened = (0..connections).map(|_| open(&self.options, "doctor rate"));
        let opened = futures::future::try_join_all(opened).await.map_err(|error| CheckupError::Failed(error.into()))?;
        let largest = opened.iter().map(|(connection, _)| connection.client.max_payload()).min().unwrap_or(0);
        // Bytes that nothing on the way can make fewer of.
        let mut chunk = vec![0; largest.min(CHUNK as usize)];
        fastrand::fill(&mut chunk);
        let chunk = Bytes::from(chunk);
        let pipes: Vec<Pipe> = opened
            .into_iter()
            .map(|(connection, _)| Pipe {
                inbox: connection.client.new_inbox(),
                way: way.clone(),
                chunk: chunk.clone(),
                connection,
            })
            .collect();
        let began = Instant::now();
        let bytes = plan.bytes / u64::from(connections);
        let measured = pipes.iter().map(|pipe| pipe.measure(direction, began, plan.within, bytes));
        let flows = futures::future::try_join_all(measured).await?;
        let samples = flows.iter().flat_map(Flow::samples).collect();
        let nothing = || CheckupError::Failed(format!("nothing came back within {} ms", plan.within.as_millis()).into());
        let (bytes_per_s, rising) = steady(samples).ok_or_else(nothing)?;
        let moved = || flows.iter().map(Flow::moved);
        let (sent, received) = (moved().map(|(sent, _)| sent).sum(), moved().map(|(_, received)| received).sum());
        Ok(Rate { bytes_per_s, rising, sent, received })
    }

    /// Finds out how the server can be made to answer.
    async fn way(&self) -> Result<Way, CheckupError> {
        let client = &self.connection.client;
        let inbox = client.new_inbox();
        let mut refusals = self.connection.refusals();
        let mut echo = client.subscribe(inbox.clone()).await.map_err(|error| CheckupError::Failed(error.into()))?;
        let sent = client.publish(inbox.clone(), Bytes::from_static(b"?")).await;
        sent.map_err(|error| CheckupError::Failed(error.into()))?;
        let refused = async {
            loop {
                match refusals.recv().await {
                    Ok(refusal) if refusal.subject == inbox => return refusal.said,
                    Ok(_) => {}
                    // Only others' refusals were missed, or there will be no more: then the time runs out.
                    Err(_) => std::future::pending().await,
                }
            }
        };
        let said = tokio::select! {
            Some(_) = echo.next() => return Ok(Way::Echo),
            said = refused => said,
            () = tokio::time::sleep(self.options.link.request_timeout) => {
                return Err(CheckupError::Failed("its own message did not come back".into()));
            }
        };
        let ask = Way::Ask { there: self.record_request(Layout::FACTORY), nowhere: self.record_request("doctor") };
        let Way::Ask { there, .. } = &ask else { return Ok(ask) };
        match self.connection.ask(there, Bytes::new(), NobodyThere::Fail).await {
            Ok(answer) if !answer.message.payload.is_empty() => Ok(ask),
            _ => Err(self.denied(&inbox, &said)),
        }
    }
}

impl Pipe {
    async fn measure(&self, direction: Direction, began: Instant, within: Duration, bytes: u64) -> Result<Flow, CheckupError> {
        let flow = Flow::new(began, bytes);
        let copies = if direction == Direction::Up { 1 } else { COPIES };
        let mut back = Vec::new();
        for _ in 0..copies {
            let subscribed = self.client().subscribe(self.back()).await;
            back.push(subscribed.map_err(|error| CheckupError::Failed(error.into()))?);
        }
        let deadline = tokio::time::Instant::from_std(began + within);
        let both = async {
            let (sent, ()) = match direction {
                Direction::Up => tokio::join!(self.send_up(&flow), self.take_marks(&flow, back)),
                Direction::Down => tokio::join!(self.send_down(&flow), self.take_copies(&flow, back)),
            };
            sent
        };
        // That the time is over is how most of them end.
        if let Ok(Err(error)) = tokio::time::timeout_at(deadline, both).await {
            return Err(CheckupError::Failed(error.into()));
        }
        Ok(flow)
    }

    fn client(&self) -> &Client {
        &self.connection.client
    }

    fn back(&self) -> String {
        format!("{}.back", self.inbox)
    }

    /// Chunks to nobody, and marks that come back.
    async fn send_up(&self, flow: &Flow) -> Result<(), PublishError> {
        let nobody = format!("{}.nobody", self.inbox);
        while let Some(size) = flow.take(self.chunk.len(), 1).await {
            let chunk = self.chunk.slice(..size);
            flow.sent(size + AROUND);
            match &self.way {
                Way::Echo => {
                    self.client().publish(nobody.clone(), chunk).await?;
                    self.client().publish(self.back(), Bytes::new()).await?;
                }
                Way::Ask { nowhere, .. } => {
                    self.client().publish_with_reply(nowhere.clone(), self.back(), chunk).await?;
                }
            }
        }
        Ok(())
    }

    async fn take_marks(&self, flow: &Flow, back: Vec<Subscriber>) {
        let mut marks = futures::stream::select_all(back);
        while flow.more().await {
            // The server answers in the order in which it was asked.
            let Some(mark) = marks.next().await else { return };
            flow.received(mark.length + AROUND);
            flow.mark_arrived();
        }
    }

    /// Chunks that come back many times over.
    async fn send_down(&self, flow: &Flow) -> Result<(), PublishError> {
        let copies = COPIES as usize;
        let largest = match self.way {
            Way::Echo => self.chunk.len(),
            Way::Ask { .. } => ANSWER as usize,
        };
        while let Some(size) = flow.take(largest, copies).await {
            flow.sent(if let Way::Echo = self.way { size + AROUND } else { AROUND });
            match &self.way {
                Way::Echo => self.client().publish(self.back(), self.chunk.slice(..size)).await?,
                Way::Ask { there, .. } => self.client().publish_with_reply(there.clone(), self.back(), Bytes::new()).await?,
            }
        }
        Ok(())
    }

    async fn take_copies(&self, flow: &Flow, back: Vec<Subscriber>) {
        let mut copies = futures::stream::select_all(back);
        while flow.more().await {
            let Some(copy) = copies.next().await else { return };
            flow.received(copy.length + AROUND);
            flow.copy_arrived(copy.length);
        }
    }
}
