//! Loading: from the file, the environment and the command line to one checked configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use figment::Figment;

use super::broker_url::BrokerUrl;
use super::check;
use super::error::{ConfigError, Warning};
use super::knob::{PROFILE, knobs};
use super::layer;
use super::profile::{Profile, ProfileSetting};
use super::read::{Reader, Row};
use super::sections::Config;
use super::span::Span;

/// Gathers the sources of settings and makes a [`Config`] of them. Looks at nothing that it was not given, so a test
/// needs no environment of its own; [`Loader::of_process`] is what a program starts from.
#[derive(Clone, Debug, Default)]
pub struct Loader {
    file: Option<PathBuf>,
    directory: Option<PathBuf>,
    env: BTreeMap<String, String>,
    flags: BTreeMap<String, String>,
    rtt: Option<Duration>,
}

/// A configuration, and what there is to say about it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// The settings in force.
    pub config: Config,
    /// What looks like a mistake but harms nothing; for the program to log.
    pub warnings: Vec<Warning>,
    rows: Vec<Row>,
}

impl Loader {
    /// A loader without any source: the defaults of profile local.
    pub fn new() -> Self {
        Self::default()
    }

    /// A loader with what this process was started with: its environment and `wf.toml` in its working directory.
    pub fn of_process() -> Self {
        // A value that is not UTF-8 comes through damaged, and is then refused where it matters.
        let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        Self::new().directory(".").env(std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))))
    }

    /// The file that the command line names, if it does. It must exist. Without one, the file is what `WF_CONFIG`
    /// says, then `wf.toml` in [`Loader::directory`] if there is one.
    #[must_use]
    pub fn file(mut self, file: Option<PathBuf>) -> Self {
        self.file = file;
        self
    }

    /// Where to look for `wf.toml` when no file is named. The default is nowhere.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Environment variables, added to those given before; only those that start with `WF_` are looked at.
    #[must_use]
    pub fn env<N: Into<String>, V: Into<String>>(mut self, variables: impl IntoIterator<Item = (N, V)>) -> Self {
        self.env.extend(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// What the command line sets, as keys and values (`batch.linger`, `2 ms`), added to what was given before.
    #[must_use]
    pub fn flags<K: Into<String>, V: Into<String>>(mut self, flags: impl IntoIterator<Item = (K, V)>) -> Self {
        self.flags.extend(flags.into_iter().map(|(key, value)| (key.into(), value.into())));
        self
    }

    /// The measured time of a round trip to the broker, which decides the profile where `profile` is `auto`.
    ///
    /// A program loads once, connects with that, measures, and loads again. Until then `auto` stands for local with
    /// a broker inside the process, and for wan, which is patient when it connects, with any other; for the settings
    /// of connections (`broker`, `pull`) it does so for good, since they cannot change while one lives.
    #[must_use]
    pub fn measured(mut self, rtt: Duration) -> Self {
        self.rtt = Some(rtt);
        self
    }

    /// Merges the sources and checks every value, alone and against the others.
    ///
    /// # Errors
    /// When the file cannot be read, a key is not known, or a value cannot be. All that is wrong with keys and values
    /// is told at once.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let mut problems = Vec::new();
        let mut warnings = Vec::new();
        let mut sources = Figment::new();
        if let Some((path, named_by)) = self.chosen_file() {
            sources = sources.merge(layer::file(&path, named_by, &mut problems)?);
        }
        let sources = sources.merge(layer::environment(&self.env, &mut warnings)).merge(layer::flags(&self.flags, &mut problems));

        // The profile comes first, because the other defaults depend on it. If it is wrong, what follows is judged
        // under the default one.
        let mut reader = Reader::new(&sources, Profile::default());
        let setting = reader.take(&PROFILE).unwrap_or(ProfileSetting::Fixed(Profile::default()));
        let profile = self.settle(setting, &sources);
        let mut rows = reader.rows;
        problems.append(&mut reader.problems);
        if let (ProfileSetting::Auto, Some(row)) = (setting, rows.first_mut()) {
            row.value = match self.rtt {
                Some(rtt) => format!("auto ({profile}: round trip {})", Span::from(rtt)),
                None => format!("auto ({profile} until measured)"),
            };
        }

        let mut reader = Reader::new(&sources, profile).lasting(lasting(setting, profile, &sources));
        let config = Config::read(setting, profile, &mut reader);
        rows.append(&mut reader.rows);
        problems.append(&mut reader.problems);
        if let Some(config) = &config {
            problems.extend(check::conflicts(config, &rows));
        }
        match config {
            Some(config) if problems.is_empty() => Ok(Loaded { config, warnings, rows }),
            _ => Err(ConfigError::of(problems)),
        }
    }

    fn chosen_file(&self) -> Option<(PathBuf, &'static str)> {
        if let Some(path) = &self.file {
            return Some((path.clone(), "from the command line"));
        }
        if let Some(path) = self.env.get("WF_CONFIG").filter(|path| !path.is_empty()) {
            return Some((path.into(), "from environment WF_CONFIG"));
        }
        let path = self.directory.as_ref()?.join("wf.toml");
        path.exists().then_some((path, "found in the working directory"))
    }

    fn settle(&self, setting: ProfileSetting, sources: &Figment) -> Profile {
        match (setting, self.rtt) {
            (ProfileSetting::Fixed(profile), _) => profile,
            (ProfileSetting::Auto, Some(rtt)) => Profile::for_rtt(rtt),
            (ProfileSetting::Auto, None) => unmeasured(sources),
        }
    }
}

/// The profile of what cannot change on a living connection. Under `auto` that outlives the link it was made for.
fn lasting(setting: ProfileSetting, profile: Profile, sources: &Figment) -> Profile {
    match setting {
        ProfileSetting::Fixed(_) => profile,
        ProfileSetting::Auto => unmeasured(sources),
    }
}

/// The profile under `auto` as long as nobody knows the link: patient, if there is one.
fn unmeasured(sources: &Figment) -> Profile {
    let url = knobs().find(|knob| knob.key == "broker.url");
    match url.and_then(|knob| Reader::new(sources, Profile::default()).take(knob)) {
        Some(BrokerUrl::Nats(_)) => Profile::Wan,
        _ => Profile::Local,
    }
}

impl Loaded {
    /// Every setting as it is shown, in the order of the documentation.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The settings that differ from what they would be under this profile if nobody had said anything.
    pub fn diff(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.changed)
    }
}
