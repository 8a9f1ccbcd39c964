//! Sums, differences, products and quotients of two numbers.

use serde::{Deserialize, Serialize};

use crate::JobFailure;

/// Two numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// The left one.
    pub a: f64,
    /// The right one.
    pub b: f64,
    /// What callers of the system before this one sent along. Ignored.
    #[serde(default)]
    pub request_id: Option<String>,
}

/// `a + b`.
///
/// # Errors
/// `not_finite`, permanent, when the result is too large for a number.
pub fn add(pair: &Pair) -> Result<f64, JobFailure> {
    finite(pair.a + pair.b)
}

/// `a - b`.
///
/// # Errors
/// As [`add`].
pub fn subtract(pair: &Pair) -> Result<f64, JobFailure> {
    finite(pair.a - pair.b)
}

/// `a * b`.
///
/// # Errors
/// As [`add`].
pub fn multiply(pair: &Pair) -> Result<f64, JobFailure> {
    finite(pair.a * pair.b)
}

/// `a / b`.
///
/// # Errors
/// `division_by_zero`, permanent; otherwise as [`add`].
pub fn divide(pair: &Pair) -> Result<f64, JobFailure> {
    if pair.b == 0.0 {
        return Err(JobFailure::permanent("division_by_zero", format!("{} / 0 is not a number", pair.a)));
    }
    finite(pair.a / pair.b)
}

/// JSON has neither infinities nor NaN, and `null` would be a lie.
fn finite(result: f64) -> Result<f64, JobFailure> {
    if result.is_finite() {
        Ok(result)
    } else {
        Err(JobFailure::permanent("not_finite", format!("the result is {result}, which JSON cannot say")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(a: f64, b: f64) -> Pair {
        Pair { a, b, request_id: None }
    }

    #[test]
    fn numbers_come_out() {
        assert_eq!(add(&pair(2.0, 3.0)), Ok(5.0));
        assert_eq!(subtract(&pair(2.0, 3.0)), Ok(-1.0));
        assert_eq!(multiply(&pair(2.0, 3.0)), Ok(6.0));
        assert_eq!(divide(&pair(3.0, 2.0)), Ok(1.5));
    }

    #[test]
    fn what_is_no_number_is_a_permanent_failure() {
        for (result, kind) in [
            (divide(&pair(1.0, 0.0)), "division_by_zero"),
            (divide(&pair(0.0, -0.0)), "division_by_zero"),
            (multiply(&pair(1e300, 1e300)), "not_finite"),
            (add(&pair(f64::INFINITY, f64::NEG_INFINITY)), "not_finite"),
        ] {
            assert!(result.is_err_and(|failure| failure.is_permanent() && failure.failure().kind == kind));
        }
    }
}
