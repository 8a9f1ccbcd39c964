//! Making the layout: the one place that makes streams. Nodes only bind to them.

mod second;
mod streams;

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use async_nats::HeaderMap;
use serde_json::{Map, Value, json};
use wf_broker::Cause;
use wf_schema::Lane;

pub(crate) use self::second::takers;
pub(crate) use self::streams::streams;
use crate::api::{ApiError, code};
use crate::connect::{ConnectError, connect};
use crate::connection::Connection;
use crate::counters::Counters;
use crate::exchange::{NobodyThere, Unanswered};
use crate::factory::FactorySettings;
use crate::lane_consumers::{self, LaneConsumers};
use crate::layout::Layout;
use crate::options::NatsOptions;

/// What to do about a layout that stands and differs from the settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDifference {
    /// Leave it as it is, and say what differs.
    #[default]
    Refuse,
    /// Change it. Nodes that run keep their old lease until they connect anew.
    Update,
}

/// What [`setup`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetupReport {
    /// What was made.
    pub created: Vec<String>,
    /// What was changed.
    pub updated: Vec<String>,
    /// What stood already as it should.
    pub unchanged: Vec<String>,
}

/// A setting that stands otherwise than it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The stream, or `settings`.
    pub of: String,
    /// The setting.
    pub setting: String,
    /// What it is, as JSON.
    pub stands: String,
    /// What it should be, as JSON.
    pub wanted: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has {} = {} instead of {}", self.of, self.setting, self.stands, self.wanted)
    }
}

/// Why the layout could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The broker could not be connected to.
    #[error("the broker cannot be set up, for it could not be connected to")]
    Connect(#[from] ConnectError),
    /// A factory would be made where most likely nobody means one.
    #[error(transparent)]
    Unmeant(ConnectError),
    /// Settings that cannot be.
    #[error("impossible setting: {0}")]
    Impossible(String),
    /// A layout stands, and differs; nothing of it was changed.
    #[error("the broker is set up otherwise: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Differs(Vec<Difference>),
    /// The broker did not allow it, or failed.
    #[error("the broker could not make {what}")]
    Failed {
        /// What was to be made.
        what: String,
        /// Why it was not.
        #[source]
        source: Cause,
    },
}

impl SetupError {
    /// Whether it may work later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_retryable(),
            Self::Failed { source, .. } => source.downcast_ref().is_some_and(ApiError::is_retryable),
            Self::Unmeant(_) | Self::Impossible(_) | Self::Differs(_) => false,
        }
    }

    fn failed(what: &str, source: ApiError) -> Self {
        Self::Failed { what: what.into(), source: Box::new(source) }
    }
}

/// Makes the factory's streams, its bucket of records and its settings, or finds them made. Any number may do so at
/// once.
///
/// # Errors
/// When the broker cannot be reached, does not allow it, or is set up otherwise.
pub async fn setup(
    options: &NatsOptions,
    settings: &FactorySettings,
    on_difference: OnDifference,
) -> Result<SetupReport, SetupError> {
    if let Some(wrong) = settings.impossible() {
        return Err(SetupError::Impossible(wrong));
    }
    let (connection, address) = open(options).await?;
    enabled(&connection, &options.layout, address.clone()).await?;
    let made = make(&connection, &options.layout, settings, on_difference, address).await;
    if made.is_ok() {
        // The sooner the server is known, the more delivery counts are.
        connection.meet(&options.layout).await;
    }
    connection.close().await;
    made
}

/// Makes the consumers of `lanes`, for nodes that may consume but not make consumers.
///
/// # Errors
/// When the broker cannot be reached, is not set up, or does not allow it.
pub async fn setup_lanes(options: &NatsOptions, lanes: &[Lane]) -> Result<(), SetupError> {
    let (connection, address) = open(options).await?;
    let settings = bind(&connection, &options.layout, address).await?;
    let consumers = LaneConsumers::new(options.layout.clone(), settings);
    for lane in lanes {
        consumers
            .bind(&connection, lane)
            .await
            .map_err(|error| SetupError::Failed { what: format!("the consumers of lane {lane}"), source: Box::new(error) })?;
    }
    connection.close().await;
    Ok(())
}

