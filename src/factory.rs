//! One door to everything, for Rust programs.

use std::sync::Arc;
use std::time::Duration;

use wf_broker::{Broker, BrokerError};
use wf_executor::{Executor, ExecutorError, Registry};
use wf_ingest::{Outcome, Producer, wait_for_outcome};
use wf_schema::JobId;
use wf_schema::config::{Config, ConfigError, Loader};

use crate::connect::{BrokerUnavailable, Layout, connect};
use crate::settings::{self, OptionsError};

/// A connection to a factory: what a Rust program enqueues jobs through and runs them with.
pub struct Factory {
    config: Config,
    broker: Arc<dyn Broker>,
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
    /// # Errors
    /// When the configuration is wrong, or the broker cannot be opened or reached.
    pub async fn connect(url: &str) -> Result<Self, FactoryError> {
        Self::with(Loader::of_process().flags([("broker.url", url)]).load()?.config).await
    }

    /// Connects as `config` says.
    ///
    /// # Errors
    /// When the broker cannot be opened or reached.
    pub async fn with(config: Config) -> Result<Self, FactoryError> {
        let broker = Box::pin(connect(&config, Layout::Make)).await?;
        Ok(Self { config, broker })
    }

    /// A producer of jobs. Cheap to clone; ask for one, and share it. Must be called inside a tokio runtime.
    pub fn producer(&self) -> Producer {
        Producer::new(self.broker.clone(), settings::producer(&self.config).measured(&self.broker))
    }

    /// Starts an executor that runs the jobs of the configured queues with the handlers of `registry`.
    ///
    /// # Errors
    /// When the broker does not let it consume.
    pub fn executor(&self, registry: Registry) -> Result<Executor, FactoryError> {
        let options = settings::executor(&self.config, self.config.executor().queues.clone())?;
        Ok(Executor::start(self.broker.clone(), registry, options)?)
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

    /// Waits until all acknowledgements are confirmed, and disconnects.
    ///
    /// # Errors
    /// When some were not confirmed in time; the jobs of those may run again.
    pub async fn close(self) -> Result<(), BrokerError> {
        self.broker.close().await
    }
}
