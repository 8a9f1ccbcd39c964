//! One examination: what was asked, and what was found so far.

use std::time::{Duration, Instant};

use wf_nats::CheckupError;
use wf_schema::config::{BrokerUrl, Config, Loaded, Loader, Profile, ProfileSetting, Span};

use super::judge;
use super::measured::{LinkNumbers, ProfileNames};
use super::steps::Steps;
use super::{Check, Finding, Measured, Questions, Report, RoundTrips};

/// How long it is tried to connect, unless somebody has set it: who asks how a broker is does not want to wait for it.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Pings, at most.
const PINGS: usize = 50;

/// From one ping to the next, at least: jitter shows over time.
const PING_EVERY: Duration = Duration::from_millis(20);

/// How long pings go on, at most,
const PING_WITHIN: Duration = Duration::from_secs(3);

/// but for so many in any case.
const LEAST_PINGS: usize = 5;

/// How many may get no answer before no more are sent.
const MOST_LOST: usize = 2;

/// One examination.
pub(super) struct Examination<'a> {
    pub(super) loader: &'a Loader,
    pub(super) loaded: &'a Loaded,
    pub(super) questions: &'a Questions,
    pub(super) steps: Steps,
    pub(super) measured: Measured,
    pub(super) reached: Option<bool>,
    findings: Vec<Finding>,
}

impl<'a> Examination<'a> {
    pub(super) fn new(loader: &'a Loader, loaded: &'a Loaded, questions: &'a Questions, steps: Steps) -> Self {
        Self { loader, loaded, questions, steps, measured: Measured::default(), reached: None, findings: Vec::new() }
    }

    /// Looks at everything.
    pub(super) async fn run(&mut self) {
        self.found(judge::config::loaded(self.loaded));
        match self.config().broker().url.clone() {
            BrokerUrl::Nats(urls) => self.nats(&urls).await,
            BrokerUrl::Embedded(path) => self.embedded(&path).await,
            BrokerUrl::Memory => self.memory(),
        }
    }

    /// All that was found so far.
    pub(super) fn report(self) -> Report {
        let broker = self.config().broker().url.to_string();
        Report::new(Some(broker), self.reached, self.findings, self.measured)
    }

    pub(super) fn config(&self) -> &'a Config {
        &self.loaded.config
    }

    /// The configuration to connect with.
    pub(super) fn connecting(&self) -> Config {
        impatient(self.loader, self.loaded)
    }

    /// The configuration that nodes have on a link with these round trips.
    pub(super) fn on_link(&self, trips: &RoundTrips) -> Config {
        let auto = self.config().profile_setting() == ProfileSetting::Auto;
        let measured = auto.then(|| self.loader.clone().measured(trips.min()).load().ok()).flatten();
        measured.map_or_else(|| self.config().clone(), |loaded| loaded.config)
    }

    /// Whether any of `checks` was asked for.
    pub(super) fn wants(&self, checks: &[Check]) -> bool {
        let only = &self.questions.only;
        only.is_empty() || checks.iter().any(|check| only.contains(check))
    }

    /// Takes note of `finding`, if its check was asked for.
    pub(super) fn found(&mut self, finding: Finding) {
        if self.wants(&[finding.check]) {
            self.findings.push(finding);
        }
    }

    /// Takes note of `finding`, for without it nothing else can be understood.
    pub(super) fn must_know(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    pub(super) fn found_all(&mut self, findings: impl IntoIterator<Item = Finding>) {
        findings.into_iter().for_each(|finding| self.found(finding));
    }

    /// Pings the broker, one after another. `None` when nothing came back; that is then among the findings.
    pub(super) async fn pings(&mut self, ping: impl AsyncFn() -> Result<Duration, CheckupError>) -> Option<RoundTrips> {
        let until = Instant::now() + PING_WITHIN;
        let (mut trips, mut lost, mut last) = (Vec::new(), 0, None);
        while trips.len() < PINGS && lost < MOST_LOST && (trips.len() < LEAST_PINGS || Instant::now() < until) {
            self.steps.now(format!("pinging the broker ({} of {PINGS})", trips.len() + 1));
            let sent = tokio::time::Instant::now();
            match ping().await {
                Ok(trip) => trips.push(trip),
                Err(error) => (lost, last) = (lost + 1, Some(error)),
            }
            tokio::time::sleep_until(sent + PING_EVERY).await;
        }
        let trips = RoundTrips::new(trips);
        match (&trips, &last) {
            (Some(trips), _) => {
                self.measured.link = Some(LinkNumbers::of(trips, lost));
                self.found(judge::link::link(trips, lost));
            }
            (None, Some(error)) => self.found(judge::untold(Check::Link, "the link", error)),
            (None, None) => {}
        }
        trips
    }

    /// Names the profile that fits a link with these round trips.
    pub(super) fn profile(&mut self, trips: &RoundTrips) {
        self.profiles(self.on_link(trips).profile(), judge::profile::fitting(trips));
        self.found(judge::profile::profile(trips, self.config()));
    }

    /// Names the profile that fits a broker inside the process.
    pub(super) fn profile_inside(&mut self) {
        self.profiles(self.config().profile(), Profile::Local);
        self.found(judge::profile::inside(self.config()));
    }

    fn profiles(&mut self, in_force: Profile, fits: Profile) {
        let set = match self.config().profile_setting() {
            ProfileSetting::Auto => "auto".to_owned(),
            ProfileSetting::Fixed(profile) => profile.to_string(),
        };
        self.measured.profile = Some(ProfileNames { set, in_force: in_force.to_string(), fits: fits.to_string() });
    }
}

/// The configuration with a short deadline to connect, unless somebody has set it.
fn impatient(loader: &Loader, loaded: &Loaded) -> Config {
    let unchanged = || loaded.config.clone();
    if loaded.rows().iter().any(|row| row.key == "broker.connect_deadline" && row.changed) {
        return unchanged();
    }
    // One attempt has to fit into it.
    let timeout = loaded.config.broker().connect_timeout.min(CONNECT_DEADLINE);
    let flags = [("broker.connect_deadline", CONNECT_DEADLINE), ("broker.connect_timeout", timeout)];
    let sooner = loader.clone().flags(flags.map(|(key, time)| (key, Span::from(time).to_string()))).load();
    sooner.map_or_else(|_| unchanged(), |loaded| loaded.config)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn connecting_is_given_up_soon_unless_somebody_wants_it_otherwise() {
        for (profile, more, deadline, timeout) in [
            ("local", None, 5_000, 5_000),
            ("wan", None, 5_000, 5_000),
            ("wan", Some(("broker.connect_timeout", "2 s")), 5_000, 2_000),
            ("wan", Some(("broker.connect_deadline", "20 s")), 20_000, 15_000),
        ] {
            let loader = Loader::new().flags([("profile", profile)]).flags(more);
            let config = impatient(&loader, &loader.load().unwrap());
            let broker = config.broker();
            let found = (broker.connect_deadline.as_millis() as u64, broker.connect_timeout.as_millis() as u64);
            assert_eq!(found, (deadline, timeout), "{profile} {more:?}");
        }
    }
}
