//! Numbers with a unit, read exactly: no floating point, no guessing.

/// A text that is not the quantity it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not valid: expected {expected}")]
pub struct QuantityError {
    text: String,
    expected: &'static str,
}

impl QuantityError {
    pub(super) fn new(text: &str, expected: &'static str) -> Self {
        // What came from outside is cut before it is shown back.
        Self { text: text.chars().take(80).collect(), expected }
    }
}

/// One unit: its name and how many of the smallest unit it is.
pub(super) type Unit = (&'static str, u64);

/// `text` as a count of the smallest unit: digits, perhaps a fraction, and a unit, with or without a space between.
/// `None` when it is not that, when the unit is unknown, or when it is not a whole count that fits 64 bits.
pub(super) fn parse(text: &str, units: &[Unit]) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (whole, fraction) = number.split_once('.').map_or((number, None), |(whole, fraction)| (whole, Some(fraction)));
    let whole = integer(whole)?;
    if whole == 0 && fraction.is_none() && unit.is_empty() {
        return Some(0);
    }
    let unit = unit.trim_start();
    let (_, factor) = *units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    whole.checked_mul(factor)?.checked_add(fraction.map_or(Some(0), |fraction| part(fraction, factor))?)
}

/// Digits with single underscores between them.
fn integer(digits: &str) -> Option<u64> {
    let spaced = digits.starts_with('_') || digits.ends_with('_') || digits.contains("__");
    if digits.is_empty() || spaced { None } else { digits.replace('_', "").parse().ok() }
}

/// `0.<digits>` of `factor`, if that is a whole number.
fn part(digits: &str, factor: u64) -> Option<u64> {
    if digits.len() > 9 || digits.contains('_') {
        return None;
    }
    let scale = 10_u64.checked_pow(u32::try_from(digits.len()).ok()?)?;
    let product = integer(digits)?.checked_mul(factor)?;
    (product % scale == 0).then(|| product / scale)
}

/// `count` of the smallest unit, written in the largest of `units` that divides it. `units` ascend, and the first
/// of them is the smallest.
pub(super) fn show(count: u64, units: &[Unit]) -> String {
    let fitting = units.iter().rev().find(|(_, factor)| count != 0 && count.is_multiple_of(*factor));
    match fitting.or(units.first()) {
        Some((name, factor)) => format!("{} {name}", count / factor),
        None => count.to_string(),
    }
}
