//! What is chosen for which link.

use super::*;

const MS: Duration = Duration::from_millis(1);
const MB: f64 = 1e6;

fn loader() -> Loader {
    Loader::new().flags([("broker.url", "nats://far:4222"), ("profile", "auto")])
}

fn chooser() -> Chooser {
    Chooser::new(&loader())
}

/// A steady link with a round trip of `rtt`, that carries `up` and `down` bytes a second; zero is not known.
fn link(rtt: Duration, up: f64, down: f64) -> Link {
    let mut link = Link::default();
    (0..30).for_each(|_| link.round_trips.add(rtt, false));
    let second = Duration::from_secs(1);
    link.up.add(up as u64, second, true);
    link.down.add(down as u64, second, true);
    link
}

fn chosen(link: &Link) -> Tuning {
    chooser().better(link, None).unwrap()
}

#[test]
fn nothing_is_chosen_for_a_link_nobody_knows() {
    assert_eq!(chooser().better(&Link::default(), None), None);
}

#[test]
fn a_near_fast_link_gets_what_local_says() {
    let tuning = chosen(&link(MS / 5, 500.0 * MB, 500.0 * MB));
    assert_eq!((tuning.profile, tuning.window, tuning.prefetch_bytes), (Profile::Local, Window::default(), 8 << 20));
    assert_eq!((tuning.linger, tuning.wire_bytes, tuning.room), (MS, 32 << 10, 16 << 20));
}

#[test]
fn a_long_fast_link_gets_a_large_window_and_a_slow_one_a_small_one() {
    let long = chosen(&link(100 * MS, 500.0 * MB, 500.0 * MB));
    assert_eq!((long.profile, long.window.bytes, long.prefetch_bytes), (Profile::Wan, 16 << 20, 32 << 20));
    // Twice what is on its way at 20 MB/s over 100 ms.
    let between = chosen(&link(100 * MS, 20.0 * MB, 20.0 * MB));
    assert!((3_900_000..=4_000_000).contains(&between.window.bytes), "{between}");
    // 1 Mbit/s: half a second of it in the window, at most, and less than a tenth in one batch.
    let slow = chosen(&link(100 * MS, 0.125 * MB, 0.125 * MB));
    assert!(slow.window.bytes <= 64 << 10 && slow.wire_bytes <= 13 << 10, "{slow}");
    assert!(slow.prefetch_bytes <= 128 << 10 && slow.room <= 1 << 20, "{slow}");
}

#[test]
fn one_direction_stands_for_the_other_until_that_is_known() {
    let (upwards, both) = (link(100 * MS, 20.0 * MB, 0.0), link(100 * MS, 20.0 * MB, 20.0 * MB));
    assert_eq!(chosen(&upwards), chosen(&both));
    let down = chosen(&link(100 * MS, 20.0 * MB, 2.0 * MB));
    assert!(down.prefetch_bytes < down.window.bytes);
    // That little has come does not mean that little can.
    let mut quiet = upwards;
    quiet.down.add(1_000, Duration::from_secs(1), false);
    assert_eq!(chosen(&quiet), chosen(&both));
}

#[test]
fn what_somebody_has_set_stays() {
    let loader = loader().flags([("publish.window_bytes", "3 MiB"), ("batch.linger", "7 ms"), ("prefetch.bytes", "5 MiB")]);
    for link in [link(MS, 500.0 * MB, 500.0 * MB), link(100 * MS, 0.1 * MB, 0.1 * MB)] {
        let tuning = Chooser::new(&loader).better(&link, None).unwrap();
        assert_eq!((tuning.window.bytes, tuning.prefetch_bytes, tuning.linger), (3 << 20, 5 << 20, 7 * MS));
    }
}

#[test]
fn a_link_that_is_unsteady_keeps_its_windows() {
    let mut unsteady = link(100 * MS, 20.0 * MB, 20.0 * MB);
    let steady = chosen(&unsteady);
    (0..30).for_each(|n| unsteady.round_trips.add(100 * MS + 40 * MS * (n % 2), false));
    assert_eq!(chosen(&unsteady), steady);
}

