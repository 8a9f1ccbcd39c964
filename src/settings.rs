//! From the configuration to the options of each part.

use std::time::Duration;

use wf_broker::EmbeddedOptions;
use wf_executor::ExecutorOptions;
use wf_ingest::{BatchOptions, HttpOptions, Patience, ProducerOptions, Spool, SpoolError, SpoolOptions, Window};
use wf_nats::{FactorySettings, LinkSettings, NatsOptions};
use wf_schema::config::{BrokerUrl, Config};
use wf_schema::{Limits, Queue};

/// What a job is taken to need on the wire once it is compressed, at the least: a batch that is full by its bytes is
/// cut from as many more bytes before compression.
const COMPRESSION: usize = 4;

/// How long a file of jobs waits for a broker: through its restart, and for as long as executors take to make room.
pub const PATIENCE: Patience = Patience { full: Duration::from_secs(3600), away: Duration::from_secs(300) };

/// Settings that a broker cannot work with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// The embedded broker cannot.
    #[error("the embedded broker cannot be used with these settings")]
    Embedded(#[source] wf_broker::OptionsError),
    /// The connection to NATS cannot.
    #[error("NATS cannot be reached with these settings")]
    Nats(#[source] wf_nats::OptionsError),
    /// The executor cannot.
    #[error("an executor cannot work with these settings")]
    Executor(#[source] wf_executor::OptionError),
    /// The command needs a broker that more than one process can use.
    #[error(
        "{command} needs a broker that several processes can reach, nats://HOST:4222; {url} serves one process: use wf serve"
    )]
    OneProcess {
        /// The command.
        command: &'static str,
        /// The broker that was named.
        url: BrokerUrl,
    },
}

/// Refuses a broker that only one process can use.
///
/// # Errors
/// When it is such a broker.
pub fn needs_a_server(config: &Config, command: &'static str) -> Result<(), OptionsError> {
    match &config.broker().url {
        BrokerUrl::Nats(_) => Ok(()),
        url => Err(OptionsError::OneProcess { command, url: url.clone() }),
    }
}

/// For the embedded broker.
///
/// # Errors
/// When it cannot work with what is set.
pub fn embedded(config: &Config) -> Result<EmbeddedOptions, OptionsError> {
    let factory = config.factory();
    let options = EmbeddedOptions::default()
        .lease(factory.lease)
        .and_then(|o| o.lane_bytes(factory.lane_bytes.bytes().min(factory.jobs_bytes.bytes())))
        .and_then(|o| o.total_bytes(factory.jobs_bytes.bytes()))
        .and_then(|o| o.dedup_window(factory.dedup_window))
        .and_then(|o| o.outcome_age(factory.results_age))
        .and_then(|o| o.outcome_bytes(factory.results_bytes.bytes()))
        .and_then(|o| o.outcome_records(factory.results_messages.into()))
        .and_then(|o| o.dead_age(factory.dead_age))
        .and_then(|o| o.dead_bytes(factory.dead_bytes.bytes()));
    options.map_err(OptionsError::Embedded)
}

/// For NATS servers at `urls`.
///
/// # Errors
/// When an address or a name is not valid.
pub fn nats(config: &Config, urls: &[String]) -> Result<NatsOptions, OptionsError> {
    let (broker, publish, pull) = (config.broker(), config.publish(), config.pull());
    let mut link = LinkSettings::default();
    link.connect_timeout = broker.connect_timeout;
    link.connect_deadline = broker.connect_deadline;
    link.request_timeout = broker.request_timeout;
    link.ping_interval = broker.ping_interval;
    link.connections = broker.connections as usize;
    link.pull_expires = pull.expires;
    link.pull_heartbeat = pull.heartbeat;
    link.publish_bytes = publish.window_bytes.as_usize();
    link.publish_messages = publish.window_messages as usize;
    let mut options = NatsOptions::new(urls)
        .and_then(|o| o.prefix(broker.prefix.as_str()))
        .and_then(|o| o.inbox_prefix(broker.inbox_prefix.as_str()))
        .map_err(OptionsError::Nats)?
        .link(link);
    if let Some(domain) = &broker.domain {
        options = options.domain(domain.as_str()).map_err(OptionsError::Nats)?;
    }
    if let Some(creds) = &broker.creds {
        options = options.credentials(creds);
    }
    if let Some(certificates) = &broker.root_certificates {
        options = options.root_certificates(certificates);
    }
    Ok(options)
}

