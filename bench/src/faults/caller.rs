//! The three ways to enqueue: over HTTP, through the library, and as plain JSON to the broker.

use std::net::SocketAddr;
use std::time::Duration;

use async_nats::jetstream::context::{Context, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::Value;
use wf_broker::BrokerError;
use wf_ingest::{EnqueueError, PublishError};
use wf_schema::Job;
use work_factory::Producer;

use super::journal::Told;
use super::order::Order;

/// How long a caller waits for an answer; longer than ingest tries.
const PATIENCE: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(2);
/// Where plain JSON goes: the normal lane of the queue `default`.
const SUBJECT: &str = "wf.jobs.default";

/// A producer's way to the factory.
#[derive(Clone)]
pub(crate) enum Caller {
    Http { client: reqwest::Client, base: String },
    Library(Producer),
    Wire(Context),
}

impl Caller {
    /// Posts to the ingest at `address`.
    ///
    /// # Errors
    /// When there is no client to be had.
    pub(crate) fn http(address: SocketAddr) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().timeout(PATIENCE).connect_timeout(CONNECT).no_proxy().build()?;
        Ok(Self::Http { client, base: format!("http://{address}/v1/jobs") })
    }

    /// Publishes to the NATS server at `url` (several of a cluster, with commas), as `nats pub -J` does: each message is awaited until it is stored.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub(crate) async fn wire(url: &str) -> anyhow::Result<Self> {
        let options = async_nats::ConnectOptions::new()
            .retry_on_initial_connect()
            .max_reconnects(None)
            .ping_interval(Duration::from_secs(1))
            .reconnect_delay_callback(|_| Duration::from_millis(fastrand::u64(50..200)));
        let client = options.connect(url.split(',').collect::<Vec<_>>()).await?;
        let context =
            async_nats::jetstream::ContextBuilder::new().timeout(CONNECT).ack_timeout(Duration::from_secs(5)).build(client);
        Ok(Self::Wire(context))
    }

    /// Whether a call can have a name of its own, so that it can be made again.
    pub(crate) fn takes_names(&self) -> bool {
        !matches!(self, Self::Library(_))
    }

    /// Whether such a call is then enqueued once, whatever happens.
    pub(crate) fn keeps_names(&self) -> bool {
        matches!(self, Self::Http { .. })
    }

    /// Enqueues `orders` in one call, under `name` if it has one: what was told of each.
    pub(crate) async fn send(&self, orders: &[Order], name: Option<&str>) -> Vec<Told> {
        let told = match self {
            Self::Http { client, base } => return post(client, base, orders, name).await,
            Self::Library(producer) => enqueue(producer, orders).await,
            Self::Wire(context) => publish(context, orders, name).await,
        };
        vec![told; orders.len()]
    }
}

/// What is said of a problem.
#[derive(Default, Deserialize)]
struct Problem {
    #[serde(rename = "type")]
    kind: String,
}

async fn post(client: &reqwest::Client, base: &str, orders: &[Order], name: Option<&str>) -> Vec<Told> {
    let lines: Vec<&str> = orders.iter().map(Order::json).collect();
    let mut request = match orders {
        [one] => client.post(base).header(CONTENT_TYPE, "application/json").body(one.json().to_owned()),
        _ => client.post(format!("{base}/batch")).header(CONTENT_TYPE, "application/x-ndjson").body(lines.join("\n")),
    };
    if let Some(name) = name {
        request = request.header("Idempotency-Key", name);
    }
    let all = |told: Told| vec![told; orders.len()];
    let answer = match request.send().await {
        // It never left.
        Err(error) if error.is_connect() => return all(Told::Refused { why: "connect".to_owned() }),
        Err(error) => return all(unknown(&error)),
        Ok(answer) => answer,
    };
    let status = answer.status();
    let body = match answer.bytes().await {
        Ok(body) => body,
        Err(error) => return all(unknown(&error)),
    };
    if status == reqwest::StatusCode::ACCEPTED {
        return accepted(&serde_json::from_slice(&body).unwrap_or_default(), orders.len());
    }
    let problem = serde_json::from_slice::<Problem>(&body).unwrap_or_default();
    let kind = problem.kind.rsplit(':').next().unwrap_or_default();
    let why = format!("{} {kind}", status.as_u16());
    match kind {
        // What these say of a job is that nobody knows: no answer came from the broker, or from the server.
        "" | "unconfirmed" | "closing" | "internal" => all(Told::Unknown { why }),
        _ => all(Told::Refused { why }),
    }
}

