//! Money: whole minor units beside a currency. Vendors' decimals become minor units here, exactly and
//! without floats, and minor units become decimals again; nothing else converts.

use std::fmt;
use std::str::FromStr;

/// The largest amount that is accepted, in minor units: 15 digits. Any reader of JSON, even one that
/// keeps numbers as floats, reads 15 digits back exactly; and sums of thousands of them fit a `BIGINT`.
pub const AMOUNT_MAX: i64 = 999_999_999_999_999;

/// How much of a vendor's text an error repeats.
const SHOWN_CHARS_MAX: usize = 40;

/// Exponents are read up to this size; whatever is beyond is as hopeless as this.
const EXPONENT_MAX: i64 = 1_000_000;

/// Currencies whose smallest unit is the unit itself (ISO 4217).
const NO_DIGITS: [&[u8; 3]; 17] = [
    b"BIF", b"CLP", b"DJF", b"GNF", b"ISK", b"JPY", b"KMF", b"KRW", b"PYG", b"RWF", b"UGX", b"UYI", b"VND",
    b"VUV", b"XAF", b"XOF", b"XPF",
];
/// Currencies of a thousand minor units.
const THREE_DIGITS: [&[u8; 3]; 7] = [b"BHD", b"IQD", b"JOD", b"KWD", b"LYD", b"OMR", b"TND"];
/// Units of account with four decimals.
const FOUR_DIGITS: [&[u8; 3]; 2] = [b"CLF", b"UYW"];

/// Why a text is no amount or no currency.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not a decimal number at all.
    #[error("`{0}` is not a number; expected a decimal such as `296.80`")]
    NotANumber(String),
    /// Something below the currency's smallest unit.
    #[error("`{text}` has more decimals than the {digits} of its currency; check the unit or the currency")]
    TooManyDecimals {
        /// What was given.
        text: String,
        /// How many decimals there may be.
        digits: u32,
    },
    /// Beyond [`AMOUNT_MAX`].
    #[error("`{0}` is too large for an amount; expected at most 15 digits")]
    TooLarge(String),
    /// Not three letters.
    #[error("`{0}` is not a currency; expected three letters of ISO 4217 such as `CNY`")]
    NotACurrency(String),
}

