//! Looking a factory's servers over, and the link to them: facts, for somebody else to judge.
//!
//! Nothing here is stored in a lane. What is written is one keyed record with a time to live of seconds; what is measured
//! goes to an inbox of its own. Dropping a [`Checkup`], or a future of it, leaves nothing behind.

mod account;
mod clock;
mod consumers;
mod layout;
mod rate;
mod store;
mod vars;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Message;
use bytes::Bytes;
use serde_json::{Value, json};
use wf_broker::Cause;

pub use self::account::{AccountFacts, Usage};
pub use self::clock::ClockReading;
pub use self::consumers::{ConsumerFacts, LaneFacts};
pub use self::layout::{LayoutFacts, Replica, StreamFacts, StreamRole};
pub use self::rate::{Direction, Rate, RatePlan};
pub use self::store::StoreTimes;
pub use self::vars::{ServerVars, SyncPolicy};

use crate::api::{ApiError, code};
use crate::connect::{ConnectError, connect};
use crate::connection::Connection;
use crate::counters::Counters;
use crate::exchange::{NobodyThere, Unanswered};
use crate::layout::Layout;
use crate::options::NatsOptions;
use crate::setup::takers;

/// How long it is waited for a second factory to answer.
const TAKERS_WITHIN: Duration = Duration::from_secs(1);

/// Why something could not be found out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckupError {
    /// The user has not the right to ask.
    #[error("the user has no right to {right}")]
    Denied {
        /// What it takes: `publish to $JS.API.INFO`.
        right: String,
    },
    /// What was asked about is not there.
    #[error("{0} is not there")]
    Missing(String),
    /// No answer came, or a refusal.
    #[error("no answer that could be used")]
    Failed(#[source] Cause),
    /// What came is not what was asked for.
    #[error("the answer cannot be read")]
    Unreadable(#[source] Cause),
}

/// What a server says of itself when it is connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerFacts {
    /// The URL it was reached at, without user and password.
    pub address: String,
    /// Its name.
    pub name: String,
    /// Its version: `2.15.1`.
    pub version: String,
    /// The cluster that it is part of.
    pub cluster: Option<String>,
    /// Its JetStream domain.
    pub domain: Option<String>,
    /// The largest message that it takes, in bytes.
    pub max_payload: usize,
    /// Whether the link is encrypted.
    pub encrypted: bool,
    /// Whether it is about to stop.
    pub stopping: bool,
}

/// A connection to look a factory's servers over with. It needs no factory, and no JetStream either.
pub struct Checkup {
    connection: Connection,
    options: NatsOptions,
    address: String,
}

impl Checkup {
    /// Connects to one of the servers.
    ///
    /// # Errors
    /// When none could be reached until the connect deadline, the login is refused, or the server is too old.
    pub async fn connect(mut options: NatsOptions) -> Result<Self, ConnectError> {
        options.link = options.link.workable();
        let (connection, address) = open(&options, "doctor").await?;
        Ok(Self { connection, options, address })
    }

    /// The server that is connected to.
    pub fn server(&self) -> ServerFacts {
        let told = self.connection.client.server_info();
        ServerFacts {
            encrypted: told.tls_required || self.address.starts_with("tls://"),
            address: self.address.clone(),
            name: told.server_name,
            version: told.version,
            cluster: told.cluster,
            domain: told.domain.filter(|domain| !domain.is_empty()),
            max_payload: told.max_payload,
            stopping: told.lame_duck_mode,
        }
    }

    /// How long a round trip takes: as far as the factory's records if it is set up, as a batch has to go, else to the
    /// server that is connected to.
    ///
    /// # Errors
    /// When no answer came within the request timeout, or the user may not ask.
    pub async fn ping(&self) -> Result<Duration, CheckupError> {
        let subject = self.record_request(Layout::FACTORY);
        let sent = Instant::now();
        match self.connection.ask(&subject, Bytes::new(), NobodyThere::Fail).await {
            // That nobody is there comes from the server itself.
            Ok(_) | Err(Unanswered::NobodyThere) => Ok(sent.elapsed()),
            Err(error) => Err(self.untold(&subject, error.into())),
        }
    }

