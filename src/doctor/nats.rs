//! Looking a factory on NATS over.

use std::time::{Duration, Instant};

use wf_nats::{Checkup, CheckupError, ConnectError, Direction, LayoutFacts, Rate, RatePlan, ServerVars};
use wf_schema::config::Config;
use wf_schema::now;

use super::examination::Examination;
use super::finding::{said, shown};
use super::host::HostFacts;
use super::judge;
use super::judge::account::Needs;
use super::judge::windows::Held;
use super::measured::{ClockNumbers, RateNumbers, SyncNumbers, WindowNumbers};
use super::{Check, Finding, RoundTrips};
use crate::settings;

/// How long the clock is read.
const CLOCK_WITHIN: Duration = Duration::from_secs(2);

/// How long a rate is measured, at least: a long link takes longer to fill.
const RATE_WITHIN: Duration = Duration::from_secs(2);

/// How long a rate is measured, at most.
const RATE_LONGEST: Duration = Duration::from_secs(4);

/// Round trips that it takes to fill a link.
const TO_FILL: u32 = 12;

/// The bytes that measuring a rate moves, at most.
const RATE_BYTES: u64 = 128 << 20;

/// Stores that are timed, at most,
const STORES: usize = 12;

/// and for how long.
const STORE_WITHIN: Duration = Duration::from_secs(2);

/// The consumers of a queue: two for each priority.
const CONSUMERS: u64 = 6;

/// The checks that need to know how the factory stands.
const OF_THE_LAYOUT: &[Check] =
    &[Check::Account, Check::Setup, Check::Streams, Check::Replicas, Check::Capacity, Check::Consumers, Check::Lanes];

/// The checks that need to know how long a round trip takes.
const OF_THE_LINK: &[Check] = &[Check::Link, Check::Rate, Check::Connections, Check::Profile, Check::Windows, Check::Host];

/// The checks that need to know what the link carries.
const OF_THE_RATE: &[Check] = &[Check::Rate, Check::Connections, Check::Windows, Check::Host];

