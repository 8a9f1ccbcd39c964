//! The one place that picks a broker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wf_broker::{Broker, BrokerError, Embedded, OpenError};
use wf_nats::{ConnectError, NatsBroker, NatsOptions, SetupError};
use wf_schema::config::{BrokerUrl, Config, ConfigError, Loaded, Loader, ProfileSetting};

use crate::settings;
use crate::tuner::Tuner;

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

/// The broker that `loaded` names, and what fits the link to it; `loader` is where that came from.
///
/// # Errors
/// When it cannot be opened or reached.
pub async fn fit(loader: &Loader, loaded: Loaded, layout: Layout) -> Result<Fitted, BrokerUnavailable> {
    let connected = open(&loaded.config, layout).await?;
    let auto = loaded.config.profile_setting() == ProfileSetting::Auto;
    let (Connected::Nats(broker), true) = (connected.clone(), auto) else {
        return Ok(Fitted { broker: connected.broker(), loaded, tuner: Tuner::idle() });
    };
    let tuner = Tuner::start(broker.clone(), loader).await?;
    // What does not follow the link is that of the profile which fits it now.
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
