//! Knobs: everything that is known about a setting, in one place. What is read, checked, shown and documented is
//! derived from here.

use super::origin::Origin;
use super::profile::{Profile, ProfileSetting};
use super::sections::SECTIONS;
use super::setting::Setting;

/// One setting: what it is called, what it may be and what it is if nobody says anything.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Knob {
    /// Its name: `section.name`, as in the file.
    pub key: &'static str,
    /// Its value by default.
    pub default: DefaultValue,
    /// The least and the most it may be, both included.
    pub limits: Option<(&'static str, &'static str)>,
    /// What a text must be to be its value.
    pub expected: &'static str,
    pub(super) doc: &'static str,
    pub(super) judge: fn(&str) -> Option<Judged>,
}

/// The default of a knob.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum DefaultValue {
    /// The same in every profile.
    Same(&'static str),
    /// One for each profile, in the order of [`Profile::ALL`].
    PerProfile([&'static str; Profile::ALL.len()]),
}

impl DefaultValue {
    /// The default under `profile`.
    pub fn under(&self, profile: Profile) -> &'static str {
        match *self {
            Self::Same(value) => value,
            Self::PerProfile([local, lan, wan, wireless]) => match profile {
                Profile::Local => local,
                Profile::Lan => lan,
                Profile::Wan => wan,
                Profile::Wireless => wireless,
            },
        }
    }

    /// Where the default under `profile` comes from.
    pub(super) fn origin(&self, profile: Profile) -> Origin {
        match self {
            Self::Same(_) => Origin::Default,
            Self::PerProfile(_) => Origin::Profile(profile),
        }
    }
}

impl Knob {
    /// The environment variable that sets it: `WF_SECTION_NAME`.
    pub fn env(&self) -> String {
        format!("WF_{}", self.key.to_ascii_uppercase().replace('.', "_"))
    }

    /// What it is for, in a sentence or two.
    pub fn why(&self) -> &'static str {
        self.doc.trim_start()
    }

    /// Whether its value lasts as long as a connection to the broker: with the profile `auto` it cannot follow the
    /// link, so it has to suit every link.
    pub(super) fn lasts(&self) -> bool {
        matches!(self.key.split_once('.'), Some(("broker" | "pull", _)))
    }

    /// Whether `text` is out of its limits, and if so what they are.
    pub(super) fn out_of_limits(&self, measure: Option<u64>) -> Option<(&'static str, &'static str)> {
        let (min, max) = self.limits?;
        let bound = |text| (self.judge)(text).and_then(|judged| judged.measure);
        let measure = measure?;
        let fits = bound(min).is_none_or(|min| min <= measure) && bound(max).is_none_or(|max| measure <= max);
        (!fits).then_some((min, max))
    }
}

/// A text that is a knob's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) shown: String,
    pub(super) measure: Option<u64>,
}

pub(super) fn judge<T: Setting>(text: &str) -> Option<Judged> {
    T::parse(text).map(|value| Judged { shown: value.shown(), measure: value.measure() })
}

/// A section of the configuration.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Section {
    /// Its name in the file.
    pub name: &'static str,
    pub(super) doc: &'static str,
    /// Its knobs.
    pub knobs: &'static [Knob],
}

impl Section {
    /// What it is about.
    pub fn about(&self) -> &'static str {
        self.doc.trim_start()
    }
}

/// The one knob outside all sections, settled before them because it decides their defaults.
pub static PROFILE: Knob = Knob {
    key: "profile",
    default: DefaultValue::Same("local"),
    limits: None,
    expected: ProfileSetting::EXPECTED,
    doc: "The kind of network between this node and its broker: decides the defaults of everything below. `auto` \
          measures the link to a NATS server, at start and then all the time, and follows it without a restart: it takes \
          local, lan or wan by the round trip, and makes the publish window and the prefetch as large as the link's \
          rate needs, up to that profile's values. What somebody has set stays as it is. The `broker` and `pull` \
          settings cannot change on a living connection: with `auto` they are \
          those of wan, which suit near servers too. What the factory shares is never touched.",
    judge: judge::<ProfileSetting>,
};

/// Every knob there is.
pub fn knobs() -> impl Iterator<Item = &'static Knob> {
    std::iter::once(&PROFILE).chain(SECTIONS.iter().flat_map(|section| section.knobs))
}

/// The one of `known` that `text` was most likely meant to be, if any is near. A name that is right but for its
/// section counts as near.
pub(super) fn nearest(text: &str, known: impl Iterator<Item = String>, separator: char) -> Option<String> {
    const LONGEST: usize = 80;
    // The distance costs time in the product of the lengths, and the text is anybody's.
    if text.len() > LONGEST {
        return None;
    }
    let last = |text: &str| text.rsplit(separator).next().unwrap_or_default().to_owned();
    let distance = |known: &str| {
        let misplaced = separator == '.' && !last(text).is_empty() && last(text) == last(known);
        if misplaced { 1 } else { strsim::osa_distance(text, known) }
    };
    known
        .map(|known| (distance(&known), known))
        .filter(|(far, known)| *far <= known.len().min(text.len()) / 3)
        .min()
        .map(|(_, known)| known)
}
