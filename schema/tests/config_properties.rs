//! Laws of the configuration, for any input.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use proptest::prelude::*;
use wf_schema::config::{DefaultValue, Loader, Profile, Size, Span, knobs};

/// Any text, and texts that look like values.
fn text() -> impl Strategy<Value = String> {
    let number = (any::<u64>(), prop::sample::select(vec!["", " B", "KiB", " GiB", "s", " ms", "min", " d", ".5 s", "_0"]));
    prop_oneof![any::<String>(), number.prop_map(|(number, unit)| format!("{number}{unit}")), "[0-9._]{0,12} ?[a-zA-Zµ]{0,3}"]
}

fn key() -> impl Strategy<Value = String> {
    let known: Vec<_> = knobs().map(|knob| knob.key.to_owned()).collect();
    prop_oneof![4 => prop::sample::select(known), 1 => any::<String>()]
}

/// What a TOML file may say after the equals sign.
fn toml_value() -> impl Strategy<Value = String> {
    prop_oneof![
        text().prop_map(|text| format!("{text:?}")),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| number.to_string()),
        Just("2026-01-01T00:00:00Z".to_owned()),
        Just("{ a = [{ b = 1 }] }".to_owned()),
        Just("[\"a\", 1, [true]]".to_owned()),
        Just("[]".to_owned()),
        any::<String>(),
    ]
}

proptest! {
    #[test]
    fn any_flags_and_variables_give_a_configuration_or_an_error(
        flags in prop::collection::vec((key(), text()), 0..4),
        variables in prop::collection::vec((key(), text()), 0..4),
    ) {
        let variables = variables.into_iter().map(|(key, value)| {
            (format!("WF_{}", key.to_uppercase().replace('.', "_")), value)
        });
        // No file: WF_CONFIG can only come from an unknown key that happens to be called so.
        if let Err(error) = Loader::new().flags(flags).env(variables).load() {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn any_file_gives_a_configuration_or_an_error(
        lines in prop::collection::vec((key(), toml_value()), 0..4),
        noise in prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(any::<u8>(), 0..64)],
    ) {
        let mut file: Vec<u8> = lines.iter().flat_map(|(key, value)| format!("{key} = {value}\n").into_bytes()).collect();
        file.extend(noise);
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("wf.toml"), file).unwrap();
        if let Err(error) = Loader::new().directory(directory.path()).load() {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn sizes_read_back_what_they_write(bytes in any::<u64>(), shift in 0_u32..64) {
        let size = Size::new(bytes >> shift << (shift / 2));
        prop_assert_eq!(size.to_string().parse::<Size>().unwrap(), size);
    }

    #[test]
    fn spans_read_back_what_they_write(micros in any::<u64>(), factor in prop::sample::select(vec![1, 1_000, 1_000_000, 60_000_000])) {
        let span = Span::from_micros((micros / factor).wrapping_mul(factor));
        prop_assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
        prop_assert_eq!(Span::from(Duration::from(span)), span);
    }

    #[test]
    fn any_text_is_a_quantity_or_an_error(text in text()) {
        let _ = text.parse::<Size>();
        let _ = text.parse::<Span>();
    }

    /// What `wf config show` prints can be given back, from any source, and means the same.
    #[test]
    fn shown_values_read_back(overrides in prop::collection::vec((key(), text()), 1..3)) {
        if let Ok(loaded) = Loader::new().flags(overrides).load() {
            // The profile's row also tells how `auto` was settled.
            let rows = loaded.rows().iter().filter(|row| row.key != "profile").map(|row| (row.key, row.value.as_str()));
            let profile = loaded.config.profile().as_str();
            let again = Loader::new().flags(rows).flags([("profile", profile)]).load().unwrap();
            prop_assert_eq!(again.config.batch(), loaded.config.batch());
            prop_assert_eq!(again.config.broker(), loaded.config.broker());
            prop_assert_eq!(again.config.factory(), loaded.config.factory());
            prop_assert_eq!(again.config.log(), loaded.config.log());
        }
    }
}

#[test]
fn quantities_are_exact_and_forgiving_in_their_form() {
    let sizes = [
        ("32 KiB", 32 << 10),
        ("32kib", 32 << 10),
        ("1.5 GiB", 3 << 29),
        ("4_096", 4_096),
        ("0", 0),
        ("10 MB", 10_000_000),
        (" 7 B ", 7),
    ];
    for (text, bytes) in sizes {
        assert_eq!(text.parse::<Size>().unwrap().bytes(), bytes, "{text}");
    }
    for text in [
        "",
        "KiB",
        "-1",
        "1.5 B",
        "0.0001 KiB",
        "1 K",
        "1__0",
        "_1",
        "1 KiB KiB",
        "18446744073709551616",
        "99999999 TiB",
        "1e3",
        "1.",
        ".",
    ] {
        assert!(text.parse::<Size>().is_err(), "{text}");
    }
    let spans = [
        ("5s", 5_000_000),
        ("5 s", 5_000_000),
        ("1500ms", 1_500_000),
        ("2m", 120_000_000),
        ("0.25 s", 250_000),
        ("0", 0),
        ("7 µs", 7),
    ];
    for (text, micros) in spans {
        assert_eq!(text.parse::<Span>().unwrap().micros(), micros, "{text}");
    }
    for text in ["5", "5 sec", "1 min 30 s", "0.5 us", "-5 s", "1 w"] {
        let error = text.parse::<Span>().unwrap_err().to_string();
        assert_eq!(error, format!("`{text}` is not valid: expected a time with its unit, e.g. `5 s` or `1500 ms`"));
    }
    let shown = [("90 s", "90 s"), ("120 s", "2 min"), ("24 h", "1 d"), ("0 h", "0 s"), ("0 B", "0 B"), ("1000 ms", "1 s")];
    for (text, shown) in shown {
        let told = text.parse::<Span>().map_or_else(|_| text.parse::<Size>().unwrap().to_string(), |span| span.to_string());
        assert_eq!(told, shown);
    }
    assert_eq!(Size::new(1_000).to_string(), "1000 B");
    assert_eq!(Size::new(3 << 29).to_string(), "1536 MiB");
}

/// The table itself: every default and every limit is written as it would be shown, defaults keep all rules, and the
/// names of variables are unambiguous.
#[test]
fn the_table_is_sound() {
    for profile in Profile::ALL {
        let loaded = Loader::new().flags([("profile", profile.as_str())]).load().unwrap();
        let odd: Vec<_> = loaded.diff().filter(|row| row.key != "profile").collect();
        assert!(odd.is_empty(), "defaults that are not written as they are shown: {odd:?}");
    }
    let mut variables: Vec<_> = knobs().map(|knob| knob.env()).collect();
    variables.sort();
    variables.dedup();
    assert_eq!(variables.len(), knobs().count());
    for knob in knobs() {
        assert!(!knob.why().is_empty() && !knob.why().contains("  "), "{}", knob.key);
        if let DefaultValue::PerProfile(defaults) = knob.default {
            assert!(defaults.iter().any(|default| *default != defaults[0]), "{} differs in no profile", knob.key);
        }
        for bound in knob.limits.into_iter().flat_map(|(min, max)| [min, max]) {
            let error = Loader::new().flags([(knob.key, bound)]).load().err().map(|error| error.to_string());
            let told = error.unwrap_or_default();
            assert!(!told.contains("not valid") && !told.contains("out of range"), "{} may not be {bound}: {told}", knob.key);
        }
    }
}
