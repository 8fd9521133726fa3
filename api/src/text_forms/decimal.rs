//! Decimal text as scaled integers, exactly: prices become micros and epoch seconds become milliseconds without a
//! float.

use thiserror::Error;

/// A longer text is not a meaningful number.
const DIGITS_MAX: usize = 40;
const EXPONENT_MAX: i32 = 30;

/// What to do with digits finer than the scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finer {
    Refuse,
    Truncate,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecimalError {
    #[error("'{0}' is not a decimal number")]
    NotDecimal(String),
    #[error("'{0}' has more than {1} digits after the point")]
    TooFine(String, usize),
    #[error("'{0}' is too large")]
    TooLarge(String),
}

/// `text × 10^places` as an integer. An exponent (`1e-5`) is accepted, because JSON prints small numbers that way.
pub fn parse_scaled(text: &str, places: usize, finer: Finer) -> Result<i64, DecimalError> {
    let not_decimal = || DecimalError::NotDecimal(text.chars().take(DIGITS_MAX).collect());
    let (is_negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| not_decimal())?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
    let is_plain = !digits.is_empty() && digits.len() <= DIGITS_MAX && digits.iter().all(u8::is_ascii_digit);
    if !is_plain || exponent.abs() > EXPONENT_MAX {
        return Err(not_decimal());
    }
    // How many digits come before the point once the number is scaled. The others are finer than the scale.
    let kept = i64::try_from(whole.len() + places).map_err(|_| not_decimal())? + i64::from(exponent);
    let kept = usize::try_from(kept.max(0)).map_err(|_| not_decimal())?;
    if finer == Finer::Refuse && digits.iter().skip(kept).any(|digit| *digit != b'0') {
        return Err(DecimalError::TooFine(text.to_owned(), places));
    }
    let mut value: i64 = 0;
    for position in 0..kept {
        let digit = digits.get(position).map_or(0, |digit| i64::from(digit - b'0'));
        value = value
            .checked_mul(10)
            .and_then(|value| value.checked_add(digit))
            .ok_or_else(|| DecimalError::TooLarge(text.to_owned()))?;
    }
    Ok(if is_negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn micros(text: &str) -> Result<i64, DecimalError> {
        parse_scaled(text, 6, Finer::Refuse)
    }

    #[test]
    fn prices_become_micros_exactly() {
        assert_eq!(micros("0.1"), Ok(100_000));
        assert_eq!(micros("1e-5"), Ok(10));
        assert_eq!(micros("2.5E0"), Ok(2_500_000));
        assert_eq!(micros("-3"), Ok(-3_000_000));
        assert_eq!(micros("0.1000000"), Ok(100_000));
        assert!(matches!(micros("0.0000001"), Err(DecimalError::TooFine(..))));
        assert!(matches!(micros("99999999999999"), Err(DecimalError::TooLarge(_))));
        for nonsense in ["", ".", "-", "1.2.3", "0x10", "1e", "NaN", "1e999", "１"] {
            assert!(matches!(micros(nonsense), Err(DecimalError::NotDecimal(_))), "{nonsense}");
        }
    }

    #[test]
    fn seconds_become_milliseconds() {
        assert_eq!(parse_scaled("1700000000.1239", 3, Finer::Truncate), Ok(1_700_000_000_123));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(text in ".{0,60}", places in 0_usize..9) {
            let _ = parse_scaled(&text, places, Finer::Truncate);
        }

        #[test]
        fn integers_survive(value in -1_000_000_000_i64..1_000_000_000) {
            prop_assert_eq!(micros(&value.to_string()), Ok(value * 1_000_000));
        }
    }
}