    /// How many factories store a job that is published here. More than one is a fault: each runs it. 0 where that cannot
    /// be told.
    pub async fn factories(&self) -> usize {
        takers(&self.connection, &self.options.layout, 2, TAKERS_WITHIN).await
    }

    /// The JetStream domain that is configured.
    pub fn domain(&self) -> Option<&str> {
        self.options.domain.as_deref()
    }

    /// Ends the connection.
    pub async fn close(self) {
        self.connection.close().await;
    }

    /// The subject at which the record called `key` is asked for.
    fn record_request(&self, key: &str) -> String {
        let layout = &self.options.layout;
        self.connection.api_subject(&format!("DIRECT.GET.{}.{}", layout.state_stream, layout.record_subject(key)))
    }

    /// Asks JetStream `subject` (without `$JS.API.`), once.
    async fn api(&self, subject: &str, request: &Value) -> Result<Value, CheckupError> {
        let answer = self.connection.api_at_once(subject, request, NobodyThere::Fail).await;
        answer.map_err(|error| self.untold(&self.connection.api_subject(subject), error))
    }

    /// Asks `subject`, once.
    async fn ask(&self, subject: &str) -> Result<Message, CheckupError> {
        let answer = self.connection.ask(subject, Bytes::new(), NobodyThere::Fail).await;
        answer.map(|answer| answer.message).map_err(|error| self.untold(subject, error.into()))
    }

    /// Who the server takes this user for, with its own time.
    async fn user(&self) -> Result<Value, CheckupError> {
        let answer = self.ask("$SYS.REQ.USER.INFO").await?;
        serde_json::from_slice(&answer.payload).map_err(|error| CheckupError::Unreadable(error.into()))
    }

    /// Why asking `subject` told nothing.
    fn untold(&self, subject: &str, error: ApiError) -> CheckupError {
        let last = || subject.rsplit('.').next().unwrap_or(subject).to_owned();
        match error {
            ApiError::Unanswered(Unanswered::Denied(said)) => self.denied(subject, &said),
            ApiError::Unanswered(Unanswered::NobodyThere) if subject.starts_with(&self.connection.api_subject("")) => {
                CheckupError::Missing("JetStream".into())
            }
            ApiError::Unanswered(Unanswered::NobodyThere) => CheckupError::Missing(subject.into()),
            error => match error.code() {
                Some(code::NO_STREAM) => {
                    let asked = subject.strip_prefix(&self.connection.api_subject("")).unwrap_or(subject);
                    CheckupError::Missing(format!("stream {}", asked.split('.').nth(2).unwrap_or(asked)))
                }
                Some(code::NO_CONSUMER) => CheckupError::Missing(format!("consumer {}", last())),
                Some(code::NOT_ENABLED | code::NOT_FOR_ACCOUNT) => CheckupError::Missing("JetStream".into()),
                _ => CheckupError::Failed(error.into()),
            },
        }
    }

    /// The right that is missing, as whoever grants it writes it.
    fn denied(&self, subject: &str, said: &str) -> CheckupError {
        let inbox = &self.options.inbox_prefix;
        let verb = if said.contains("Subscription") { "subscribe to" } else { "publish to" };
        let subject = if said.contains(&format!("\"{inbox}.")) { format!("{inbox}.>") } else { subject.to_owned() };
        CheckupError::Denied { right: format!("{verb} {subject}") }
    }
}

/// A connection of its own, for `role`.
async fn open(options: &NatsOptions, role: &str) -> Result<(Connection, String), ConnectError> {
    let deadline = Instant::now() + options.link.connect_deadline;
    connect(options, role, deadline, &Arc::new(Counters::default())).await
}

/// The request for all that there is to say.
fn everything() -> Value {
    json!({})
}

/// `value` as a limit: negative ones are none.
fn limit(value: &Value) -> Option<u64> {
    value.as_u64()
}