async fn open(options: &NatsOptions) -> Result<(Connection, String), ConnectError> {
    let counters = Arc::new(Counters::default());
    connect(options, "setup", Instant::now() + options.link.connect_deadline, &counters).await
}

/// The settings of the factory that is set up behind `connection`.
pub(crate) async fn bind(connection: &Connection, layout: &Layout, address: String) -> Result<FactorySettings, ConnectError> {
    let not_set_up = |missing: &str| match unnamed_domain(connection) {
        Some(domain) => ConnectError::OtherDomain { address: address.clone(), domain },
        None => ConnectError::NotSetUp { missing: missing.into() },
    };
    if !enabled(connection, layout, address.clone()).await? {
        return Err(not_set_up(&format!("stream {}", layout.state_stream)));
    }
    let unusable = |source: Cause| ConnectError::Unusable { address: address.clone(), source };
    let record = connection.last(&layout.state_stream, &layout.record_subject(Layout::FACTORY)).await;
    let record = record.map_err(|error| unusable(Box::new(error)))?.ok_or_else(|| not_set_up("the factory's settings"))?;
    serde_json::from_slice(&record.payload).map_err(|error| unusable(Box::new(error)))
}

/// Whether the bucket of records is there, on a server that has JetStream at all. Asks what every role may ask.
async fn enabled(connection: &Connection, layout: &Layout, address: String) -> Result<bool, ConnectError> {
    let info = format!("STREAM.INFO.{}", layout.state_stream);
    match connection.api_at_once::<Value>(&info, &json!({}), NobodyThere::Fail).await {
        Ok(_) => Ok(true),
        Err(ApiError::Unanswered(Unanswered::NobodyThere)) => Err(match connection.domain() {
            Some(domain) => ConnectError::NoDomain { address, domain: domain.into(), own: connection.own_domain() },
            None => ConnectError::NoJetStream { address },
        }),
        Err(error) => match error.code() {
            Some(code::NO_STREAM) => Ok(false),
            Some(code::NOT_ENABLED | code::NOT_FOR_ACCOUNT) => Err(ConnectError::NoJetStream { address }),
            _ => Err(ConnectError::Unusable { address, source: Box::new(error) }),
        },
    }
}

/// The domain of the server at the other end, if it has one that was not configured: jobs may be meant for another.
fn unnamed_domain(connection: &Connection) -> Option<String> {
    connection.own_domain().filter(|_| connection.domain().is_none())
}

async fn make(
    connection: &Connection,
    layout: &Layout,
    settings: &FactorySettings,
    on_difference: OnDifference,
    address: String,
) -> Result<SetupReport, SetupError> {
    let streams = streams(layout, settings);
    let mut differences = Vec::new();
    let mut report = SetupReport::default();
    let mut to_make = Vec::new();
    let mut to_update = Vec::new();
    // First look at all of it, so that a refusal leaves everything as it was.
    for config in &streams {
        let name = name(config);
        let info = connection.api::<Value>(&format!("STREAM.INFO.{name}"), &json!({})).await;
        match info {
            Ok(info) => {
                let of_this = differing(name, &info["config"], config);
                if of_this.is_empty() {
                    report.unchanged.push(name.into());
                } else {
                    to_update.push((config, info["config"].clone()));
                    differences.extend(of_this);
                }
            }
            Err(error) if error.code() == Some(code::NO_STREAM) => to_make.push(config),
            Err(error) => return Err(SetupError::failed(name, error)),
        }
    }
    let wanted = serde_json::to_value(settings).unwrap_or_default();
    // Without the bucket there is no record either, and nobody to ask for it.
    let standing = if to_make.iter().any(|config| name(config) == layout.state_stream) {
        None
    } else {
        factory_record(connection, layout).await.map_err(|error| SetupError::failed("settings", error))?
    };
    if let Some((stands, _)) = &standing {
        differences.extend(differing("settings", stands, &wanted));
    }
    if !differences.is_empty() && on_difference == OnDifference::Refuse {
        return Err(SetupError::Differs(differences));
    }

    if to_make.iter().any(|config| name(config) == layout.jobs) {
        second::refuse(connection, layout, address).await?;
    }
    for config in to_make {
        let name = name(config);
        match connection.api::<Value>(&format!("STREAM.CREATE.{name}"), config).await {
            Ok(_) => report.created.push(name.into()),
            // Somebody else has just made it, with other settings.
            Err(error) if error.code() == Some(code::STREAM_DIFFERS) => {
                let info = connection.api::<Value>(&format!("STREAM.INFO.{name}"), &json!({})).await;
                let info = info.map_err(|error| SetupError::failed(name, error))?;
                return Err(SetupError::Differs(differing(name, &info["config"], config)));
            }
            Err(error) => return Err(SetupError::failed(name, error)),
        }
    }
    for (config, stands) in to_update {
        let name = name(config);
        // What is not ours to say stays as it stands.
        let mut merged = stands;
        if let (Some(merged), Some(config)) = (merged.as_object_mut(), config.as_object()) {
            merged.extend(config.clone());
        }
        let updated = connection.api::<Value>(&format!("STREAM.UPDATE.{name}"), &merged).await;
        updated.map_err(|error| SetupError::failed(name, error))?;
        report.updated.push(name.into());
    }
    write_settings(connection, layout, standing, &wanted, &mut report).await?;
    if on_difference == OnDifference::Update {
        let updated = lane_consumers::update_all(connection, layout, settings).await;
        report.updated.extend(updated.map_err(|error| SetupError::failed("consumers", error))?);
    }
    Ok(report)
}