impl Examination<'_> {
    /// A factory on the servers at `urls`.
    pub(super) async fn nats(&mut self, urls: &[String]) {
        self.steps.now("connecting to the broker");
        let Some(checkup) = self.connect(urls).await else { return };
        if self.wants(OF_THE_LAYOUT) {
            self.layout(&checkup).await;
        }
        self.durability(&checkup).await;
        if self.wants(&[Check::Clock]) {
            self.steps.now("reading the clock");
            let reading = checkup.clock(CLOCK_WITHIN).await;
            self.measured.clock = reading.as_ref().ok().map(ClockNumbers::of);
            self.found(judge::clock::clock(&reading));
        }
        if self.wants(OF_THE_LINK)
            && let Some(trips) = self.pings(async || checkup.ping().await).await
        {
            self.profile(&trips);
            self.carries(&checkup, &trips).await;
        }
        checkup.close().await;
    }

    /// Connects to each of the servers: the first that is reached is looked at. What there is to say about the others
    /// is said.
    async fn connect(&mut self, urls: &[String]) -> Option<Checkup> {
        let config = self.connecting();
        let options = urls.iter().map(|url| settings::nats(&config, std::slice::from_ref(url))).collect::<Result<Vec<_>, _>>();
        let options = match options {
            Ok(options) => options,
            Err(error) => {
                self.must_know(Finding::problem(Check::Server, said(&error)));
                return None;
            }
        };
        let tried = options.into_iter().map(async |options| {
            let began = Instant::now();
            (Checkup::connect(options).await, began.elapsed())
        });
        let tried = futures::future::join_all(tried).await;
        let any = tried.iter().any(|(reached, _)| reached.is_ok());
        // One that is too old has answered.
        let answered = |error: &ConnectError| matches!(error, ConnectError::TooOld { .. });
        self.reached = Some(any || tried.iter().any(|(reached, _)| reached.as_ref().is_err_and(answered)));
        let mut first = None;
        for (reached, took) in tried {
            match reached {
                Ok(checkup) => {
                    self.found(judge::server::reached(&checkup.server(), took));
                    match first {
                        None => first = Some(checkup),
                        Some(_) => checkup.close().await,
                    }
                }
                Err(error) => self.must_know(judge::server::refused(&error, any)),
            }
        }
        let server = first.as_ref()?.server();
        self.found(judge::server::payload(&server, self.config()));
        self.measured.server_version = Some(shown(&server.version));
        first
    }

    /// The account, the streams and the consumers.
    async fn layout(&mut self, checkup: &Checkup) {
        let config = self.config();
        let configured = settings::factory(config);
        self.steps.now("looking at the streams");
        let layout = checkup.layout(&configured).await;
        let settings = layout.settings.as_ref().unwrap_or(&configured);
        let queues = &config.executor().queues;
        if self.wants(&[Check::Account]) {
            let account = checkup.account(settings.replicas).await;
            let consumers = CONSUMERS * queues.len() as u64;
            let set_up = layout.settings.is_ok();
            self.found(judge::account::account(&account, &Needs { settings, set_up, consumers }));
        }
        if no_jetstream(&layout) {
            // Said by the check of the account.
            return;
        }
        let setup = judge::layout::setup(&layout);
        self.found(judge::layout::in_domain(setup, &checkup.server(), checkup.domain(), layout.settings.is_ok()));
        if self.wants(&[Check::Setup]) {
            self.found_all(judge::layout::second(checkup.factories().await, layout.settings.is_ok()));
        }
        self.found_all(judge::layout::streams(&layout));
        self.found_all(judge::replicas::replicas(&layout, checkup.server().cluster.is_some()));
        self.found_all(judge::capacity::capacity(&layout, settings.lane_messages.into()));
        if self.wants(&[Check::Consumers]) && layout.settings.is_ok() {
            self.steps.now("looking at the consumers");
            let lanes = checkup.lanes(queues, settings).await;
            self.found_all(judge::consumers::consumers(&lanes));
        }
        if self.wants(&[Check::Lanes]) && layout.settings.is_ok() {
            self.steps.now("looking for lanes that nobody serves");
            self.found_all(judge::lanes::lanes(&checkup.unserved().await, now()));
        }
    }

    /// Whether what was accepted is on disk: as the servers say if they can be asked, else as it seems.
    async fn durability(&mut self, checkup: &Checkup) {
        if !self.wants(&[Check::Durability, Check::Capacity]) {
            return;
        }
        self.steps.now("asking when the servers sync to disk");
        let mut vars = Vec::new();
        for monitor in &self.questions.monitors {
            match monitor.ask().await {
                Ok(told) => {
                    if let Some(unwell) = told.unwell {
                        let finding = Finding::problem(Check::Server, format!("says that it is not well: {}", shown(&unwell)));
                        self.found(
                            finding.of(&monitor.to_string()).advice("see its log; a stream that met an I/O error stays stopped"),
                        );
                    }
                    vars.extend(told.vars);
                }
                Err(error) => {
                    let finding = Finding::warning(Check::Durability, format!("could not be asked: {}", said(&error)));
                    self.found(finding.of(&monitor.to_string()));
                }
            }
        }
        if vars.is_empty() {
            // Some let the factory's own user ask.
            vars = checkup.server_vars().await.unwrap_or_default();
        }
        vars.sort_by(|a: &ServerVars, b| a.server.cmp(&b.server));
        vars.dedup_by(|a, b| a.server == b.server);
        self.found_all(vars.iter().map(judge::durability::told));
        self.found_all(vars.iter().filter_map(judge::capacity::server));
        self.measured.sync = SyncNumbers::told(&vars);
        if vars.is_empty() && self.wants(&[Check::Durability]) {
            self.steps.now("timing how long it takes to store something");
            let times = checkup.store_times(STORES, STORE_WITHIN).await;
            self.measured.sync = times.as_ref().ok().map(SyncNumbers::inferred);
            self.found(judge::durability::inferred(&times));
        }
    }

    /// What the link carries, and what follows from it.
    async fn carries(&mut self, checkup: &Checkup, trips: &RoundTrips) {
        let config = self.on_link(trips);
        let rtt = trips.median();
        if !self.wants(OF_THE_RATE) {
            return;
        }
        let mut best = None;
        if self.questions.rate
            && let Some((up, down)) = self.rate(checkup, rtt).await
        {
            best = Some((up.bytes_per_s, down.bytes_per_s));
            if rtt >= judge::link::LONG
                && self.wants(&[Check::Connections, Check::Windows])
                && let Some((up2, down2)) = self.two(checkup, rtt).await
            {
                let finding = judge::link::connections(
                    (up.bytes_per_s, up2.bytes_per_s),
                    (down.bytes_per_s, down2.bytes_per_s),
                    config.broker().connections,
                );
                self.found(finding);
                best = Some((up.bytes_per_s.max(up2.bytes_per_s), down.bytes_per_s.max(down2.bytes_per_s)));
            }
        }
        let held = best.map(|(up, down)| judge::windows::held(up, down, rtt));
        if let Some(held) = held {
            self.measured.windows = Some(numbers(held, &config));
            self.found(judge::windows::windows(held, &config));
        }
        self.found_all(judge::host::host(&HostFacts::read(), rtt, held, config.broker().connections));
    }

    /// What one connection carries each way, if that can be measured.
    async fn rate(&mut self, checkup: &Checkup, rtt: Duration) -> Option<(Rate, Rate)> {
        self.steps.now("measuring the rate to the broker");
        let up = checkup.rate(Direction::Up, plan(rtt, 1)).await;
        self.steps.now("measuring the rate from the broker");
        let down = checkup.rate(Direction::Down, plan(rtt, 1)).await;
        self.found(judge::link::rate(&up, &down));
        let both = up.ok().zip(down.ok());
        self.measured.rate = both.as_ref().map(|(up, down)| RateNumbers::of(up, down));
        both
    }

    /// What two connections carry each way.
    async fn two(&mut self, checkup: &Checkup, rtt: Duration) -> Option<(Rate, Rate)> {
        self.steps.now("measuring the rates with two connections");
        let up = checkup.rate(Direction::Up, plan(rtt, 2)).await.ok()?;
        let down = checkup.rate(Direction::Down, plan(rtt, 2)).await.ok()?;
        self.measured.two_connections = Some(RateNumbers::of(&up, &down));
        Some((up, down))
    }
}

fn plan(rtt: Duration, connections: u32) -> RatePlan {
    RatePlan { within: (TO_FILL * rtt).clamp(RATE_WITHIN, RATE_LONGEST), bytes: RATE_BYTES, connections }
}

fn numbers(held: Held, config: &Config) -> WindowNumbers {
    WindowNumbers {
        up_holds_bytes: held.up,
        down_holds_bytes: held.down,
        publish_bytes: config.publish().window_bytes.bytes(),
        publish_messages: config.publish().window_messages,
        prefetch_bytes: config.prefetch().bytes.bytes(),
    }
}

/// Whether JetStream is off, so that there can be no streams.
fn no_jetstream(layout: &LayoutFacts) -> bool {
    matches!(&layout.settings, Err(CheckupError::Missing(what)) if what == "JetStream")
}
