//! Questions and answers over one connection, pipelined: many under way at once, each answered by itself, and sent
//! again when the connection was lost before the answer came.
//!
//! One subscription takes all answers. What is not answered stays in a table, so that a lost connection loses
//! nothing: as soon as it is up again, all that was sent before and not answered is sent once more, in its order.
//! Nothing is sent again because time has passed while the link is in doubt: that would double the traffic exactly
//! when it hurts.

mod pending;
mod table;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_nats::{Client, HeaderMap, Message, StatusCode, Subject, Subscriber};
use bytes::Bytes;
use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;

pub(crate) use self::pending::About;
use self::pending::{Answer, Pending};
pub(crate) use self::table::Doubt;
use self::table::Table;
use self::writer::write;
use crate::counters::Counters;
use crate::link::{Link, Refusal};

/// How many questions in a row may stay without an answer on a link that is up, before it is made anew.
const PATIENT: u32 = 2;

/// What acknowledges a delivery.
pub(crate) const ACK: &[u8] = b"+ACK";

/// One message to send.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) subject: Subject,
    pub(crate) headers: Option<HeaderMap>,
    pub(crate) payload: Bytes,
}

/// What came back.
pub(crate) struct Answered {
    /// The answer, or the last of several.
    pub(crate) message: Message,
    /// The ones before it, if several were asked for.
    pub(crate) before: Vec<Message>,
    /// Whether the question was sent more than once, so that this may be the answer to the second.
    pub(crate) resent: bool,
}

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    #[error("no answer came within {} ms", .0.as_millis())]
    TimedOut(Duration),
    #[error("the connection is down, and did not come back within {} ms", .0.as_millis())]
    Down(Duration),
    #[error("nobody is there to answer")]
    NobodyThere,
    #[error("{0}")]
    Denied(String),
    #[error("the message has {size} bytes; the server takes at most {limit}")]
    TooLarge { size: usize, limit: usize },
    #[error("the connection is closed")]
    Closed,
    #[error("the client refused to send it")]
    Unsendable(#[source] async_nats::PublishError),
}

/// What to do when the server says that nobody is there to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NobodyThere {
    /// Ask again after a moment: a server that has just started, or a stream that changes its leader.
    AskAgain,
    /// Take it for the answer.
    Fail,
}

/// The questions and answers of one connection. Dropping it ends them.
pub(crate) struct Exchange {
    shared: Arc<Shared>,
    tasks: [AbortHandle; 2],
}

struct Shared {
    client: Client,
    link: Arc<Link>,
    /// What the subjects of answers begin with, the last dot included.
    inbox: String,
    timeout: Duration,
    table: Mutex<Table>,
    /// There is something to send.
    work: Notify,
    /// Something was settled.
    confirmed: Notify,
    /// Something is to be looked up before it is sent.
    doubted: Notify,
    /// How many questions in a row were not answered in time, with no answer to any other in between.
    unheard: AtomicU32,
    counters: Arc<Counters>,
}

impl Exchange {
    /// Questions and answers over `client`, whose events `link` has. `resend_after` is how long a settlement may stay
    /// unanswered on a link that is up before it is sent again: longer than a dead link takes to be noticed.
    ///
    /// # Errors
    /// When the answers cannot be subscribed to.
    pub(crate) async fn new(
        client: Client,
        link: Arc<Link>,
        timeout: Duration,
        resend_after: Duration,
        counters: Arc<Counters>,
    ) -> Result<Self, async_nats::SubscribeError> {
        let inbox = format!("{}.", client.new_inbox());
        let answers = client.subscribe(format!("{inbox}*")).await?;
        let shared = Arc::new(Shared {
            client,
            link,
            inbox,
            timeout,
            table: Mutex::new(Table::new(resend_after)),
            work: Notify::new(),
            confirmed: Notify::new(),
            doubted: Notify::new(),
            unheard: AtomicU32::new(0),
            counters,
        });
        let reading = tokio::spawn(read(shared.clone(), answers)).abort_handle();
        let writing = tokio::spawn(write(shared.clone())).abort_handle();
        Ok(Self { shared, tasks: [reading, writing] })
    }

    /// Sends `part` and waits for its answer.
    pub(crate) async fn ask(&self, part: Part, nobody: NobodyThere) -> Result<Answered, Unanswered> {
        let (answer, answered) = oneshot::channel();
        self.asked(Pending::new(Vec::new(), part, nobody, Answer::One(answer)), answered).await
    }