#[test]
fn a_border_is_crossed_once() {
    let chooser = chooser();
    let mut now = chosen(&link(MS, 50.0 * MB, 50.0 * MB));
    let mut changes = Vec::new();
    // To and fro around the border between local and lan, and then well beyond it.
    for tenths in [20, 40, 25, 44, 29, 31, 40, 46, 40, 25, 21, 44, 19, 31] {
        let link = link(MS * tenths / 10, 50.0 * MB, 50.0 * MB);
        if let Some(better) = chooser.better(&link, Some(&now)) {
            changes.push((tenths, better.profile));
            now = better;
        }
    }
    assert_eq!(changes, [(46, Profile::Lan), (19, Profile::Local)]);
}

/// Links of all sorts: from a tenth of a millisecond to ten seconds, from a modem to far beyond what there is.
fn links() -> Vec<Link> {
    let rtts = (0..26).map(|n| Duration::from_micros((100.0 * 1.6_f64.powi(n)) as u64));
    let rates = || (0..40).map(|n| 1_000.0 * 1.6_f64.powi(n));
    rtts.flat_map(|rtt| rates().flat_map(move |up| [0.5, 3.0].map(|more| link(rtt, up, up * more)))).collect()
}

#[test]
fn whatever_the_link_the_bounds_are_kept() {
    let chooser = chooser();
    for link in links() {
        let tuning = chooser.better(&link, None).unwrap();
        let profile = loader().flags([("profile", tuning.profile.as_str())]).load().unwrap().config;
        let most = |size: Size| size.as_usize();
        assert!(tuning.window.bytes <= most(profile.publish().window_bytes), "{link}: {tuning}");
        assert!(tuning.prefetch_bytes <= most(profile.prefetch().bytes), "{link}: {tuning}");
        assert!(tuning.wire_bytes <= most(profile.batch().wire_bytes), "{link}: {tuning}");
        // What the configuration says of settings that depend on each other.
        assert!(tuning.window.bytes >= 4 * tuning.wire_bytes && tuning.wire_bytes >= LEAST_BATCH, "{link}: {tuning}");
        assert!(tuning.prefetch_bytes >= LEAST_PREFETCH && tuning.room >= LEAST_ROOM, "{link}: {tuning}");
        // The window never holds the link back, as far as the bounds let it; and it is no more than a moment of it.
        let (rtt, up) = (link.round_trips.shortest().unwrap(), link.up.bytes_per_second().unwrap());
        let window = tuning.window.bytes as f64;
        let at_most = most(profile.publish().window_bytes) as f64;
        assert!(window >= (up * rtt.as_secs_f64()).min(at_most), "{link}: {tuning}");
        let moment = (AHEAD * rtt.max(SHORTEST).as_secs_f64()).max(0.5);
        assert!(window <= (up * moment).max(4.0 * LEAST_BATCH as f64), "{link}: {tuning}");
    }
}

#[test]
fn what_was_chosen_is_not_changed_for_the_same_link() {
    let chooser = chooser();
    for link in links() {
        let tuning = chooser.better(&link, None).unwrap();
        assert_eq!(chooser.better(&link, Some(&tuning)), None, "{link}: {tuning}");
    }
}

#[test]
fn more_rate_is_never_less_window() {
    let chooser = chooser();
    for rtt in [MS, 10 * MS, 100 * MS, 1_000 * MS] {
        let windows: Vec<_> = (0..40)
            .map(|n| chooser.better(&link(rtt, 1_000.0 * 1.6_f64.powi(n), 0.0), None).unwrap())
            .map(|tuning| (tuning.window.bytes, tuning.wire_bytes, tuning.prefetch_bytes, tuning.room))
            .collect();
        assert!(windows.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1 && a.2 <= b.2 && a.3 <= b.3), "{rtt:?}: {windows:?}");
    }
}
