//! The streams: whether they are as the factory's settings say, how full they are, and who keeps their copies.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Checkup, CheckupError, everything, limit};
use crate::consume::millis;
use crate::factory::FactorySettings;
use crate::layout::Layout;
use crate::setup::{Difference, differing, name, streams};

/// What one of the factory's streams is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamRole {
    /// Batches to run now.
    Jobs,
    /// Batches for later.
    Later,
    /// The logs of the runs.
    Runs,
    /// What became of jobs.
    Results,
    /// Dead letters.
    Dead,
    /// Keyed records.
    State,
}

/// A server that keeps a copy of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replica {
    /// Its name.
    pub name: String,
    /// Whether the cluster takes it for gone.
    pub offline: bool,
    /// Whether its copy is up to date.
    pub current: bool,
    /// Since when nothing was heard of it. It is heard of every second.
    pub silent: Duration,
}

/// How a stream is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamFacts {
    /// Where it differs from what the factory's settings make of it, and from what must not be set at all.
    pub differences: Vec<Difference>,
    /// Bytes in it,
    pub bytes: u64,
    /// and how many may be.
    pub max_bytes: Option<u64>,
    /// Messages in it.
    pub messages: u64,
    /// Messages that were in it once and are gone.
    pub gone: u64,
    /// How long ago the oldest was stored, by this machine's clock.
    pub oldest: Option<Duration>,
    /// How long a message is kept at most.
    pub max_age: Option<Duration>,
    /// The subject of the most messages, and their number, where one subject may hold only so many.
    pub fullest: Option<(String, u64)>,
    /// The server that leads it; `None` where there is no cluster, or too few of its servers are there.
    pub leader: Option<String>,
    /// The servers that keep copies, beside its leader.
    pub followers: Vec<Replica>,
    /// How many servers are to keep a copy.
    pub replicas: u64,
}

/// The factory as it stands at the broker.
#[derive(Debug)]
pub struct LayoutFacts {
    /// The settings that it was set up with; [`CheckupError::Missing`] before it is.
    pub settings: Result<FactorySettings, CheckupError>,
    /// Where those differ from what this node is configured to set up.
    pub differences: Vec<Difference>,
    /// Each stream, its name, and how it is.
    pub streams: Vec<(StreamRole, String, Result<StreamFacts, CheckupError>)>,
}

impl Checkup {
    /// The factory as it stands at the broker, beside what its settings make of it; where it has none, `configured`.
    pub async fn layout(&self, configured: &FactorySettings) -> LayoutFacts {
        let layout = &self.options.layout;
        let settings = self.settings().await;
        let wanted = settings.as_ref().unwrap_or(configured);
        use StreamRole::{Dead, Jobs, Later, Results, Runs, State};
        let roles = [Jobs, Later, Runs, Results, Dead, State];
        let asked = roles.into_iter().zip(streams(layout, wanted)).map(async |(role, mut config)| {
            let stream = name(&config).to_owned();
            let request = match role {
                StreamRole::Jobs => json!({ "subjects_filter": format!("{}.jobs.>", layout.prefix) }),
                _ => everything(),
            };
            let info = self.api(&format!("STREAM.INFO.{stream}"), &request).await;
            if let (Some(config), Value::Object(never)) = (config.as_object_mut(), untouched(role)) {
                config.remove("description");
                config.extend(never);
            }
            let facts = info.map(|info| read(&stream, &info, &config));
            (role, stream, facts)
        });
        let streams = futures::future::join_all(asked).await;
        let differences = settings.as_ref().map(|stands| of_settings(stands, configured)).unwrap_or_default();
        LayoutFacts { settings, differences, streams }
    }

    /// The settings that the factory was set up with.
    async fn settings(&self) -> Result<FactorySettings, CheckupError> {
        let missing = || CheckupError::Missing("the factory's settings".into());
        let stream = &self.options.layout.state_stream;
        // Before the record itself, for whose stream is missing there is nobody to ask.
        self.api(&format!("STREAM.INFO.{stream}"), &everything()).await?;
        let record = self.ask(&self.record_request(Layout::FACTORY)).await?;
        if record.status.is_some() {
            return Err(missing());
        }
        serde_json::from_slice(&record.payload).map_err(|error| CheckupError::Unreadable(error.into()))
    }
}

fn of_settings(stands: &FactorySettings, configured: &FactorySettings) -> Vec<Difference> {
    let value = |settings| serde_json::to_value(settings).unwrap_or_default();
    differing("settings", &value(stands), &value(configured))
}

/// What set-up leaves at the server's defaults and a hand may have changed, to the loss of messages.
fn untouched(role: StreamRole) -> Value {
    let mut never = json!({
        "max_msg_size": -1, "max_consumers": -1, "no_ack": false, "sealed": false,
        "mirror": false, "sources": false, "subject_transform": false, "persist_mode": false,
    });
    let more = match role {
        StreamRole::Jobs => json!({ "max_age": 0, "max_msgs": -1 }),
        StreamRole::Later => json!({ "max_age": 0, "max_msgs_per_subject": -1, "deny_purge": false }),
        // What set-up says of it is all that there is to say.
        StreamRole::Runs => json!({}),
        StreamRole::Results => json!({ "max_msgs_per_subject": -1 }),
        StreamRole::Dead => json!({ "max_msgs": -1, "max_msgs_per_subject": -1 }),
        StreamRole::State => json!({ "max_age": 0, "max_msgs": -1 }),
    };
    if let (Some(never), Value::Object(more)) = (never.as_object_mut(), more) {
        never.extend(more);
    }
    never
}

fn read(stream: &str, info: &Value, wanted: &Value) -> StreamFacts {
    let (config, state) = (&info["config"], &info["state"]);
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    let subjects = state["subjects"].as_object();
    let fullest = subjects.and_then(|subjects| subjects.iter().max_by_key(|(_, messages)| count(messages)));
    let followers = info["cluster"]["replicas"].as_array().into_iter().flatten().map(|replica| Replica {
        name: replica["name"].as_str().unwrap_or_default().to_owned(),
        offline: replica["offline"].as_bool().unwrap_or(false),
        current: replica["current"].as_bool().unwrap_or(false),
        silent: Duration::from_nanos(count(&replica["active"])),
    });
    StreamFacts {
        differences: differing(stream, config, wanted),
        bytes: count(&state["bytes"]),
        max_bytes: limit(&config["max_bytes"]),
        messages: count(&state["messages"]),
        gone: count(&state["last_seq"]).saturating_sub(count(&state["messages"])),
        oldest: state["first_ts"].as_str().and_then(millis).filter(|_| count(&state["messages"]) > 0).map(since),
        max_age: Some(Duration::from_nanos(count(&config["max_age"]))).filter(|age| !age.is_zero()),
        fullest: fullest.map(|(subject, messages)| (subject.clone(), count(messages))),
        leader: info["cluster"]["leader"].as_str().map(str::to_owned),
        followers: followers.collect(),
        replicas: count(&config["num_replicas"]),
    }
}

/// How long ago `at` is.
fn since(at: wf_schema::Millis) -> Duration {
    Duration::from_millis(wf_schema::now().saturating_sub(at))
}