/// What a 202 says of each of `jobs`: of a bulk, those whose ids it lists are stored.
fn accepted(body: &Value, jobs: usize) -> Vec<Told> {
    let spool = body["stored"] == "spool";
    let Some(rows) = body["ids"].as_array().filter(|_| jobs > 1) else { return vec![Told::Accepted { spool }; jobs] };
    let mut told = vec![Told::Unknown { why: "not among the ids".to_owned() }; jobs];
    for row in rows {
        let [index, count] = ["index", "count"].map(|name| row[name].as_u64().unwrap_or_default() as usize);
        told.iter_mut().skip(index).take(count).for_each(|told| *told = Told::Accepted { spool });
    }
    told
}

async fn enqueue(producer: &Producer, orders: &[Order]) -> Told {
    let enqueued = async {
        let mut jobs = orders.iter().map(Order::job).collect::<Result<Vec<Job<'static>>, _>>()?;
        match jobs.pop_if(|_| orders.len() == 1) {
            Some(one) => producer.enqueue(one).await.map(drop),
            None => producer.enqueue_all(jobs).await.map(drop),
        }
    };
    match tokio::time::timeout(PATIENCE, enqueued).await {
        Ok(Ok(())) => Told::Accepted { spool: false },
        Err(late) => unknown(&late),
        Ok(Err(error)) => {
            let definite = match &error {
                // Of several jobs some may have gone before.
                _ if orders.len() > 1 => false,
                EnqueueError::Invalid(_) | EnqueueError::Busy { .. } | EnqueueError::Closed => true,
                EnqueueError::Publish(PublishError::Unreachable { .. }) => true,
                EnqueueError::Publish(PublishError::Broker(cause)) => !matches!(**cause, BrokerError::Retryable { .. }),
                _ => false,
            };
            if definite { Told::Refused { why: error.to_string() } } else { unknown(&error) }
        }
    }
}

async fn publish(context: &Context, orders: &[Order], name: Option<&str>) -> Told {
    let lines: Vec<&str> = orders.iter().map(Order::json).collect();
    let mut message = PublishMessage::build().payload(lines.join("\n").into());
    if let Some(name) = name {
        message = message.message_id(name);
    }
    let stored = async { context.send_publish(SUBJECT, message).await?.await };
    match tokio::time::timeout(PATIENCE, stored).await {
        Ok(Ok(_)) => Told::Accepted { spool: false },
        Err(late) => unknown(&late),
        Ok(Err(error)) => match error.kind() {
            PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe => unknown(&error),
            _ => Told::Refused { why: error.to_string() },
        },
    }
}

fn unknown(error: &dyn std::error::Error) -> Told {
    Told::Unknown { why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_a_bulk_those_are_accepted_whose_ids_are_listed() {
        let body = json!({ "accepted": 3, "ids": [{ "index": 0, "count": 1 }, { "index": 2, "count": 2 }], "stored": "spool" });
        let told = accepted(&body, 5).iter().map(|told| matches!(told, Told::Accepted { spool: true })).collect::<Vec<_>>();
        assert_eq!(told, [true, false, true, true, false]);
        assert_eq!(accepted(&json!({ "id": "x" }), 1), [Told::Accepted { spool: false }]);
    }
}
