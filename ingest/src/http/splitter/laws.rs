//! However a body is cut into pieces, the same items come out.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;

type Items = Vec<(u64, u64, Option<Vec<u8>>)>;

fn collect(block: &Block, into: &mut Items) {
    into.extend(block.items().map(|(item, bytes)| (item.index, item.line, bytes.map(<[u8]>::to_vec))));
}

/// All items, fed in pieces of the sizes of `cuts`, over and over.
fn split(shape: Shape, limit: usize, body: &[u8], cuts: &[usize]) -> (Items, Result<(), Broken>, usize) {
    let mut splitter = Splitter::new(shape, limit);
    let mut items = Vec::new();
    let mut rest = body;
    for cut in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, behind) = rest.split_at((*cut).clamp(1, rest.len()));
        rest = behind;
        let (block, result) = splitter.feed(piece);
        collect(&block, &mut items);
        if result.is_err() {
            return (items, result, splitter.most_held());
        }
    }
    let most_held = splitter.most_held();
    let (block, result) = splitter.end();
    collect(&block, &mut items);
    (items, result, most_held)
}

fn texts(items: &Items) -> Vec<String> {
    items.iter().map(|(_, _, bytes)| String::from_utf8(bytes.clone().unwrap_or(b"too long".to_vec())).unwrap()).collect()
}

#[test]
fn lines_are_items_and_empty_ones_are_not() {
    let (items, result, _) = split(Shape::Lines, 9, b"\xef\xbb\xbf{}\r\n\n {\"a\":1}\n0123456789\n\n[]", &[1]);
    assert_eq!(result, Ok(()));
    assert_eq!(texts(&items), ["{}", r#"{"a":1}"#, "too long", "[]"]);
    assert_eq!(items.iter().map(|i| (i.0, i.1)).collect::<Vec<_>>(), [(0, 1), (1, 3), (2, 4), (3, 6)]);
}

#[test]
fn elements_are_items() {
    let body = br#" [ {"a":"]},\"{["} , [[1],2],"x,y\\",
        nope ,{"long":"0123456789"},-1.5e3
    ] "#;
    for cut in 1..8 {
        let (items, result, _) = split(Shape::Array, 18, body, &[cut]);
        assert_eq!(result, Ok(()));
        assert_eq!(texts(&items), [r#"{"a":"]},\"{["}"#, "[[1],2]", r#""x,y\\""#, "nope", "too long", "-1.5e3"]);
        assert_eq!(items.iter().map(|i| i.1).collect::<Vec<_>>(), [1, 1, 1, 2, 2, 2]);
    }
}

#[test]
fn what_is_no_array_says_where() {
    for (body, line, what, before) in [
        ("", 1, "found nothing", 0),
        ("{}", 1, "found an object", 0),
        ("nope", 1, "expected an array", 0),
        ("[\n1,\n2", 3, "ends too early", 1),
        ("[1,]", 1, "no job behind", 1),
        ("[,1]", 1, "no job before", 0),
        ("[1,\n,2]", 2, "no job before", 1),
        ("[{} {}]", 1, "expected a comma", 1),
        ("[]\n[]", 2, "behind the array", 0),
        ("[{\"a\":1", 1, "ends too early", 0),
    ] {
        let (items, result, _) = split(Shape::Array, 100, body.as_bytes(), &[2]);
        let broken = result.unwrap_err();
        assert!(broken.line == line && broken.what.contains(what), "{body}: {broken}");
        assert_eq!(items.len(), before, "{body}");
    }
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
        r#"[\[\]{},"\\ \n]{0,8}"#.prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            prop::collection::vec((r#"[a-z"\\{}]{0,5}"#, inner), 0..5)
                .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn elements_are_those_that_whole_parsing_gives(
        values in prop::collection::vec(json(), 0..12),
        pretty: bool,
        cuts in prop::collection::vec(1..40usize, 1..6),
    ) {
        let values = serde_json::Value::from(values);
        let body = if pretty { serde_json::to_string_pretty(&values) } else { serde_json::to_string(&values) }.unwrap();
        let whole: Vec<&RawValue> = serde_json::from_str(&body).unwrap();
        let (items, result, _) = split(Shape::Array, usize::MAX, body.as_bytes(), &cuts);
        prop_assert_eq!(result, Ok(()));
        prop_assert_eq!(texts(&items), whole.iter().map(|raw| raw.get().to_owned()).collect::<Vec<_>>());
    }

    #[test]
    fn lines_are_those_that_whole_parsing_gives(
        values in prop::collection::vec(json(), 0..12),
        cuts in prop::collection::vec(1..40usize, 1..6),
        newline_at_end: bool,
    ) {
        let lines: Vec<String> = values.iter().map(ToString::to_string).collect();
        let body = lines.join("\n") + if newline_at_end { "\n" } else { "" };
        let (items, result, _) = split(Shape::Lines, usize::MAX, body.as_bytes(), &cuts);
        prop_assert_eq!(result, Ok(()));
        prop_assert_eq!(texts(&items), lines);
    }

    /// Any bytes: no panic, the same items wherever the cuts are, and never more in memory than an item and a piece.
    #[test]
    fn any_bytes_give_the_same_items_whatever_the_cuts(
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..400),
            prop::collection::vec(prop::sample::select(br#"[]{},:"\1a "#.iter().copied().chain([b'\n']).collect::<Vec<_>>()), 0..400),
        ],
        cuts in prop::collection::vec(1..40usize, 1..6),
        limit in 1..60usize,
        lines: bool,
    ) {
        let shape = if lines { Shape::Lines } else { Shape::Array };
        let whole = split(shape, limit, &body, &[usize::MAX]);
        let cut = split(shape, limit, &body, &cuts);
        prop_assert_eq!(&whole.0, &cut.0);
        prop_assert_eq!(&whole.1, &cut.1);
        prop_assert!(cut.2 <= limit + 40, "{} held with a limit of {limit}", cut.2);
    }
}
