//! One door to everything, for Rust programs.

use std::sync::Arc;
use std::time::Duration;

use wf_broker::{Broker, BrokerError};
use wf_executor::{Executor, ExecutorError, Registry};
use wf_ingest::{Outcome, Producer, ProducerOptions, Spool, SpoolError, wait_for_outcome};
use wf_schema::JobId;
use wf_schema::config::{Config, ConfigError, Loader};

use crate::connect::{BrokerUnavailable, Layout, connect_soon, fit_soon};
use crate::settings::{self, OptionsError};
use crate::tuner::Tuner;

/// A connection to a factory: what a Rust program enqueues jobs through and runs them with.
pub struct Factory {
    config: Config,
    broker: Arc<dyn Broker>,
    tuner: Tuner,
    spool: Option<Spool>,
}

/// Why a program cannot take part in a factory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FactoryError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The broker cannot be opened or reached.
    #[error(transparent)]
    Broker(#[from] BrokerUnavailable),
    /// The spool cannot be opened.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The executor cannot be started with these settings.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The executor cannot be started.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
}

impl Factory {
    /// Connects to the broker at `url` (`embedded:PATH`, `memory://`, `nats://HOST:4222`, `tls://HOST:4222`); everything
    /// else is as the environment (`WF_*`) and `wf.toml` say. A factory on NATS that is not set up is set up.
    ///
    /// With a spool (`ingest.spool`) a broker that cannot be reached is waited for no longer than
    /// `ingest.unreachable_after`: producers put jobs into the spool until it comes.
    ///
    /// # Errors
    /// When the configuration is wrong, or the broker cannot be opened or reached, or refuses.
    pub async fn connect(url: &str) -> Result<Self, FactoryError> {
        Self::load(&Loader::of_process().flags([("broker.url", url)])).await
    }

    /// Connects as what `loader` gathers says. With the profile `auto`, producers and executors follow the link.
    ///
    /// # Errors
    /// When the configuration is wrong, or the broker cannot be opened or reached.
    pub async fn load(loader: &Loader) -> Result<Self, FactoryError> {
        let loaded = loader.load()?;
        let spool = settings::open_spool(&loaded.config).await?;
        let (fitted, _) = Box::pin(fit_soon(loader, loaded, Layout::Make)).await?;
        Ok(Self { config: fitted.loaded.config, broker: fitted.broker, tuner: fitted.tuner, spool })
    }

    /// Connects as `config` says, and stays with that: a configuration is what was loaded once, so with the profile
    /// `auto` use [`Factory::load`].
    ///
    /// # Errors
    /// When the broker cannot be opened or reached.
    pub async fn with(config: Config) -> Result<Self, FactoryError> {
        let spool = settings::open_spool(&config).await?;
        let (broker, _) = Box::pin(connect_soon(&config, Layout::Make)).await?;
        Ok(Self { config, broker, tuner: Tuner::idle(), spool })
    }

    /// A producer of jobs. Cheap to clone; ask for one, and share it. Must be called inside a tokio runtime.
    pub fn producer(&self) -> Producer {
        let options = ProducerOptions { spool: self.spool.clone(), ..settings::producer(&self.config) };
        let producer = Producer::new(self.broker.clone(), options.measured(&self.broker));
        self.tuner.producer(&producer);
        producer
    }

    /// Starts an executor that runs the jobs of the configured queues with the handlers of `registry`.
    ///
    /// # Errors
    /// When the broker does not let it consume.
    pub fn executor(&self, registry: Registry) -> Result<Executor, FactoryError> {
        let options = settings::executor(&self.config, self.config.executor().queues.clone())?;
        let executor = Executor::start(self.broker.clone(), registry, options)?;
        self.tuner.executor(&executor);
        Ok(executor)
    }

    /// What follows the link with the profile `auto`: tells what was measured and chosen.
    pub fn tuner(&self) -> &Tuner {
        &self.tuner
    }

    /// What became of the job `id`, once that is settled; waits for it at most `wait`. `None` when it is not settled
    /// by then, when it completed without a stored result, or when its outcome was kept no longer.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn outcome(&self, id: JobId, wait: Duration) -> Result<Option<Outcome>, BrokerError> {
        wait_for_outcome(&*self.broker, id, wait).await
    }

    /// The broker itself.
    pub fn broker(&self) -> &Arc<dyn Broker> {
        &self.broker
    }

    /// Closes the spool, if there is one, waits until all acknowledgements are confirmed, and disconnects. Close the
    /// producers before.
    ///
    /// # Errors
    /// When some were not confirmed in time; the jobs of those may run again.
    pub async fn close(self) -> Result<(), BrokerError> {
        if let Some(spool) = &self.spool
            && let Err(error) = spool.close().await
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "the spool was not closed");
        }
        self.broker.close().await
    }
}
