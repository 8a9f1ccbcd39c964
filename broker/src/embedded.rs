//! The embedded broker: durable, in the process, for one machine.
//!
//! One engine over two stores: fjall on disk, or nothing but memory. A single [writer](writer) thread makes all
//! changes, many in one commit; what waits in which [lane](lanes) and who holds it is in memory, the messages
//! themselves are read when they are delivered. Each role of the contract is in a file of its own, together with the
//! writer's work for it.

mod bodies;
mod control;
mod core;
mod cron;
mod crons;
mod dead;
mod ended;
mod folder;
mod keys;
mod lanes;
mod later;
mod message;
mod oldest;
mod open_error;
mod opens;
mod options;
mod outcomes;
mod pauses;
mod publish;
mod recent;
mod records;
mod sequence;
mod source;
mod stall;
mod store;
mod trace;
mod watchers;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use wf_schema::BatchId;

pub use open_error::OpenError;
pub use options::{EmbeddedOptions, OptionsError};

use self::core::Core;
use self::ended::Ended;
use self::folder::Folder;
use self::lanes::Lanes;
use self::open_error::OpenCause;
use self::store::{DiskStore, Durability, MemoryStore, Space, Store, Write};
use self::writer::{Op, Writer};
use crate::keyspaces::is_no_room;
use crate::{BoxFuture, Broker};

/// A broker in this process.
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use wf_broker::{Consume, Embedded, EmbeddedOptions, Message, Publish};
/// use wf_schema::Lane;
///
/// let broker = Embedded::memory(EmbeddedOptions::default())?;
/// broker.publish(Message { lane: Lane::default(), id: "m-1".into(), bytes: "hello".into() }).await?;
///
/// let mut lane = broker.lane(Lane::default()).await?;
/// lane.grant(1, 1024);
/// let delivery = lane.next().await?;
/// assert_eq!(delivery.bytes, "hello");
/// delivery.lease.ack(None);
/// broker.settled().await?;
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(example()).unwrap();
/// ```
///
/// Dropping it commits what it was asked and what was acknowledged, and frees its path; unlike
/// [`close`](Broker::close) it cannot say whether that went well.
pub struct Embedded {
    core: Arc<Core>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("store", &self.core.store_id).field("options", &self.core.options).finish()
    }
}

impl Embedded {
    /// The broker in the folder `path`, which is made if there is none. One process at a time has it. Blocks while it
    /// reads what waits there.
    ///
    /// # Errors
    /// When another process has it, it holds something else, or it cannot be read or written.
    pub fn open(path: impl AsRef<Path>, options: EmbeddedOptions) -> Result<Arc<Self>, OpenError> {
        let path = path.as_ref();
        let failed = |cause: OpenCause| match (path.to_owned(), is_no_room(&cause)) {
            (path, true) => OpenError::NoRoom { path, source: cause.into() },
            (path, false) => OpenError::Damaged { path, source: cause.into() },
        };
        let store = DiskStore::open(Folder::claim(path)?).map_err(|error| failed(error.into()))?;
        Self::start(Arc::new(store), options).map_err(failed)
    }

    /// A broker that keeps nothing on disk: for tests, and for work that may be lost.
    ///
    /// # Errors
    /// When no thread could be started for it.
    pub fn memory(options: EmbeddedOptions) -> Result<Arc<Self>, OpenError> {
        Self::start(Arc::new(MemoryStore::default()), options).map_err(|cause| OpenError::Memory(cause.into()))
    }

    fn start(store: Arc<dyn Store>, options: EmbeddedOptions) -> Result<Arc<Self>, OpenCause> {
        let store_id = store_id(&*store)?;
        let (ops, waiting) = mpsc::channel();
        let lanes = Lanes::new(&options);
        let core = Arc::new(Core::new(options, store_id, lanes, Arc::clone(&store), ops));
        let writer = Writer::open(Arc::clone(&core), store, waiting)?;
        let thread = std::thread::Builder::new().name("wf-broker-writer".into());
        let writer = thread.spawn(move || writer.run()).map_err(OpenCause::Thread)?;
        Ok(Arc::new(Self { core, writer: Mutex::new(Some(writer)) }))
    }
}

/// The id that the store was given when it was made.
fn store_id(store: &dyn Store) -> Result<BatchId, OpenCause> {
    if let Some(value) = store.get(Space::Meta, keys::STORE_ID)? {
        let [high, low] = keys::read_numbers(&value)?;
        return Ok((u128::from(high) << 64 | u128::from(low)).into());
    }
    let id = BatchId::new();
    let value = id.as_u128().to_be_bytes().to_vec().into();
    let write = Write { space: Space::Meta, key: keys::STORE_ID.to_vec(), value: Some(value) };
    store.commit(&[write], Durability::Synced)?;
    Ok(id)
}

impl Broker for Embedded {
    fn ping(&self) -> BoxFuture<'_, Duration> {
        Box::pin(async move {
            const WHAT: &str = "answer";
            let (asked, (reply, answer)) = (Instant::now(), oneshot::channel());
            // It can also be reached when its disk has no room.
            self.core.send(Op::Ask(Box::new(|writer, round| {
                let ended = writer.ended(WHAT);
                round.answer(Box::new(|_| drop(reply.send(ended))));
            })));
            match answer.await {
                Ok(None) => Ok(asked.elapsed()),
                Ok(Some(ended)) => Err(ended),
                Err(_) => Err(Ended::Closed.refuse(WHAT)),
            }
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let (reply, closed) = oneshot::channel();
            self.core.send(Op::Close(Some(reply)));
            // No answer: it was closed before.
            closed.await.unwrap_or(Ok(()))
        })
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.core.send(Op::Close(None));
        // Waits for one commit, so that whoever drops it may open the path again.
        if let Some(writer) = self.writer.lock().take()
            && writer.join().is_err()
        {
            self.core.end(Ended::Closed);
        }
    }
}
