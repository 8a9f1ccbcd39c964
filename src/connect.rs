//! The one place that picks a broker.

mod late;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wf_broker::{Broker, BrokerError, Embedded, OpenError};
use wf_nats::{ConnectError, NatsBroker, NatsOptions, SetupError};
use wf_schema::config::{BrokerUrl, Config, ConfigError, Loaded, Loader, ProfileSetting};

use crate::settings;
use crate::tuner::Tuner;
use crate::unserved;
pub use late::Refusal;

/// How long to wait, on average, before looking again whether the factory is set up.
const NOT_SET_UP_PAUSE: Duration = Duration::from_secs(1);

/// What a process wants of its broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Make what is missing: a factory begins with the first process that enqueues.
    Make,
    /// Use what is there.
    Use,
}

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerUnavailable {
    /// The embedded broker cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The servers cannot be reached, or are not what they should be.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The factory cannot be set up.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The broker was reached, and failed.
    #[error("the broker does not answer")]
    Broker(#[from] BrokerError),
    /// The configuration cannot be what this broker needs.
    #[error(transparent)]
    Options(#[from] settings::OptionsError),
    /// The configuration cannot be what this link needs.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl BrokerUnavailable {
    /// Whether it may work later without anybody changing anything: the broker is away, and does not refuse.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_retryable(),
            Self::Setup(error) => error.is_retryable(),
            Self::Broker(error) => error.is_retryable(),
            Self::Open(_) | Self::Options(_) | Self::Config(_) => false,
        }
    }
}

/// A broker, as which it is.
#[derive(Clone)]
pub enum Connected {
    /// The one in this process.
    Embedded(Arc<Embedded>),
    /// NATS servers.
    Nats(Arc<NatsBroker>),
}

impl Connected {
    /// As any broker.
    pub fn broker(self) -> Arc<dyn Broker> {
        match self {
            Self::Embedded(broker) => broker,
            Self::Nats(broker) => broker,
        }
    }
}

/// A broker, with what fits the link to it.
pub struct Fitted {
    /// The broker.
    pub broker: Arc<dyn Broker>,
    /// The configuration; with the profile `auto`, that of the profile which fits the link.
    pub loaded: Loaded,
    /// What keeps things in step with the link, with the profile `auto`. Whatever publishes or runs jobs is to follow it.
    pub tuner: Tuner,
}

/// The broker that the configuration names.
///
/// # Errors
/// When it cannot be opened or reached.
pub async fn connect(config: &Config, layout: Layout) -> Result<Arc<dyn Broker>, BrokerUnavailable> {
    open(config, layout).await.map(Connected::broker)
}

/// The same, for somebody who can do without it. With a spool for jobs (`ingest.spool`) and a broker over a network this
/// waits only until the broker counts as unreachable; what it gives then says so of everything that is asked of it, until
/// the broker was reached in the background.
///
/// # Errors
/// When the broker refuses: the login, for one.
pub async fn connect_soon(config: &Config, layout: Layout) -> Result<(Arc<dyn Broker>, Refusal), BrokerUnavailable> {
    let Some(spool) = stand_in(config) else { return Ok((connect(config, layout).await?, Refusal::never())) };
    let wanted = config.clone();
    let find = move || -> late::Finding {
        let wanted = wanted.clone();
        Box::pin(async move { connect(&wanted, layout).await })
    };
    late::soon(config, spool, Box::new(find)).await
}

/// The broker that `loaded` names, and what fits the link to it; `loader` is where that came from.
///
/// # Errors
/// When it cannot be opened or reached.
pub async fn fit(loader: &Loader, loaded: Loaded, layout: Layout) -> Result<Fitted, BrokerUnavailable> {
    let tuner = tuner(&loaded.config);
    let broker = follow(&loaded.config, layout, loader, &tuner).await?;
    fitted(loader, loaded, broker, tuner)
}

