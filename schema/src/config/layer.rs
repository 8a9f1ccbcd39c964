//! The sources of settings, each a layer for figment to merge.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Tag, Value};
use figment::{Metadata, Provider, Source};

use super::error::{ConfigError, Warning, cut};
use super::knob::{Knob, knobs, nearest};
use super::origin::Origin;
use super::sections::SECTIONS;

/// Variables that start with `WF_` and are not settings.
const NOT_SETTINGS: [&str; 3] = ["WF_CONFIG", "WF_NATS_SERVER", "WF_BLESS"];

/// The largest configuration file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// What one source says: values by key, all of them known.
#[derive(Debug, Default)]
pub(super) struct Layer {
    name: &'static str,
    source: Option<PathBuf>,
    values: BTreeMap<&'static str, Value>,
}

const FILE: &str = "file";
const ENVIRONMENT: &str = "environment";
const FLAGS: &str = "flags";

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        match &self.source {
            Some(path) => Metadata::from(self.name, Source::File(path.clone())),
            None => Metadata::named(self.name),
        }
    }

    fn data(&self) -> Result<Map<figment::Profile, Dict>, figment::Error> {
        let mut root = Dict::new();
        for (key, value) in &self.values {
            let Some((section, name)) = key.split_once('.') else {
                root.insert((*key).to_owned(), value.clone());
                continue;
            };
            let section = root.entry(section.to_owned()).or_insert_with(|| Value::Dict(Tag::Default, Dict::new()));
            if let Value::Dict(_, section) = section {
                section.insert(name.to_owned(), value.clone());
            }
        }
        Ok(figment::Profile::Default.collect(root))
    }
}

/// Which layer `metadata` is of, told as the origin of `knob`'s value.
pub(super) fn origin(metadata: Option<&Metadata>, knob: &Knob) -> Origin {
    let Some(metadata) = metadata else { return Origin::Default };
    match (metadata.name.as_ref(), &metadata.source) {
        (FILE, Some(Source::File(path))) => Origin::File(path.clone()),
        (ENVIRONMENT, _) => Origin::Environment(knob.env()),
        (FLAGS, _) => Origin::Flag,
        _ => Origin::Default,
    }
}

/// What the file at `path` says.
pub(super) fn file(path: &Path, named_by: &'static str, problems: &mut Vec<ConfigError>) -> Result<Layer, ConfigError> {
    let text = read(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), named_by, source })?;
    let root: Dict =
        Toml::from_str(&text).map_err(|source| ConfigError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
    let mut layer = Layer { name: FILE, source: Some(path.to_owned()), ..Layer::default() };
    let origin = Origin::File(path.to_owned());
    for (name, value) in root {
        let is_section = SECTIONS.iter().any(|section| section.name == name);
        match value {
            Value::Dict(_, settings) => {
                for (setting, value) in settings {
                    layer.insert(&format!("{name}.{setting}"), value, &origin, problems);
                }
            }
            _ if is_section => problems.push(ConfigError::NotASection { section: name, origin: origin.clone() }),
            value => layer.insert(&name, value, &origin, problems),
        }
    }
    Ok(layer)
}

fn read(path: &Path) -> Result<String, std::io::Error> {
    let mut text = String::new();
    let length = std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if length as u64 > MAX_FILE { Err(std::io::Error::other("it is larger than 1 MiB")) } else { Ok(text) }
}

/// What the environment says. A variable that is set to nothing is taken as not set: that is what compose files make
/// of a variable they pass on.
pub(super) fn environment(variables: &BTreeMap<String, String>, warnings: &mut Vec<Warning>) -> Layer {
    let mut layer = Layer { name: ENVIRONMENT, ..Layer::default() };
    for (name, value) in variables.iter().filter(|(name, _)| name.starts_with("WF_")) {
        match knobs().find(|knob| knob.env() == *name) {
            Some(knob) if !value.is_empty() => {
                layer.values.insert(knob.key, Value::from(value.as_str()));
            }
            Some(_) => {}
            None if NOT_SETTINGS.contains(&name.as_str()) => {}
            None => {
                let nearest = nearest(name, knobs().map(Knob::env), '\0');
                warnings.push(Warning::UnknownVariable { name: cut(name), nearest });
            }
        }
    }
    layer
}

/// What the command line says.
pub(super) fn flags(flags: &BTreeMap<String, String>, problems: &mut Vec<ConfigError>) -> Layer {
    let mut layer = Layer { name: FLAGS, ..Layer::default() };
    for (key, value) in flags {
        layer.insert(key, Value::from(value.as_str()), &Origin::Flag, problems);
    }
    layer
}

impl Layer {
    fn insert(&mut self, key: &str, value: Value, origin: &Origin, problems: &mut Vec<ConfigError>) {
        if let Some(knob) = knobs().find(|knob| knob.key == key) {
            self.values.insert(knob.key, value);
        } else {
            let nearest = nearest(key, knobs().map(|knob| knob.key.to_owned()), '.');
            problems.push(ConfigError::UnknownKey { key: cut(key), origin: origin.clone(), nearest });
        }
    }
}