    /// Sends `part` and waits for its answers: all up to the first that has a status.
    pub(crate) async fn ask_for_many(&self, part: Part, nobody: NobodyThere) -> Result<Answered, Unanswered> {
        let (answer, answered) = oneshot::channel();
        let answer = Answer::Many { so_far: Vec::new(), done: answer };
        self.asked(Pending::new(Vec::new(), part, nobody, answer), answered).await
    }

    /// Sends `ahead` and then `last` as one atomic batch, and waits for the answer to the last.
    pub(crate) async fn ask_together(&self, ahead: Vec<Part>, last: Part) -> Result<Answered, Unanswered> {
        let (answer, answered) = oneshot::channel();
        self.asked(Pending::new(ahead, last, NobodyThere::AskAgain, Answer::One(answer)), answered).await
    }

    /// Sends `part` and waits up to `patience` for its answer, which may be long on its way: that it does not come says
    /// nothing about the link.
    pub(crate) async fn ask_within(&self, part: Part, patience: Duration) -> Result<Answered, Unanswered> {
        let (answer, answered) = oneshot::channel();
        let pending = Pending::new(Vec::new(), part, NobodyThere::AskAgain, Answer::One(answer));
        self.asked_within(pending, answered, patience, || ()).await
    }

    async fn asked(
        &self,
        pending: Pending,
        answered: oneshot::Receiver<Result<Answered, Unanswered>>,
    ) -> Result<Answered, Unanswered> {
        self.asked_within(pending, answered, self.shared.timeout, || self.shared.heard_nothing()).await
    }

    async fn asked_within(
        &self,
        pending: Pending,
        answered: oneshot::Receiver<Result<Answered, Unanswered>>,
        patience: Duration,
        unheard: impl FnOnce(),
    ) -> Result<Answered, Unanswered> {
        let id = self.shared.table.lock().add(pending)?;
        // Whoever stops waiting also takes the question out of the table: it is the caller's to ask again.
        let _forget = Forget { shared: &self.shared, id };
        self.shared.work.notify_one();
        match tokio::time::timeout(patience, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Unanswered::Closed),
            Err(_) if !self.shared.link.watch().borrow().up => Err(Unanswered::Down(patience)),
            Err(_) => {
                unheard();
                let nobody = self.shared.table.lock().nobody_was_there(id);
                Err(if nobody { Unanswered::NobodyThere } else { Unanswered::TimedOut(patience) })
            }
        }
    }

    /// Sends `payload` to `subject`, again and again until it is confirmed, and then stores `then`, if there is such, in
    /// the same way. Waits for nothing.
    pub(crate) fn settle(&self, subject: Subject, payload: Bytes, about: About, then: Option<Part>) {
        let part = Part { subject, headers: None, payload };
        // A closed connection settles nothing more: what it held comes again when its lease is over.
        let mut table = self.shared.table.lock();
        let gathered = table.gathers_until(Instant::now()).is_some();
        let settling = Pending::new(Vec::new(), part, NobodyThere::AskAgain, Answer::Settle);
        let added = table.add(settling.about(about).then(then)).is_ok();
        // One among those that wait for more changes nothing.
        if added && !(gathered && table.gathers_until(Instant::now()).is_some()) {
            drop(table);
            self.shared.work.notify_one();
        }
    }

    /// Sends `payload` to `subject` once, if the link is up. Waits for nothing.
    pub(crate) fn tell(&self, subject: Subject, payload: Bytes, about: About) {
        if self.shared.link.watch().borrow().up {
            let part = Part { subject, headers: None, payload };
            let telling = Pending::new(Vec::new(), part, NobodyThere::Fail, Answer::None).about(about);
            if self.shared.table.lock().add(telling).is_ok() {
                self.shared.work.notify_one();
            }
        }
    }

    /// What waits until its message was looked up, as soon as there is something; and the
    /// generation of the link.
    pub(crate) async fn doubts(&self) -> (Vec<Doubt>, u64) {
        loop {
            let doubted = self.shared.doubted.notified();
            tokio::pin!(doubted);
            // Listening starts before looking.
            doubted.as_mut().enable();
            let (doubts, generation) = {
                let table = self.shared.table.lock();
                (table.doubts(), table.generation())
            };
            if !doubts.is_empty() {
                return (doubts, generation);
            }
            doubted.await;
        }
    }

    /// The message of `doubt` was looked up in `generation`: whether it is still stored.
    pub(crate) fn looked_up(&self, doubt: Doubt, generation: u64, stored: bool) {
        let ended = {
            let mut table = self.shared.table.lock();
            match stored {
                true => {
                    table.is_stored(doubt, generation);
                    false
                }
                false => table.is_gone(doubt, generation),
            }
        };
        if ended {
            self.shared.confirmed.notify_waiters();
        }
        self.shared.work.notify_one();
    }

    /// How many settlements, sent to a subject that has `part` in it, the server ignores. They are sent
    /// again soon: whoever asks is about to do something about it.
    pub(crate) fn ignored(&self, part: &str) -> usize {
        self.shared.table.lock().ignored(part)
    }

    /// How many settlements are not confirmed yet.
    pub(crate) fn unsettled(&self) -> usize {
        self.shared.table.lock().unsettled()
    }

    /// Waits until fewer than `most` settlements are unconfirmed.
    pub(crate) async fn unsettled_below(&self, most: usize) {
        self.until(|table| table.unsettled() < most).await;
    }

    /// Waits until everything that was settled so far has ended: whether all of it was confirmed, since this was last
    /// asked.
    pub(crate) async fn settled(&self) -> bool {
        let mark = self.shared.table.lock().mark();
        self.until(|table| table.settled_before(mark)).await;
        self.shared.table.lock().take_lost() == 0
    }

    async fn until(&self, done: impl Fn(&Table) -> bool) {
        loop {
            let confirmed = self.shared.confirmed.notified();
            tokio::pin!(confirmed);
            // Listening starts before looking, so that what is confirmed in between is not missed.
            confirmed.as_mut().enable();
            if done(&self.shared.table.lock()) {
                return;
            }
            confirmed.await;
        }
    }

    /// Answers everything with "closed", and all that comes.
    pub(crate) fn close(&self) {
        self.shared.close();
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        self.shared.close();
    }
}

