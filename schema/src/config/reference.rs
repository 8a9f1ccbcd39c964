//! The reference documentation, written from the table.

use std::fmt::Write;

use super::check::RULES;
use super::knob::{DefaultValue, Knob, PROFILE, Section};
use super::profile::Profile;
use super::sections::SECTIONS;

/// A configuration file to start from; part of the reference.
pub const EXAMPLE: &str = r#"# An executor across an ocean.
profile = "wan"

[broker]
url = "tls://broker.example.org:4222"
creds = "/etc/wf/executor.creds"

[prefetch]
bytes = "24 MiB"            # little memory on this machine

[executor]
queues = ["default", "reports"]
concurrency = 200
drain_deadline = "2 min"

[log]
level = "info,wf_nats=debug"
format = "json"
"#;

const HEAD: &str = "\
# Configuration

<!-- Generated from schema/src/config: `WF_BLESS=1 cargo test -p wf-schema --test config_reference` writes it anew. -->

Every setting has a default that fits the network; `profile` says which network that is. `WF_PROFILE=wan` alone is
enough to tune a node. `wf config show` prints every value with where it came from, `wf config diff` only those that
differ from the profile's, `wf config check` says what is wrong.

## Where a value comes from

The strongest source that says anything wins:

1. the command line
2. the environment: `WF_` and the key in capitals, with `_` for the dot (`batch.wire_bytes` is `WF_BATCH_WIRE_BYTES`);
   a variable set to nothing counts as not set
3. the file: the one that `--config FILE` names, or else `WF_CONFIG`, or else `wf.toml` in the working directory
4. the default, which for some settings depends on the profile

The profile is settled first, from the same sources. An unknown key in the file or on the command line is refused; an
unknown `WF_*` variable is a warning, since environments are shared.

Sizes are written `32 KiB` (also `B`, `MiB`, `GiB`, `TiB`, and the decimal `kB`, `MB`, `GB`, `TB`; a bare number is
bytes), times `5 s` (also `us`, `ms`, `min` or `m`, `h`, `d`; the unit is needed), with or without the space. Lists are
arrays in the file and separated by commas elsewhere. `unset` takes back what a weaker source set, where a setting may
be without a value.
";

/// docs/configuration.md, as it has to be.
pub fn reference() -> String {
    let mut text = HEAD.to_owned();
    // Writing to a String does not fail.
    let _ = write_reference(&mut text);
    text
}

fn write_reference(text: &mut String) -> std::fmt::Result {
    writeln!(
        text,
        "\n## Profiles\n\n`profile` (`{}`, by default `{}`): {}\n",
        PROFILE.env(),
        default_of(&PROFILE),
        PROFILE.why()
    )?;
    row(text, ["setting".to_owned()].into_iter().chain(Profile::ALL.map(|profile| profile.to_string())))?;
    row(text, std::iter::repeat_n("---".to_owned(), 1 + Profile::ALL.len()))?;
    row(
        text,
        ["meant for (round trip)".to_owned()].into_iter().chain(Profile::ALL.map(|profile| profile.meant_for().to_owned())),
    )?;
    for knob in SECTIONS.iter().flat_map(|section| section.knobs) {
        if let DefaultValue::PerProfile(defaults) = knob.default {
            row(text, [format!("`{}`", knob.key)].into_iter().chain(defaults.map(str::to_owned)))?;
        }
    }
    text.push_str("\nEverything else is the same in all profiles.\n\n## Settings\n");
    for section in SECTIONS {
        write_section(text, section)?;
    }
    text.push_str("\n## Settings that depend on each other\n\n");
    for rule in RULES {
        writeln!(text, "- `{}` must be {} `{}`: {}.", rule.key, rule.relation, rule.other, rule.why)?;
    }
    writeln!(text, "\n## Example\n\n```toml\n{EXAMPLE}```")
}

fn write_section(text: &mut String, section: &Section) -> std::fmt::Result {
    writeln!(text, "\n### {}\n\n{}\n", section.name, section.about())?;
    row(text, ["key", "variable", "default", "allowed", "what it is"].map(str::to_owned))?;
    row(text, std::iter::repeat_n("---".to_owned(), 5))?;
    for knob in section.knobs {
        let allowed = match knob.limits {
            Some((min, max)) => format!("{min} to {max}"),
            None => knob.expected.to_owned(),
        };
        let cells = [format!("`{}`", knob.key), format!("`{}`", knob.env()), default_of(knob), allowed, knob.why().to_owned()];
        row(text, cells)?;
    }
    Ok(())
}

fn default_of(knob: &Knob) -> String {
    match knob.default {
        DefaultValue::Same(value) => value.to_owned(),
        DefaultValue::PerProfile(_) => "by profile".to_owned(),
    }
}

fn row(text: &mut String, cells: impl IntoIterator<Item = String>) -> std::fmt::Result {
    let cells: Vec<_> = cells.into_iter().map(|cell| cell.replace('|', "\\|")).collect();
    writeln!(text, "| {} |", cells.join(" | "))
}