/// A currency of ISO 4217: three capital letters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    /// The renminbi, the default.
    pub const CNY: Self = Self(*b"CNY");

    /// How many decimals an amount of it has: 2 for most, 0 for `JPY`, 3 for `KWD`.
    #[must_use]
    pub fn digits(self) -> u32 {
        if NO_DIGITS.contains(&&self.0) {
            0
        } else if THREE_DIGITS.contains(&&self.0) {
            3
        } else if FOUR_DIGITS.contains(&&self.0) {
            4
        } else {
            2
        }
    }

    /// Its three letters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a currency is made of ASCII letters only")
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.as_bytes() {
            &[a, b, c] if [a, b, c].iter().all(u8::is_ascii_alphabetic) => {
                Ok(Self([a, b, c].map(|letter| letter.to_ascii_uppercase())))
            }
            _ => Err(MoneyError::NotACurrency(shown(text))),
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for Currency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for Currency {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl<DB: sqlx::Database> sqlx::Type<DB> for Currency
where
    str: sqlx::Type<DB>,
{
    fn type_info() -> DB::TypeInfo {
        <str as sqlx::Type<DB>>::type_info()
    }
    fn compatible(ty: &DB::TypeInfo) -> bool {
        <str as sqlx::Type<DB>>::compatible(ty)
    }
}

impl<'q, DB: sqlx::Database> sqlx::Encode<'q, DB> for Currency
where
    String: sqlx::Encode<'q, DB>,
{
    fn encode_by_ref(
        &self,
        buffer: &mut DB::ArgumentBuffer,
    ) -> Result<sqlx::encode::IsNull, sqlx::error::BoxDynError> {
        <String as sqlx::Encode<'q, DB>>::encode(self.as_str().to_owned(), buffer)
    }
}

impl<'r, DB: sqlx::Database> sqlx::Decode<'r, DB> for Currency
where
    String: sqlx::Decode<'r, DB>,
{
    fn decode(value: DB::ValueRef<'r>) -> Result<Self, sqlx::error::BoxDynError> {
        Ok(<String as sqlx::Decode<'r, DB>>::decode(value)?.parse()?)
    }
}

/// Reads a decimal, with or without an exponent, as minor units of a currency with `digits` decimals.
///
/// Exact: `0.1` is 10 fen, never 10.000000000000002. Zeros at the end are no decimals, so `12.500`
/// is 12.50. The work is linear in the length of the text whatever the exponent says.
pub fn parse_minor(text: &str, digits: u32) -> Result<i64, MoneyError> {
    let Decimal { negative, significant, exponent } =
        Decimal::parse(text).ok_or_else(|| MoneyError::NotANumber(shown(text)))?;
    if significant.is_empty() {
        return Ok(0);
    }
    let shift = exponent + i64::from(digits);
    if shift < 0 {
        return Err(MoneyError::TooManyDecimals { text: shown(text), digits });
    }
    let too_large = || MoneyError::TooLarge(shown(text));
    let zeros = u32::try_from(shift).map_err(|_| too_large())?;
    let whole = significant.parse::<i64>().map_err(|_| too_large())?;
    let minor = 10_i64
        .checked_pow(zeros)
        .and_then(|scale| whole.checked_mul(scale))
        .filter(|minor| *minor <= AMOUNT_MAX)
        .ok_or_else(too_large)?;
    Ok(if negative { -minor } else { minor })
}

/// Writes minor units as a decimal with all the currency's digits: `29680` is `296.80`.
#[must_use]
pub fn format_minor(minor: i64, digits: u32) -> String {
    let sign = if minor < 0 { "-" } else { "" };
    let digits = digits as usize;
    if digits == 0 {
        return minor.to_string();
    }
    let text = format!("{:0>width$}", minor.unsigned_abs(), width = digits + 1);
    let (whole, fraction) = text.split_at(text.len() - digits);
    format!("{sign}{whole}.{fraction}")
}

/// Minor units as a JSON number that keeps its digits: `296.80`, not `296.8`.
#[must_use]
pub fn json_number(minor: i64, digits: u32) -> serde_json::Number {
    format_minor(minor, digits).parse().expect("a formatted amount is a JSON number")
}

/// A decimal taken apart: `±significant × 10^exponent`, with no zeros at either end.
struct Decimal {
    negative: bool,
    significant: String,
    exponent: i64,
}

impl Decimal {
    /// `None` when the text is not `[+-] digits [. digits] [e [+-] digits]`.
    fn parse(text: &str) -> Option<Self> {
        let (negative, unsigned) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
            return None;
        }
        let joined = [whole, fraction].concat();
        let trimmed = joined.trim_end_matches('0');
        let dropped = joined.len() - trimmed.len();
        let exponent = exponent - i64::try_from(fraction.len()).ok()? + i64::try_from(dropped).ok()?;
        Some(Self { negative, significant: trimmed.trim_start_matches('0').to_owned(), exponent })
    }
}

/// Reads an exponent, cut to [`EXPONENT_MAX`] either way.
fn parse_exponent(text: &str) -> Option<i64> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let size =
        digits.bytes().fold(0, |size: i64, digit| (size * 10 + i64::from(digit - b'0')).min(EXPONENT_MAX));
    Some(sign * size)
}

/// The beginning of a text, for an error.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimals_become_minor_units_exactly() {
        for (text, digits, minor) in [
            ("0", 2, 0),
            ("-0", 2, 0),
            ("-0.00", 2, 0),
            ("0.1", 2, 10),
            ("0.2", 2, 20),
            ("0.3", 2, 30),
            ("296.80", 2, 29_680),
            ("296.8", 2, 29_680),
            ("+5", 2, 500),
            ("-12.34", 2, -1_234),
            ("99999999.99", 2, 9_999_999_999),
            ("12.500", 2, 1_250),
            ("1.5e2", 2, 15_000),
            ("1.5E-1", 2, 15),
            ("15000e-2", 2, 15_000),
            ("0e999999", 2, 0),
            (".5", 2, 50),
            ("5.", 2, 500),
            ("1234", 0, 1_234),
            ("1234.0", 0, 1_234),
            ("1.234", 3, 1_234),
            ("000000000000000000000000000012.50", 2, 1_250),
            ("9999999999999.99", 2, AMOUNT_MAX),
        ] {
            assert_eq!(parse_minor(text, digits), Ok(minor), "{text} with {digits} digits");
        }
    }

    #[test]
    fn a_tenth_and_two_tenths_are_three_tenths() {
        let sum = parse_minor("0.1", 2).unwrap() + parse_minor("0.2", 2).unwrap();
        assert_eq!(sum, parse_minor("0.3", 2).unwrap());
        assert_eq!(format_minor(sum, 2), "0.30");
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in [
            "", "-", "+", ".", "e5", "1e", "1e+", "1.2.3", "1,234.50", "12 ", " 12", "NaN", "Infinity",
            "0x10", "١٢", "1e5.5", "--1", "￥12",
        ] {
            assert_eq!(parse_minor(text, 2), Err(MoneyError::NotANumber(text.to_owned())), "{text:?}");
        }
    }

    #[test]
    fn more_decimals_than_the_currency_has_are_refused() {
        for (text, digits) in [("0.001", 2), ("12.345", 2), ("1.5", 0), ("1e-3", 2), ("1e-999999", 2)] {
            let refused = parse_minor(text, digits).unwrap_err();
            assert_eq!(refused, MoneyError::TooManyDecimals { text: text.to_owned(), digits });
        }
    }

    #[test]
    fn absurd_sizes_are_refused_at_once() {
        let long = "9".repeat(1_000_000);
        let started = std::time::Instant::now();
        for text in ["1e999999", "1e99999999999999999999", "-1e16", "10000000000000.00", long.as_str()] {
            assert!(matches!(parse_minor(text, 2), Err(MoneyError::TooLarge(_))), "{}", shown(text));
        }
        assert!(started.elapsed() < std::time::Duration::from_millis(500));
        assert!(parse_minor(&long, 2).unwrap_err().to_string().len() < 200, "errors do not repeat the flood");
    }

    #[test]
    fn minor_units_are_written_with_all_digits() {
        for (minor, digits, text) in [
            (29_680, 2, "296.80"),
            (5, 2, "0.05"),
            (-5, 2, "-0.05"),
            (0, 2, "0.00"),
            (1_234, 0, "1234"),
            (1_234, 3, "1.234"),
            (-1, 3, "-0.001"),
            (i64::MIN, 2, "-92233720368547758.08"),
        ] {
            assert_eq!(format_minor(minor, digits), text);
        }
        assert_eq!(serde_json::to_string(&json_number(29_680, 2)).unwrap(), "296.80");
    }

    #[test]
    fn currencies_have_the_digits_of_iso_4217() {
        let digits = |code: &str| code.parse::<Currency>().unwrap().digits();
        for (code, expected) in [
            ("CNY", 2),
            ("USD", 2),
            ("EUR", 2),
            ("HKD", 2),
            ("JPY", 0),
            ("KRW", 0),
            ("VND", 0),
            ("KWD", 3),
            ("BHD", 3),
            ("TND", 3),
            ("CLF", 4),
        ] {
            assert_eq!(digits(code), expected, "{code}");
        }
        assert_eq!("cny".parse(), Ok(Currency::CNY));
        for text in ["", "CN", "CNYY", "C1Y", "人民币", "€"] {
            assert_eq!(text.parse::<Currency>(), Err(MoneyError::NotACurrency(text.to_owned())));
        }
    }

    #[test]
    fn a_currency_is_its_letters_in_json() {
        assert_eq!(serde_json::to_string(&Currency::CNY).unwrap(), r#""CNY""#);
        assert_eq!(serde_json::from_str::<Currency>(r#""jpy""#).unwrap().as_str(), "JPY");
        assert!(serde_json::from_str::<Currency>(r#""money""#).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(minor in -AMOUNT_MAX..=AMOUNT_MAX, digits in 0_u32..=4) {
            prop_assert_eq!(parse_minor(&format_minor(minor, digits), digits), Ok(minor));
        }

        #[test]
        fn an_exponent_is_only_another_way_to_write(minor in -AMOUNT_MAX..=AMOUNT_MAX, digits in 0_u32..=4) {
            prop_assert_eq!(parse_minor(&format!("{minor}e-{digits}"), digits), Ok(minor));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}", digits in 0_u32..=4) {
            let _ = parse_minor(&text, digits);
            let _ = text.parse::<Currency>();
        }

        #[test]
        fn no_almost_number_makes_it_panic(text in "[-+]?[0-9.]{0,25}([eE][-+]?[0-9]{0,25})?", digits in 0_u32..=4) {
            if let Ok(minor) = parse_minor(&text, digits) {
                prop_assert!(minor.abs() <= AMOUNT_MAX);
            }
        }
    }
}