/// Writes the record of the settings: last, for it says that all else is there.
async fn write_settings(
    connection: &Connection,
    layout: &Layout,
    standing: Option<(Value, u64)>,
    wanted: &Value,
    report: &mut SetupReport,
) -> Result<(), SetupError> {
    let failed = |error| SetupError::failed("settings", error);
    let (existed, expected) = match &standing {
        Some((stands, _)) if stands == wanted => {
            report.unchanged.push("settings".into());
            return Ok(());
        }
        Some((_, sequence)) => (true, *sequence),
        None => (false, 0),
    };
    let subject = layout.record_subject(Layout::FACTORY);
    let bytes = wanted.to_string().into();
    match connection.store_at(&layout.state_stream, &subject, expected, HeaderMap::new(), bytes).await {
        Ok(_) if existed => report.updated.push("settings".into()),
        Ok(_) => report.created.push("settings".into()),
        // Somebody else was quicker. That is fine if they want the same.
        Err(error) if error.code() == Some(code::WRONG_LAST) => {
            let Some((stands, _)) = factory_record(connection, layout).await.map_err(failed)? else { return Err(failed(error)) };
            let differences = differing("settings", &stands, wanted);
            if !differences.is_empty() {
                return Err(SetupError::Differs(differences));
            }
            report.unchanged.push("settings".into());
        }
        Err(error) => return Err(failed(error)),
    }
    Ok(())
}

async fn factory_record(connection: &Connection, layout: &Layout) -> Result<Option<(Value, u64)>, ApiError> {
    let record = connection.last(&layout.state_stream, &layout.record_subject(Layout::FACTORY)).await?;
    record.map(|r| Ok((serde_json::from_slice(&r.payload).map_err(ApiError::Unreadable)?, r.sequence))).transpose()
}

pub(crate) fn name(config: &Value) -> &str {
    config["name"].as_str().unwrap_or_default()
}

/// Where `stands` has other values than `wanted` wants. What is not wanted in any way may be as it is.
pub(crate) fn differing(of: &str, stands: &Value, wanted: &Value) -> Vec<Difference> {
    // What the server leaves out when it is false.
    let value = |key: &String| stands.get(key).cloned().unwrap_or(Value::Bool(false));
    let nothing = Map::new();
    let wanted = wanted.as_object().unwrap_or(&nothing);
    let differing = wanted.iter().filter(|(key, wanted)| value(key) != **wanted);
    let told = |(key, wanted): (&String, &Value)| Difference {
        of: of.into(),
        setting: key.clone(),
        stands: value(key).to_string(),
        wanted: wanted.to_string(),
    };
    differing.map(told).collect()
}
