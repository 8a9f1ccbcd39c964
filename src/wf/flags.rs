//! Settings on the command line: each knob is a flag, made from the table of knobs.

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use wf_schema::config::{Knob, knobs};

/// Settings given on the command line, as keys and values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags(Vec<(&'static str, String)>);

/// Knobs with a flag shorter than their key.
const SHORT: [(&str, &str); 5] = [
    ("broker.url", "broker"),
    ("ingest.listen", "listen"),
    ("executor.concurrency", "concurrency"),
    ("executor.queues", "queues"),
    ("log.level", "log"),
];

impl Flags {
    /// The settings, as keys and values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(key, value)| (*key, value.as_str()))
    }
}

fn short(knob: &Knob) -> Option<&'static str> {
    SHORT.iter().find(|(key, _)| *key == knob.key).map(|(_, flag)| *flag)
}

fn long(knob: &Knob) -> String {
    short(knob).map_or_else(|| knob.key.replace(['.', '_'], "-"), str::to_owned)
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        command.args(knobs().map(|knob| {
            // Common ones are shown by -h; all of them by --help.
            let common = short(knob).is_some() || knob.key == "profile";
            Arg::new(knob.key)
                .long(long(knob))
                .value_name("VALUE")
                .help(knob.why())
                .help_heading(if common { "Common settings" } else { "Settings (see docs/configuration.md)" })
                .hide_short_help(!common)
                .global(true)
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = knobs().filter_map(|knob| Some((knob.key, matches.get_one::<String>(knob.key)?.clone())));
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