/// What a factory on NATS servers shares.
pub fn factory(config: &Config) -> FactorySettings {
    let factory = config.factory();
    let mut settings = FactorySettings::default();
    settings.lease = factory.lease;
    settings.lane_in_flight = factory.lane_in_flight;
    settings.lane_pulls = factory.lane_pulls;
    settings.lane_messages = factory.lane_messages;
    settings.jobs_bytes = factory.jobs_bytes.bytes();
    settings.dedup_window = factory.dedup_window;
    settings.results_age = factory.results_age;
    settings.results_bytes = factory.results_bytes.bytes();
    settings.results_messages = factory.results_messages;
    settings.dead_age = factory.dead_age;
    settings.dead_bytes = factory.dead_bytes.bytes();
    settings.state_bytes = factory.state_bytes.bytes();
    settings.replicas = factory.replicas.get();
    settings.placement_cluster = factory.placement_cluster.as_ref().map(ToString::to_string);
    settings.placement_tags = factory.placement_tags.iter().flat_map(|tags| tags.iter()).map(str::to_owned).collect();
    settings
}

/// For an executor of `queues`.
///
/// # Errors
/// When it cannot work with what is set.
pub fn executor(config: &Config, queues: impl IntoIterator<Item = Queue>) -> Result<ExecutorOptions, OptionsError> {
    let (executor, prefetch) = (config.executor(), config.prefetch());
    let name = executor.name.as_ref().map_or_else(node_name, |name| name.as_str().to_owned());
    let options = ExecutorOptions::new(name)
        .and_then(|o| o.concurrency(executor.concurrency as usize))
        .and_then(|o| o.prefetch_bytes(prefetch.bytes.as_usize()))
        .and_then(|o| o.prefetch_work(prefetch.work))
        .and_then(|o| o.drain_deadline(executor.drain_deadline));
    Ok(options.map_err(OptionsError::Executor)?.serving(queues))
}

/// Host and process: tells nodes apart, and leads a person to them.
fn node_name() -> String {
    let host = gethostname::gethostname().to_string_lossy().chars().filter(|c| !c.is_control()).take(64).collect::<String>();
    format!("{host}-{}", std::process::id())
}

/// How much may be on its way to the broker.
pub fn window(config: &Config) -> Window {
    Window { bytes: config.publish().window_bytes.as_usize(), messages: config.publish().window_messages as usize }
}

/// The most bytes before compression in a batch that is cut from a file.
pub fn raw_bytes_of_a_batch(config: &Config) -> usize {
    config.batch().raw_bytes.as_usize().min(config.batch().wire_bytes.as_usize().saturating_mul(COMPRESSION))
}

/// Where a producer's jobs go while the broker cannot be reached, if anywhere.
pub fn spool(config: &Config) -> Option<SpoolOptions> {
    let ingest = config.ingest();
    ingest.spool.clone().map(|path| SpoolOptions { path, bytes: ingest.spool_bytes.bytes() })
}

/// Opens it.
///
/// # Errors
/// When another process has it, or the folder cannot be used.
pub async fn open_spool(config: &Config) -> Result<Option<Spool>, SpoolError> {
    match spool(config) {
        Some(options) => Spool::open(options).await.map(Some),
        None => Ok(None),
    }
}

/// For a producer, without a spool.
pub fn producer(config: &Config) -> ProducerOptions {
    let (batch, defaults) = (config.batch(), ProducerOptions::default());
    ProducerOptions {
        batch: BatchOptions {
            linger: batch.linger,
            wire_bytes: batch.wire_bytes.as_usize(),
            jobs: batch.jobs as usize,
            raw_bytes: batch.raw_bytes.as_usize(),
            run_time: batch.run_time,
        },
        window: window(config),
        room: defaults.room.max(2 * config.publish().window_bytes.as_usize()),
        room_timeout: config.ingest().room_timeout,
        patience: Patience { away: config.ingest().store_timeout, ..defaults.patience },
        unreachable_after: config.ingest().unreachable_after,
        args_limit: config.ingest().args_limit.as_usize(),
        ..defaults
    }
}

/// For serving HTTP.
pub fn http(config: &Config) -> HttpOptions {
    let ingest = config.ingest();
    HttpOptions {
        body_limit: ingest.body_limit.bytes(),
        header_timeout: ingest.header_timeout,
        idle_timeout: ingest.idle_timeout,
        body_pace: ingest.body_pace.bytes(),
        body_timeout: ingest.body_timeout,
        body_memory: ingest.body_memory.as_usize(),
        connections: ingest.connections as usize,
        drain_deadline: ingest.drain_deadline,
        wait_limit: ingest.wait_limit,
        ..HttpOptions::default()
    }
}

/// What a message may hold.
pub fn limits(config: &Config) -> Limits {
    Limits { args_bytes: config.ingest().args_limit.as_usize(), ..Limits::default() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
