//! The one place that picks a broker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wf_broker::{Broker, BrokerError, Embedded, OpenError};
use wf_nats::{ConnectError, NatsBroker, NatsOptions, SetupError};
use wf_schema::config::{BrokerUrl, Config};

use crate::settings;

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
}

/// The broker that the configuration names.
///
/// # Errors
/// When it cannot be opened or reached.
pub async fn connect(config: &Config, layout: Layout) -> Result<Arc<dyn Broker>, BrokerUnavailable> {
    match &config.broker().url {
        BrokerUrl::Embedded(path) => {
            let (path, options) = (path.clone(), settings::embedded(config)?);
            let opened = tokio::task::spawn_blocking(move || Embedded::open(path, options)).await;
            Ok(opened.map_err(|error| BrokerError::fatal("open its store", error))??)
        }
        BrokerUrl::Memory => Ok(Embedded::memory(settings::embedded(config)?)?),
        BrokerUrl::Nats(urls) => {
            let options = settings::nats(config, urls)?;
            match layout {
                Layout::Make => Ok(NatsBroker::connect_or_setup(options, &settings::factory(config)).await?),
                Layout::Use => Ok(once_set_up(options, config.broker().connect_deadline).await?),
            }
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
