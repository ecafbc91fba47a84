//! Integers of a range, as alternatives of digits.

use alloc::string::String;
use core::fmt::Write;

/// The largest integer where a schema sets no bound: 16 digits, as many as an unbounded one may have.
const LARGEST: i128 = 9_999_999_999_999_999;

/// What an integer from `low` to `high` looks like: alternatives of a prefix, one digit of some, and free digits. Empty
/// if there is none.
pub(super) fn range(low: Option<i64>, high: Option<i64>) -> String {
    let most = LARGEST
        .max(low.map_or(0, |low| i128::from(low) + 1))
        .max(high.map_or(0, |high| 1 - i128::from(high)));
    let low = low.map_or(-most, i128::from);
    let high = high.map_or(most, i128::from);
    let mut out = String::new();
    positive("\"-\" ", (-high).max(1), -low, &mut out);
    if low <= 0 && 0 <= high {
        next(&mut out);
        out.push_str("[0]");
    }
    positive("", low.max(1), high, &mut out);
    out
}

fn next(out: &mut String) {
    if !out.is_empty() {
        out.push_str(" | ");
    }
}

/// Alternatives for 1 ≤ low ≤ high: from `low` on, always the longest stretch in which a digit runs and those after it
/// are free.
fn positive(sign: &str, low: i128, high: i128, out: &mut String) {
    let mut from = low;
    while from <= high {
        let (mut unit, mut free) = (1, 0);
        while from % (unit * 10) == 0 && from + unit * 10 - 1 <= high {
            (unit, free) = (unit * 10, free + 1);
        }
        let first = from / unit % 10;
        let last =
            (first..=9).rev().find(|last| from + (last - first + 1) * unit - 1 <= high).unwrap_or(first);
        next(out);
        out.push_str(sign);
        let prefix = from / unit / 10;
        if prefix > 0 {
            let _ = write!(out, "\"{prefix}\" ");
        }
        let _ = if first == last { write!(out, "[{first}]") } else { write!(out, "[{first}-{last}]") };
        if free > 0 {
            let _ = write!(out, " [0-9]{{{free}}}");
        }
        from += (last - first + 1) * unit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_run_as_far_as_they_can() {
        assert_eq!(range(Some(0), Some(9)), "[0] | [1-9]");
        assert_eq!(
            range(Some(0), Some(255)),
            "[0] | [1-9] | [1-9] [0-9]{1} | [1] [0-9]{2} | \"2\" [0-4] [0-9]{1} | \"25\" [0-5]"
        );
        assert_eq!(range(Some(-3), Some(1)), "\"-\" [1-3] | [0] | [1]");
        assert_eq!(range(Some(7), Some(7)), "[7]");
        assert_eq!(range(Some(2), Some(1)), "");
        assert!(range(Some(i64::MIN), Some(i64::MAX)).len() < 2000);
        assert!(range(Some(i64::MAX), None).starts_with("\"922337203685477580\" [7-8]"));
    }
}