/// The same as [`connect_soon`] does it. What follows the link does so from when there is one.
///
/// # Errors
/// As [`connect_soon`].
pub async fn fit_soon(loader: &Loader, loaded: Loaded, layout: Layout) -> Result<(Fitted, Refusal), BrokerUnavailable> {
    let Some(spool) = stand_in(&loaded.config) else { return Ok((fit(loader, loaded, layout).await?, Refusal::never())) };
    let tuner = tuner(&loaded.config);
    let wanted = (loaded.config.clone(), loader.clone(), tuner.clone());
    let find = move || -> late::Finding {
        let (config, loader, tuner) = wanted.clone();
        Box::pin(async move { follow(&config, layout, &loader, &tuner).await })
    };
    let (broker, refusal) = late::soon(&loaded.config, spool, Box::new(find)).await?;
    Ok((fitted(loader, loaded, broker, tuner)?, refusal))
}

/// What is to follow the link to the broker that `config` names.
fn tuner(config: &Config) -> Tuner {
    let link = matches!(config.broker().url, BrokerUrl::Nats(_));
    if link && config.profile_setting() == ProfileSetting::Auto { Tuner::waiting() } else { Tuner::idle() }
}

/// The spool that stands in for the broker while it cannot be reached: one over a network can be away.
fn stand_in(config: &Config) -> Option<&Path> {
    config.ingest().spool.as_deref().filter(|_| matches!(config.broker().url, BrokerUrl::Nats(_)))
}

/// The broker that `config` names, with `tuner` following the link to it.
async fn follow(config: &Config, layout: Layout, loader: &Loader, tuner: &Tuner) -> Result<Arc<dyn Broker>, BrokerUnavailable> {
    let connected = open(config, layout).await?;
    if let Connected::Nats(broker) = &connected {
        tuner.begin(broker.clone(), loader).await?;
    }
    Ok(connected.broker())
}

/// What does not follow the link is that of the profile which fits it now.
fn fitted(loader: &Loader, loaded: Loaded, broker: Arc<dyn Broker>, tuner: Tuner) -> Result<Fitted, BrokerUnavailable> {
    let rtt = tuner.watch().and_then(|tuned| tuned.borrow().link.round_trips.shortest());
    let loaded = match rtt {
        Some(rtt) => loader.clone().measured(rtt).load()?,
        None => loaded,
    };
    Ok(Fitted { broker, loaded, tuner })
}

/// The broker that the configuration names, as which it is.
///
/// # Errors
/// When it cannot be opened or reached.
pub async fn open(config: &Config, layout: Layout) -> Result<Connected, BrokerUnavailable> {
    let connected = find(config, layout).await?;
    // Ends with the broker.
    tokio::spawn(unserved::watch(Arc::downgrade(&connected.clone().broker())));
    Ok(connected)
}

async fn find(config: &Config, layout: Layout) -> Result<Connected, BrokerUnavailable> {
    match &config.broker().url {
        BrokerUrl::Embedded(path) => {
            let (path, options) = (path.clone(), settings::embedded(config)?);
            let opened = tokio::task::spawn_blocking(move || Embedded::open(path, options)).await;
            Ok(Connected::Embedded(opened.map_err(|error| BrokerError::fatal("open its store", error))??))
        }
        BrokerUrl::Memory => Ok(Connected::Embedded(Embedded::memory(settings::embedded(config)?)?)),
        BrokerUrl::Nats(urls) => {
            let options = settings::nats(config, urls)?;
            Ok(Connected::Nats(match layout {
                Layout::Make => NatsBroker::connect_or_setup(options, &settings::factory(config)).await?,
                Layout::Use => once_set_up(options, config.broker().connect_deadline).await?,
            }))
        }
    }
}

/// Connects, and waits for whoever sets the factory up: processes that start together need no order.
async fn once_set_up(options: NatsOptions, deadline: Duration) -> Result<Arc<NatsBroker>, ConnectError> {
    let began = Instant::now();
    loop {
        match NatsBroker::connect(options.clone()).await {
            Err(error @ ConnectError::NotSetUp { .. }) if began.elapsed() < deadline => {
                tracing::info!("{error}; waiting for it");
                tokio::time::sleep(NOT_SET_UP_PAUSE.mul_f64(0.5 + fastrand::f64())).await;
            }
            done => return done,
        }
    }
}
