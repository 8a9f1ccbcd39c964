//! Reading each knob once: its value, where it came from, and what is wrong with it.

use figment::Figment;
use figment::value::{Num, Value};
use serde::Serialize;

use super::error::{ConfigError, Given};
use super::knob::Knob;
use super::layer;
use super::origin::Origin;
use super::profile::Profile;
use super::setting::Setting;

/// A setting as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Row {
    /// Its key.
    pub key: &'static str,
    /// Its value, with the unit and without secrets.
    pub value: String,
    /// Where the value came from.
    pub origin: Origin,
    /// What it would be under this profile if nobody had said anything.
    pub default: String,
    /// Whether `value` differs from `default`.
    pub changed: bool,
    /// The environment variable that sets it.
    pub env: String,
    /// What it is for.
    pub why: &'static str,
}

/// Takes the values of knobs out of the merged sources, and remembers a row of each and what was wrong.
pub(super) struct Reader<'a> {
    sources: &'a Figment,
    profile: Profile,
    /// The profile of the knobs that [last](Knob::lasts).
    lasting: Profile,
    pub(super) rows: Vec<Row>,
    pub(super) problems: Vec<ConfigError>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(sources: &'a Figment, profile: Profile) -> Self {
        Self { sources, profile, lasting: profile, rows: Vec::new(), problems: Vec::new() }
    }

    /// The same, with `profile` for the knobs whose values last as long as a connection.
    pub(super) fn lasting(mut self, profile: Profile) -> Self {
        self.lasting = profile;
        self
    }

    /// The value of `knob`. `None` when it is not usable, which is then among the problems.
    pub(super) fn take<T: Setting>(&mut self, knob: &Knob) -> Option<T> {
        let profile = if knob.lasts() { self.lasting } else { self.profile };
        let default = knob.default.under(profile);
        let (text, origin) = match self.sources.find_value(knob.key) {
            Ok(value) => (text_of(&value, T::LIST), layer::origin(self.sources.get_metadata(value.tag()), knob)),
            Err(_) => (Ok(default.to_owned()), knob.default.origin(profile)),
        };
        let parsed = text.and_then(|text| T::parse(&text).ok_or(text));
        let value = match parsed {
            Ok(value) => value,
            Err(text) => {
                let given = Given::new(knob.key, &text, origin);
                self.problems.push(ConfigError::Invalid { given, expected: T::EXPECTED });
                return None;
            }
        };
        let shown = value.shown();
        if let Some((min, max)) = knob.out_of_limits(value.measure()) {
            let given = Given::new(knob.key, &shown, origin);
            self.problems.push(ConfigError::OutOfRange { given, min, max });
            return None;
        }
        self.rows.push(Row {
            key: knob.key,
            changed: shown != default,
            value: shown,
            origin,
            default: default.to_owned(),
            env: knob.env(),
            why: knob.why(),
        });
        Some(value)
    }
}

/// The text of a value from TOML or elsewhere, as it would stand in an environment variable; an error with a text to
/// show when it has none.
fn text_of(value: &Value, list: bool) -> Result<String, String> {
    match value {
        Value::String(_, text) => Ok(text.clone()),
        Value::Char(_, char) => Ok(char.to_string()),
        Value::Bool(_, bool) => Ok(bool.to_string()),
        Value::Num(_, number) => Ok(number_text(*number)),
        Value::Array(_, items) if list => {
            Ok(items.iter().map(|item| text_of(item, false)).collect::<Result<Vec<_>, _>>()?.join(","))
        }
        Value::Array(..) => Err("[...]".to_owned()),
        Value::Dict(..) => Err("{...}".to_owned()),
        Value::Empty(..) => Err(String::new()),
    }
}

fn number_text(number: Num) -> String {
    match (number.to_u128(), number.to_i128(), number.to_f64()) {
        (Some(number), _, _) => number.to_string(),
        (_, Some(number), _) => number.to_string(),
        (_, _, Some(number)) => number.to_string(),
        _ => String::new(),
    }
}
