//! The broker: its connections, and the roles of the contract over them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Semaphore;
use wf_broker::{BoxFuture, Broker, BrokerError, Result};

use crate::connect::{ConnectError, connect};
use crate::connection::Connection;
use crate::control::StatsCache;
use crate::counters::{Counters, Counts};
use crate::exchange::{NobodyThere, Unanswered};
use crate::factory::FactorySettings;
use crate::lane_consumers::LaneConsumers;
use crate::layout::Layout;
use crate::options::{LinkSettings, NatsOptions};
use crate::setup::{OnDifference, SetupError, bind, setup};
use crate::source::Flows;

/// A factory's broker over JetStream.
///
/// Publishing and consuming have connections of their own, so that neither waits behind the other.
pub struct NatsBroker {
    pub(crate) layout: Layout,
    pub(crate) settings: FactorySettings,
    pub(crate) link: LinkSettings,
    pub(crate) counters: Arc<Counters>,
    pub(crate) consumers: Arc<LaneConsumers>,
    pub(crate) stats: StatsCache,
    pub(crate) flows: Flows,
    /// The bytes that may be published and not answered yet, one permit each.
    pub(crate) byte_window: Semaphore,
    /// The messages that may be published and not answered yet.
    pub(crate) message_window: Semaphore,
    publishing: Vec<Arc<Connection>>,
    consuming: Vec<Arc<Connection>>,
    next_publishing: AtomicUsize,
}

impl NatsBroker {
    /// Connects to a factory that is set up.
    ///
    /// # Errors
    /// When no server could be reached until the connect deadline, the server is too old or has no JetStream, the
    /// login is refused, or the factory is not set up.
    pub async fn connect(mut options: NatsOptions) -> Result<Arc<Self>, ConnectError> {
        options.link = options.link.workable();
        let counters = Arc::new(Counters::default());
        let deadline = Instant::now() + options.link.connect_deadline;
        let open = |role: &'static str| connect(&options, role, deadline, &counters);
        // The first alone: it finds out whether the others need be made at all.
        let (first, address) = open("publish").await?;
        let settings = bind(&first, &options.layout, address).await?;
        let rest = (1..options.link.connections).map(|_| open("publish"));
        let consuming = (0..options.link.connections).map(|_| open("consume"));
        let (rest, consuming) =
            futures::future::try_join(futures::future::try_join_all(rest), futures::future::try_join_all(consuming)).await?;
        let acked = Arc::default();
        let shared = |connections: Vec<(Connection, String)>| {
            connections.into_iter().map(|(connection, _)| Arc::new(connection.sharing(&acked))).collect::<Vec<_>>()
        };
        let link = options.link;
        let consuming = shared(consuming);
        futures::future::join_all(consuming.iter().map(|connection| connection.counts_since(&options.layout))).await;
        tracing::info!(broker = options.name, lease_s = settings.lease.as_secs_f32(), "connected to the factory's broker");
        Ok(Arc::new(Self {
            consumers: Arc::new(LaneConsumers::new(options.layout.clone(), settings.clone())),
            layout: options.layout,
            settings,
            counters,
            stats: StatsCache::default(),
            flows: Flows::default(),
            byte_window: Semaphore::new(link.publish_bytes),
            message_window: Semaphore::new(link.publish_messages),
            publishing: std::iter::once(Arc::new(first)).chain(shared(rest)).collect(),
            consuming,
            next_publishing: AtomicUsize::new(0),
            link,
        }))
    }

    /// Connects to a factory, setting it up with `settings` if it is not. One that is set up keeps the settings it
    /// has.
    ///
    /// # Errors
    /// As [`NatsBroker::connect`] and [`setup`].
    pub async fn connect_or_setup(options: NatsOptions, settings: &FactorySettings) -> Result<Arc<Self>, SetupError> {
        match Self::connect(options.clone()).await {
            Err(ConnectError::NotSetUp { .. }) => {}
            done => return Ok(done?),
        }
        match setup(&options, settings, OnDifference::Refuse).await {
            // Somebody else has set it up meanwhile, with settings of their own: those are the factory's.
            Ok(_) => Ok(Self::connect(options).await?),
            Err(SetupError::Differs(differences)) => match Self::connect(options).await {
                // What stands is only a part, and another's: who is told to set it up would only be told this.
                Err(ConnectError::NotSetUp { .. }) => Err(SetupError::Differs(differences)),
                done => Ok(done?),
            },
            Err(error) => Err(error),
        }
    }

    /// What is the same for every node of the factory.
    pub fn settings(&self) -> &FactorySettings {
        &self.settings
    }

    /// How much was sent so far.
    pub fn counts(&self) -> Counts {
        self.counters.counts()
    }

    /// The connection to publish the next message over.
    pub(crate) fn publisher(&self) -> &Arc<Connection> {
        let next = self.next_publishing.fetch_add(1, Ordering::Relaxed);
        // There is one at least.
        &self.publishing[next % self.publishing.len()]
    }

    /// The connection for requests: reads, records, settings.
    pub(crate) fn asker(&self) -> &Arc<Connection> {
        &self.publishing[0]
    }

    /// The connections to consume over.
    pub(crate) fn consuming(&self) -> &[Arc<Connection>] {
        &self.consuming
    }

    /// Waits until everything that was settled so far is confirmed.
    pub(crate) async fn confirm_settled(&self) -> Result<()> {
        let patience = self.link.request_timeout;
        let settled = self.consuming.iter().map(|connection| connection.settled(patience));
        if futures::future::join_all(settled).await.into_iter().all(|settled| settled) {
            Ok(())
        } else {
            Err(BrokerError::retryable("confirm what was settled", Unanswered::TimedOut(patience)))
        }
    }

    /// A round trip, after which the server knows of everything that was sent over `connection` before.
    pub(crate) async fn round_trip(&self, connection: &Connection) -> Result<Duration> {
        round_trip(connection, &self.layout).await
    }
}

/// A round trip, by what every role may ask.
pub(crate) async fn round_trip(connection: &Connection, layout: &Layout) -> Result<Duration> {
    let subject = format!("$JS.API.DIRECT.GET.{}.{}", layout.state_stream, layout.record_subject(Layout::FACTORY));
    let sent = Instant::now();
    let answered = connection.ask(&subject, Bytes::new(), NobodyThere::AskAgain).await;
    answered.map(|_| sent.elapsed()).map_err(|error| error.into_broker("answer a ping"))
}

impl Broker for NatsBroker {
    fn ping(&self) -> BoxFuture<'_, Duration> {
        Box::pin(self.round_trip(self.asker()))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let settled = self.confirm_settled().await;
            let connections = self.publishing.iter().chain(&self.consuming);
            futures::future::join_all(connections.map(|connection| connection.close())).await;
            settled
        })
    }
}
