//! Profiles: the sets of tuned values, one for each kind of network.

use std::fmt;
use std::time::Duration;

use super::setting::Setting;

/// A kind of network between a node and its broker, and with it a set of tuned values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Profile {
    /// The same machine or rack: a round trip takes at most a millisecond.
    #[default]
    Local,
    /// The same site: about 10 ms.
    Lan,
    /// Another continent: about 100 ms.
    Wan,
    /// 100 ms and more, with jitter and drops.
    Wireless,
}

impl Profile {
    /// All profiles, the nearest first. The defaults of a knob are listed in this order.
    pub const ALL: [Self; 4] = [Self::Local, Self::Lan, Self::Wan, Self::Wireless];

    /// The profile's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Lan => "lan",
            Self::Wan => "wan",
            Self::Wireless => "wireless",
        }
    }

    /// What the profile is meant for, in round-trip time.
    pub const fn meant_for(self) -> &'static str {
        match self {
            Self::Local => "<= 1 ms",
            Self::Lan => "10 ms",
            Self::Wan => "100 ms",
            Self::Wireless => "100+ ms, jitter, drops",
        }
    }

    /// The profile for a link on which a round trip takes `rtt`; between two profiles the geometric middle decides.
    ///
    /// Never [`Profile::Wireless`]: that is a matter of jitter and drops, which one time does not show.
    pub fn for_rtt(rtt: Duration) -> Self {
        match rtt {
            rtt if rtt < Duration::from_millis(3) => Self::Local,
            rtt if rtt < Duration::from_millis(30) => Self::Lan,
            _ => Self::Wan,
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What the setting `profile` may say: a profile, or that the link is to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProfileSetting {
    /// This profile.
    Fixed(Profile),
    /// The one that fits the link, as it is measured at start and from then on: see [`super::Loader::measured`].
    Auto,
}

impl Setting for ProfileSetting {
    const EXPECTED: &'static str = "one of local, lan, wan, wireless, auto";

    fn parse(text: &str) -> Option<Self> {
        if text == "auto" {
            return Some(Self::Auto);
        }
        Profile::ALL.into_iter().find(|profile| profile.as_str() == text).map(Self::Fixed)
    }

    fn shown(&self) -> String {
        match self {
            Self::Fixed(profile) => profile.to_string(),
            Self::Auto => "auto".to_owned(),
        }
    }
}
