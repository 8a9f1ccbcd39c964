//! The broker: its connections, and the roles of the contract over them.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio_util::task::AbortOnDropHandle;
use wf_broker::{BoxFuture, Broker, BrokerError, Gate, Result, Window};
use wf_schema::follow_clock;

use crate::clock;
use crate::connect::{ConnectError, connect};
use crate::connection::Connection;
use crate::control::StatsCache;
use crate::counters::{Counters, Counts};
use crate::dead::DeadWatch;
use crate::doubt;
use crate::exchange::{NobodyThere, Unanswered};
use crate::factory::FactorySettings;
use crate::home::Home;
use crate::lane_consumers::LaneConsumers;
use crate::layout::Layout;
use crate::lease::Ends;
use crate::options::{LinkSettings, NatsOptions};
use crate::orphans::Orphans;
use crate::setup::{OnDifference, SetupError, bind, setup};
use crate::source::Flows;
use crate::stale_logs::StaleLogs;

/// A factory's broker over JetStream.
///
/// Publishing and consuming have connections of their own, so that neither waits behind the other.
pub struct NatsBroker {
    pub(crate) layout: Layout,
    pub(crate) settings: FactorySettings,
    /// What ends of logs are made with.
    pub(crate) ends: Arc<Ends>,
    pub(crate) link: LinkSettings,
    pub(crate) counters: Arc<Counters>,
    pub(crate) consumers: Arc<LaneConsumers>,
    pub(crate) stats: StatsCache,
    pub(crate) flows: Arc<Flows>,
    pub(crate) dead: Arc<DeadWatch>,
    /// Whoever sweeps orphans, since something was first consumed.
    sweeping: OnceLock<AbortOnDropHandle<()>>,
    name: String,
    /// What may be published and not answered yet, over all connections and by everybody in this process: publishers,
    /// and an executor's records, retries and dead letters.
    pub(crate) window: Gate,
    publishing: Vec<Arc<Connection>>,
    consuming: Vec<Arc<Connection>>,
    _clock: AbortOnDropHandle<()>,
    /// Who looks up what is held back, for each connection to consume over.
    _looking: Vec<AbortOnDropHandle<()>>,
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
        let home = Arc::new(Home::start().map_err(ConnectError::Thread)?);
        let consuming = (0..options.link.connections).map(|_| open_at(&home, &options, deadline, &counters));
        let (rest, consuming) =
            futures::future::try_join(futures::future::try_join_all(rest), futures::future::try_join_all(consuming)).await?;
        let acked = Arc::default();
        let shared = |connections: Vec<(Connection, String)>| {
            connections.into_iter().map(|(connection, _)| Arc::new(connection.sharing(&acked))).collect::<Vec<_>>()
        };
        let link = options.link;
        let consuming =
            shared(consuming.into_iter().map(|(connection, address)| (connection.living_at(&home), address)).collect());
        futures::future::join_all(consuming.iter().map(|connection| connection.meet(&options.layout))).await;
        // Before anything is dated.
        clock::ask(&first, &options.layout).await.map(follow_clock);
        let first = Arc::new(first);
        let clock = AbortOnDropHandle::new(tokio::spawn(clock::keep_asking(first.clone(), options.layout.clone())));
        tracing::info!(broker = options.name, lease_s = settings.lease.as_secs_f32(), "connected to the factory's broker");
        // Whoever lost a run to another has noticed by then, or asks whether its message is there.
        let window = settings.dedup_window.max(2 * settings.lease);
        let looking = consuming.iter().filter_map(|connection| {
            let looking = doubt::keep_looking(connection.clone(), options.layout.clone());
            // Where renewals are sent from: no handler can hold them up.
            Some(AbortOnDropHandle::new(home.handle()?.spawn(looking)))
        });
        Ok(Arc::new(Self {
            _looking: looking.collect(),
            ends: Arc::new(Ends { layout: options.layout.clone(), window }),
            consumers: Arc::new(LaneConsumers::new(options.layout.clone(), settings.clone())),
            dead: Arc::new(DeadWatch::new(counters.clone())),
            layout: options.layout,
            settings,
            counters,
            stats: StatsCache::default(),
            flows: Arc::default(),
            sweeping: OnceLock::new(),
            name: options.name,
            window: Gate::new(Window { bytes: link.publish_bytes, messages: link.publish_messages }),
            publishing: std::iter::once(first).chain(shared(rest)).collect(),
            consuming,
            link,
            _clock: clock,
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

    /// What lets messages into the publish window: to see how full it is, and to change it while it is in use.
    pub fn window(&self) -> &Gate {
        &self.window
    }

    /// The connection to publish the next message over: the one that has least unanswered, in bytes, so that nothing
    /// waits behind a large message, or a link that has stalled, while another is free. One that is down comes last.
    pub(crate) fn publisher(&self) -> &Arc<Connection> {
        let load = |connection: &&Arc<Connection>| (!connection.is_up(), connection.unanswered());
        // There is one at least.
        self.publishing.iter().min_by_key(load).unwrap_or(&self.publishing[0])
    }

    /// The connection for requests: reads, records, settings.
    pub(crate) fn asker(&self) -> &Arc<Connection> {
        &self.publishing[0]
    }

    /// The connections to consume over.
    pub(crate) fn consuming(&self) -> &[Arc<Connection>] {
        &self.consuming
    }

    /// Sees to it that orphans of the lanes that are consumed from are swept, and stale logs ended.
    pub(crate) fn sweep_orphans(&self) {
        self.sweeping.get_or_init(|| {
            let orphans = Orphans {
                layout: self.layout.clone(),
                asker: self.asker().clone(),
                listener: self.consuming[0].clone(),
                flows: self.flows.clone(),
                lease: self.settings.lease,
                name: self.name.clone(),
                suspects: HashSet::new(),
                names_denied: false,
            };
            let stale = StaleLogs { asker: self.asker().clone(), ends: self.ends.clone(), from: 1 };
            AbortOnDropHandle::new(tokio::spawn(async {
                tokio::join!(orphans.keep_sweeping(), stale.keep_ending());
            }))
        });
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

/// Measuring the link.
impl NatsBroker {
    /// One round trip as [`Broker::ping`], that takes `bytes` along to the server (at most what a message may have):
    /// what it takes longer than one without tells the rate of the link. Nothing is stored.
    ///
    /// # Errors
    /// `Retryable` when no answer came within the request timeout.
    pub async fn ping_with(&self, bytes: usize) -> Result<Duration> {
        carry(self.asker(), &self.layout, bytes.min(self.largest())).await
    }

    /// One round trip over each connection that deliveries come over: the longest. Answers wait behind deliveries, so
    /// this is also how long what the server sends next is under way.
    ///
    /// # Errors
    /// As [`Broker::ping`].
    pub async fn ping_deliveries(&self) -> Result<Duration> {
        let trips = self.consuming.iter().map(|connection| self.round_trip(connection));
        Ok(futures::future::try_join_all(trips).await?.into_iter().max().unwrap_or_default())
    }
}

/// Opens a connection to consume over, with all its tasks on the thread that is `home`.
async fn open_at(
    home: &Home,
    options: &NatsOptions,
    deadline: Instant,
    counters: &Arc<Counters>,
) -> Result<(Connection, String), ConnectError> {
    let ended = || ConnectError::Thread(std::io::Error::other("it has ended"));
    let (options, counters) = (options.clone(), counters.clone());
    let opening = async move { connect(&options, "consume", deadline, &counters).await };
    home.handle().ok_or_else(ended)?.spawn(opening).await.map_err(|_| ended())?
}

/// A round trip, by what every role may ask.
pub(crate) async fn round_trip(connection: &Connection, layout: &Layout) -> Result<Duration> {
    carry(connection, layout, 0).await
}

/// The same, for one who waits up to `patience` for it: behind much that is on its way here it may take long, which
/// says nothing about the link.
pub(crate) async fn round_trip_within(connection: &Connection, layout: &Layout, patience: Duration) -> Result<()> {
    let what = format!("DIRECT.GET.{}.{}", layout.state_stream, layout.record_subject(Layout::FACTORY));
    let answered = connection.ask_within(&connection.api_subject(&what), patience).await;
    answered.map(|_| ()).map_err(|error| error.into_broker("answer a ping"))
}

/// A round trip with `bytes` on the way there. What the server thinks of them does not matter: it answers, be it that
/// it expected none.
async fn carry(connection: &Connection, layout: &Layout, bytes: usize) -> Result<Duration> {
    let subject = format!("DIRECT.GET.{}.{}", layout.state_stream, layout.record_subject(Layout::FACTORY));
    let subject = connection.api_subject(&subject);
    let sent = Instant::now();
    let answered = connection.ask(&subject, vec![b' '; bytes].into(), NobodyThere::AskAgain).await;
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