/// Takes a question out of the table when its asker no longer waits.
struct Forget<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.table.lock().forget(self.id);
    }
}

impl Shared {
    fn close(&self) {
        self.table.lock().close();
        self.confirmed.notify_waiters();
    }

    /// A question was not answered although the link is up. When that is all there is, the server may be cut off from
    /// the others of its cluster, which its clients would never notice: another may know more.
    fn heard_nothing(&self) {
        if self.unheard.fetch_add(1, Ordering::AcqRel) + 1 >= PATIENT {
            self.unheard.store(0, Ordering::Release);
            if self.link.leave(Duration::from_millis(fastrand::u64(0..500))) {
                tracing::warn!("the broker is connected and answers nothing; connecting anew");
            }
        }
    }

    /// Passes an answer on to who waits for it.
    fn answered(&self, message: Message) {
        // That nobody is there says the server itself.
        if message.status != Some(StatusCode::NO_RESPONDERS) {
            self.unheard.store(0, Ordering::Release);
        }
        let Some(id) = message.subject.strip_prefix(self.inbox.as_str()).and_then(|id| id.parse().ok()) else { return };
        let mut table = self.table.lock();
        if table.answered(id, message) {
            self.confirmed.notify_waiters();
        }
        if table.has_more_to_send() {
            self.work.notify_one();
        }
    }

    fn refused(&self, refusal: &Refusal) {
        // No answer could ever come when it is the answers that are refused.
        let all = refusal.subject.strip_suffix('*') == Some(self.inbox.as_str());
        if self.table.lock().refused(refusal, all) {
            self.confirmed.notify_waiters();
        }
    }
}

/// Takes answers, and refusals.
async fn read(shared: Arc<Shared>, mut answers: Subscriber) {
    let mut refusals = shared.link.refusals();
    loop {
        tokio::select! {
            answer = answers.next() => match answer {
                Some(message) => shared.answered(message),
                None => return shared.close(),
            },
            refusal = refusals.recv() => {
                if let Ok(refusal) = refusal {
                    shared.refused(&refusal);
                }
                // Refusals that were missed show as timeouts.
            }
        }
    }
}
