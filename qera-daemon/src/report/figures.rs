//! Numbers as a person reads them.

use crate::report::generation::ErrorShare;
use crate::report::kinds::LeastAndMost;

/// The text where there is no number.
pub(crate) const NONE: &str = "–";

/// A share in percent, with three significant digits.
#[must_use]
pub(crate) fn percent(share: f64) -> String {
    let of = 100.0 * share;
    match of.abs() {
        size if !size.is_finite() => NONE.into(),
        0.0 => "0 %".into(),
        size if size >= 100.0 => format!("{of:.0} %"),
        size if size >= 10.0 => format!("{of:.1} %"),
        size if size >= 1.0 => format!("{of:.2} %"),
        size if size >= 0.01 => format!("{of:.3} %"),
        _ => format!("{of:.1e} %"),
    }
}

/// Like [`percent`], for a share that may be missing.
#[must_use]
pub(crate) fn percent_or_none(share: Option<f64>) -> String {
    share.map_or(NONE.into(), percent)
}

/// A share with its interval.
#[must_use]
pub(crate) fn share(of: Option<ErrorShare>) -> String {
    match of {
        None => NONE.into(),
        Some(ErrorShare {
            left,
            half_width: Some(half),
        }) => format!("{} ± {:.1}", percent(left), 100.0 * half),
        Some(ErrorShare { left, .. }) => percent(left),
    }
}

/// A count with its thousands separated.
#[must_use]
pub(crate) fn count(of: u64) -> String {
    apart(&of.to_string())
}

/// A number on an axis of counts.
#[must_use]
pub(crate) fn thousands(of: f64) -> String {
    apart(&format!("{of:.0}"))
}

fn apart(digits: &str) -> String {
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A range; one number where both ends are the same.
#[must_use]
pub(crate) fn extent(of: Option<LeastAndMost>, decimals: usize) -> String {
    let Some(LeastAndMost { least, most }) = of else {
        return NONE.into();
    };
    let (least, most) = (format!("{least:.decimals$}"), format!("{most:.decimals$}"));
    match least == most {
        true => least,
        false => format!("{least} to {most}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shares = [0.0, 1.7, 0.1774, 0.019_24, 0.000_5, 3.2e-7, f64::NAN];
        let said = [
            "0 %", "170 %", "17.7 %", "1.92 %", "0.050 %", "3.2e-5 %", NONE,
        ];
        assert_eq!(shares.map(percent), said);
        assert_eq!(
            [7, 1_000, 12_345_678].map(count),
            ["7", "1,000", "12,345,678"]
        );
        let of = |least, most| Some(LeastAndMost { least, most });
        assert_eq!(extent(of(0.0, 0.3), 2), "0.00 to 0.30");
        assert_eq!(extent(of(8.0, 8.0), 0), "8");
        let held = ErrorShare {
            left: 0.25,
            half_width: Some(0.012),
        };
        assert_eq!(share(Some(held)), "25.0 % ± 1.2");
    }
}
