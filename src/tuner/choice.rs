//! What suits a link. Pure: from what is known of it, and the bounds that the configuration sets, to a tuning.

use std::fmt;
use std::time::Duration;

use wf_broker::Window;
use wf_broker::link::{Link, Rate};
use wf_ingest::Pace;
use wf_schema::config::{Loaded, Loader, Origin, Profile, Size};

/// Windows are made for a link of this length, if it is shorter: near servers answer late now and then, when they sync
/// to disk or another program has the processor, and a window for the bare round trip would make everybody wait.
pub(super) const SHORTEST: Duration = Duration::from_millis(50);

/// How many times what the link has on its way at its full rate: once on the wire, once at either end of it.
const AHEAD: f64 = 2.0;

/// The longest that one batch should keep the link busy: others wait behind it.
const BATCH_TIME: Duration = Duration::from_millis(100);

/// The smallest full batch, in bytes on the wire.
const LEAST_BATCH: usize = 8 << 10;

/// The least that is fetched ahead, in bytes: two of the largest full batches that others may make.
const LEAST_PREFETCH: usize = 128 << 10;

/// A tuning is changed for one that differs by more than this.
const WORTH_IT: f64 = 1.25;

/// The room in front of a window, in windows: jobs take several times as much before they are compressed.
const ROOM: usize = 16;

/// The least room, in bytes.
const LEAST_ROOM: usize = 1 << 20;

/// A profile is left for its neighbour when the round trip is so many times beyond the border between them.
const BEYOND: f64 = 1.5;

/// What a node was tuned to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tuning {
    /// The kind of network that the link is taken for.
    pub profile: Profile,
    /// How much may be on its way to the broker, unanswered.
    pub window: Window,
    /// How much an executor fetches ahead, in bytes.
    pub prefetch_bytes: usize,
    /// The longest that a job waits for others to travel with.
    pub linger: Duration,
    /// The size of a full batch on the wire, in bytes.
    pub wire_bytes: usize,
    /// How much may wait in front of the window, in bytes before compression.
    pub room: usize,
}

impl Tuning {
    /// The part of it that producers follow. Their window has room for two batches more than the link's own, so that
    /// it is the link's that binds, however many producers there are, and the next batch is at hand when it opens.
    pub(super) fn pace(&self) -> Pace {
        let Self { linger, wire_bytes, room, window, .. } = *self;
        let window = Window { bytes: window.bytes.saturating_add(2 * wire_bytes), messages: window.messages + 2 };
        Pace { linger, wire_bytes, room, window }
    }
}

impl fmt::Display for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |bytes: usize| Size::new(bytes as u64);
        write!(
            f,
            "{}: window {} in {} messages, prefetch {}, batches of {}, linger {} ms",
            self.profile,
            size(self.window.bytes),
            self.window.messages,
            size(self.prefetch_bytes),
            size(self.wire_bytes),
            self.linger.as_secs_f64() * 1e3,
        )
    }
}

/// From the least to the most that something may be. The same, if somebody has said what it shall be.
#[derive(Clone, Copy, Debug)]
struct Bound {
    most: usize,
    fixed: bool,
}

impl Bound {
    fn within(self, wanted: f64, least: usize) -> usize {
        if self.fixed {
            return self.most;
        }
        // Whole KiB are enough to tell windows apart. (Any float fits: `as` saturates.)
        let wanted = (wanted as usize >> 10) << 10;
        wanted.max(least).min(self.most)
    }
}

/// What a configuration lets a tuning be under one profile.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    linger: Duration,
    wire_bytes: Bound,
    window_bytes: Bound,
    window_messages: usize,
    prefetch_bytes: Bound,
    room: usize,
}

impl Bounds {
    fn of(loaded: &Loaded) -> Self {
        let bound = |key: &str, most: usize| {
            let row = loaded.rows().iter().find(|row| row.key == key);
            Bound { most, fixed: row.is_some_and(|row| !matches!(row.origin, Origin::Default | Origin::Profile(_))) }
        };
        let config = &loaded.config;
        let producer = crate::settings::producer(config);
        Self {
            linger: producer.batch.linger,
            wire_bytes: bound("batch.wire_bytes", producer.batch.wire_bytes),
            window_bytes: bound("publish.window_bytes", producer.window.bytes),
            window_messages: producer.window.messages,
            prefetch_bytes: bound("prefetch.bytes", config.prefetch().bytes.as_usize()),
            room: producer.room,
        }
    }
}

