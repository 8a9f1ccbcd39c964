//! The profile that fits the link, beside the one that is set.

use wf_schema::config::{Config, Profile, ProfileSetting};

use super::super::{Check, Finding, RoundTrips, units};
use super::link::restless;

/// The profile for a link with these round trips.
pub(in crate::doctor) fn fitting(trips: &RoundTrips) -> Profile {
    // A restless link near by is a full one, which small windows make no better.
    match Profile::for_rtt(trips.min()) {
        Profile::Wan if restless(trips) => Profile::Wireless,
        profile => profile,
    }
}

/// Whether the profile that is set fits a broker inside the process.
pub(in crate::doctor) fn inside(config: &Config) -> Finding {
    let found = "local fits: the broker is inside this process";
    match config.profile() {
        Profile::Local => Finding::ok(Check::Profile, format!("{found}, and it is in force")),
        other => Finding::note(Check::Profile, format!("{found}; {other} is set, for {}", other.meant_for()))
            .advice(set(Profile::Local)),
    }
}

fn set(profile: Profile) -> String {
    format!("set profile = \"{profile}\" (WF_PROFILE={profile}, --profile {profile})")
}

/// Whether the profile that is set fits the link.
pub(in crate::doctor) fn profile(trips: &RoundTrips, config: &Config) -> Finding {
    let fits = fitting(trips);
    let why = match fits {
        Profile::Wireless => format!("{} away, with {} of jitter", units::time(trips.min()), units::time(trips.jitter())),
        _ => format!("the broker is {} away", units::time(trips.min())),
    };
    match config.profile_setting() {
        // What it does about jitter depends on what it sees of it, which may be less than we did.
        ProfileSetting::Auto if fits == Profile::Wireless => {
            Finding::note(Check::Profile, format!("{fits} fits ({why}); auto begins with wan"))
                .advice(format!("if the link is always like this, {}", set(fits)))
        }
        ProfileSetting::Auto => Finding::ok(Check::Profile, format!("{fits} fits ({why}), and auto takes it")),
        ProfileSetting::Fixed(fixed) if fixed == fits => Finding::ok(Check::Profile, format!("{fits} fits ({why}), and is set")),
        // One for a longer way has time-outs and batches that cost a little; one for a shorter way throttles.
        ProfileSetting::Fixed(fixed) if order(fixed) > order(fits) => {
            Finding::note(Check::Profile, format!("{fits} fits ({why}); {fixed} is set, for {}", fixed.meant_for()))
                .advice(set(fits))
        }
        ProfileSetting::Fixed(fixed) => {
            Finding::warning(Check::Profile, format!("{fits} fits ({why}); {fixed} is set, for {}", fixed.meant_for()))
                .advice(set(fits))
        }
    }
}

fn order(profile: Profile) -> usize {
    Profile::ALL.iter().position(|p| *p == profile).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::super::super::Verdict;
    use super::*;
    use wf_schema::config::Loader;

    #[test]
    fn a_broker_inside_is_near() {
        for (set, verdict) in [("local", Verdict::Ok), ("auto", Verdict::Ok), ("wan", Verdict::Note)] {
            let config = Loader::new().flags([("profile", set)]).load().unwrap().config;
            assert_eq!(inside(&config).verdict, verdict, "{set}");
        }
    }

    #[test]
    fn the_profile_follows_from_distance_and_jitter() {
        let table: &[(&str, &[u64], Profile, Verdict)] = &[
            ("local", &[300, 400], Profile::Local, Verdict::Ok),
            ("local", &[10_000, 10_500], Profile::Lan, Verdict::Warning),
            ("wan", &[10_000, 10_500], Profile::Lan, Verdict::Note),
            ("wan", &[100_000, 101_000], Profile::Wan, Verdict::Ok),
            ("wan", &[100_000, 140_000], Profile::Wireless, Verdict::Warning),
            ("wireless", &[100_000, 101_000], Profile::Wan, Verdict::Note),
            ("auto", &[100_000, 101_000], Profile::Wan, Verdict::Ok),
            ("auto", &[100_000, 140_000], Profile::Wireless, Verdict::Note),
            // A site of one's own whose link is full.
            ("lan", &[10_000, 90_000], Profile::Lan, Verdict::Ok),
        ];
        for (set, micros, fits, verdict) in table {
            let trips = RoundTrips::new(micros.iter().map(|us| Duration::from_micros(*us)).collect()).unwrap();
            let config = Loader::new().flags([("profile", *set)]).load().unwrap().config;
            let finding = profile(&trips, &config);
            assert_eq!((fitting(&trips), finding.verdict), (*fits, *verdict), "{finding:?}");
            assert!(finding.found.starts_with(fits.as_str()), "{finding:?}");
        }
    }
}