/// Chooses tunings for links, within the bounds of a configuration.
#[derive(Clone, Debug)]
pub(super) struct Chooser {
    /// In the order of [`Profile::ALL`]; none where what somebody has set does not go together with the profile.
    bounds: [Option<Bounds>; Profile::ALL.len()],
}

impl Chooser {
    pub(super) fn new(loader: &Loader) -> Self {
        let under = |profile: Profile| loader.clone().flags([("profile", profile.as_str())]).load().ok();
        Self { bounds: Profile::ALL.map(|profile| under(profile).as_ref().map(Bounds::of)) }
    }

    /// What suits `link` better than what is chosen `now`; `None` if that is as good, or nothing is known of the link.
    pub(super) fn better(&self, link: &Link, now: Option<&Tuning>) -> Option<Tuning> {
        let chosen = self.choose(link, now.map(|now| now.profile))?;
        let Some(now) = now.filter(|now| now.profile == chosen.profile) else { return Some(chosen) };
        let worth_it = |now: usize, chosen: usize| {
            let (now, chosen) = (now as f64, chosen as f64);
            chosen > now * WORTH_IT || chosen < now / WORTH_IT
        };
        let differs = worth_it(now.window.bytes, chosen.window.bytes)
            || worth_it(now.prefetch_bytes, chosen.prefetch_bytes)
            || worth_it(now.wire_bytes, chosen.wire_bytes);
        differs.then_some(chosen)
    }

    fn choose(&self, link: &Link, now: Option<Profile>) -> Option<Tuning> {
        let (profile, bounds) = self.profile(link, now)?;
        let reach = link.round_trips.shortest()?.max(SHORTEST);
        // A direction that has held nothing back is taken to carry as much as the other, as most links do.
        let carries = |this: &Rate, other: &Rate| match this.bytes_per_second() {
            Some(rate) if !this.is_known() => Some(rate.max(other.bytes_per_second().unwrap_or(0.0))),
            rate => rate.or(other.bytes_per_second()),
        };
        let (up, down) = (carries(&link.up, &link.down), carries(&link.down, &link.up));
        let ahead = |rate: Option<f64>| rate.map_or(f64::INFINITY, |rate| AHEAD * rate * reach.as_secs_f64());
        let batch = up.map_or(f64::INFINITY, |rate| rate * BATCH_TIME.as_secs_f64());
        let wire_bytes = bounds.wire_bytes.within(batch, LEAST_BATCH);
        // A few batches at least, or one could not be answered while the next is on its way.
        let window = bounds.window_bytes.within(ahead(up), 4 * wire_bytes);
        let prefetch_bytes = bounds.prefetch_bytes.within(ahead(down), LEAST_PREFETCH);
        Some(Tuning {
            profile,
            window: Window { bytes: window, messages: bounds.window_messages },
            prefetch_bytes,
            linger: bounds.linger,
            wire_bytes,
            room: window.saturating_mul(ROOM).max(LEAST_ROOM).min(bounds.room),
        })
    }

    /// The profile for `link`, and its bounds. One that was chosen stays until the link is well beyond its border.
    ///
    /// Never wireless. Its windows are small because nobody knows what such a link carries; here that is measured, and
    /// round trips become unsteady on a busy machine too.
    fn profile(&self, link: &Link, now: Option<Profile>) -> Option<(Profile, Bounds)> {
        let rtt = link.round_trips.shortest()?;
        let of = |profile: Profile| {
            let at = Profile::ALL.iter().position(|other| *other == profile)?;
            self.bounds[at].map(|bounds| (profile, bounds))
        };
        let wanted = match now {
            Some(now) if [rtt.div_f64(BEYOND), rtt.mul_f64(BEYOND)].map(Profile::for_rtt).contains(&now) => now,
            _ => Profile::for_rtt(rtt),
        };
        // What was set may not go together with that profile: then another has to do.
        of(wanted).or_else(|| now.and_then(of)).or_else(|| Profile::ALL.into_iter().find_map(of))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
