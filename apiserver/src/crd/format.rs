//! Formats of strings that schemas of custom resources may ask for. Source: apiextensions `pkg/apiserver/validation/
//! formats.go`, kube-openapi `pkg/validation/strfmt`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use regex_lite::Regex;

use super::schema::Schema;

const KNOWN: [&str; 26] = [
    "bsonobjectid",
    "byte",
    "cidr",
    "creditcard",
    "date",
    "datetime",
    "duration",
    "email",
    "hexcolor",
    "hostname",
    "ipv4",
    "ipv6",
    "isbn",
    "isbn10",
    "isbn13",
    "k8slongname",
    "k8sshortname",
    "mac",
    "password",
    "rgbcolor",
    "ssn",
    "uri",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
];

/// The format of a schema, unless upstream would ignore it there.
pub fn of_schema(schema: &Schema) -> Option<&str> {
    let format = &*schema.format;
    let known = match &*schema.ty {
        _ if format.is_empty() || schema.int_or_string => false,
        "" | "string" => KNOWN.contains(&&*format.replace('-', "")),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    };
    known.then_some(format)
}

/// Is this text of that format?
pub fn fits(format: &str, text: &str) -> bool {
    let matches = |pattern: &str| Regex::new(pattern).is_ok_and(|regex| regex.is_match(text));
    match &*format.replace('-', "") {
        "bsonobjectid" => matches("^[0-9a-fA-F]{24}$"),
        "byte" => STANDARD.decode(text).is_ok(),
        "cidr" => cidr(text),
        "creditcard" => credit_card(text),
        "date" => date(text),
        "datetime" => {
            matches(r"^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:?\d{2})$")
                && date(&text[..10])
        }
        "duration" => matches(
            r"^[+-]?((\d+\.?\d*|\.\d+)\s*(ns|nanos?|nanoseconds?|us|µs|μs|micros?|microseconds?|ms|millis?|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|wks?|weeks?)\s*)+$|^0$",
        ),
        "email" => matches(r"^([^<>]*<)?[^@\s<>]+@[^@\s<>]+>?$"),
        "hexcolor" => matches("^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"),
        "hostname" => hostname(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "isbn" => isbn10(text) || isbn13(text),
        "isbn10" => isbn10(text),
        "isbn13" => isbn13(text),
        "k8slongname" => {
            matches(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$") && text.len() <= 253
        }
        "k8sshortname" => matches("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$") && text.len() <= 63,
        "mac" => matches(
            "^([0-9a-fA-F]{2}[:-]){5}([0-9a-fA-F]{2}[:-]){0,2}[0-9a-fA-F]{2}$|^([0-9a-fA-F]{4}\\.){2,3}[0-9a-fA-F]{4}$",
        ),
        "rgbcolor" => matches(
            r"^rgb\(\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*,\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*,\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*\)$",
        ),
        "ssn" => matches(r"^\d{3}[- ]?\d{2}[- ]?\d{4}$"),
        "uri" => matches("^([a-zA-Z][a-zA-Z0-9+.-]*:|/)[^\\s\\x00-\\x1f]*$"),
        "uuid" => matches("(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$"),
        "uuid3" => matches("(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$"),
        "uuid4" => matches("(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"),
        "uuid5" => matches("(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"),
        // password and whatever upstream ignores.
        _ => true,
    }
}

/// RFC 1034, section 3.1.
fn hostname(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 255 && text.strip_suffix('.').unwrap_or(text).split('.').all(label)
}

fn cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let most = match address.parse() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.parse::<u8>().is_ok_and(|bits| bits <= most)
}

fn date(text: &str) -> bool {
    let parts: Vec<_> = text.split('-').collect();
    let [year, month, day] = *parts else { return false };
    if (year.len(), month.len(), day.len()) != (4, 2, 2) {
        return false;
    }
    let (Ok(year), Ok(month), Ok(day)) = (year.parse::<u32>(), month.parse::<u32>(), day.parse::<u32>())
    else {
        return false;
    };
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    (1..=days).contains(&day)
}

fn digits(text: &str) -> Vec<u32> {
    text.chars().filter_map(|c| c.to_digit(10)).collect()
}

/// Luhn's sum over what upstream's pattern takes.
fn credit_card(text: &str) -> bool {
    let digits = digits(text);
    let number: String = digits.iter().filter_map(|digit| char::from_digit(*digit, 10)).collect();
    const CARDS: &str = r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35\d{3})\d{11})$";
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, &digit)| if at % 2 == 0 { digit } else { digit * 2 / 10 + digit * 2 % 10 })
        .sum();
    Regex::new(CARDS).is_ok_and(|regex| regex.is_match(&number)) && sum.is_multiple_of(10)
}

fn isbn10(text: &str) -> bool {
    let text: String = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    let Some((last, front)) = text.as_bytes().split_last() else { return false };
    if front.len() != 9 || !front.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let last = match last {
        b'X' => 10,
        digit @ b'0'..=b'9' => u32::from(digit - b'0'),
        _ => return false,
    };
    let sum: u32 = front.iter().zip(1..).map(|(digit, weight)| u32::from(digit - b'0') * weight).sum();
    (sum + last * 10).is_multiple_of(11)
}

fn isbn13(text: &str) -> bool {
    let digits = digits(text);
    let plain = text.chars().all(|c| c.is_ascii_digit() || matches!(c, '-' | ' '));
    let sum: u32 = digits.iter().enumerate().map(|(at, digit)| digit * if at % 2 == 0 { 1 } else { 3 }).sum();
    plain && digits.len() == 13 && sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_take_what_upstream_takes() {
        #[rustfmt::skip]
        let table = [
            ("date", "2024-02-29", true), ("date", "2023-02-29", false), ("date", "2024-2-1", false),
            ("date-time", "2014-12-15T19:30:20.000Z", true), ("date-time", "2014-12-15", false),
            ("duration", "1h30m", true), ("duration", "22 ns", true), ("duration", "3 fortnights", false),
            ("ipv4", "10.0.0.1", true), ("ipv4", "10.0.0.256", false), ("ipv6", "fd00::1", true),
            ("cidr", "10.0.0.0/8", true), ("cidr", "10.0.0.0/33", false), ("cidr", "fd00::/64", true),
            ("mac", "01:02:03:04:ab:cd", true), ("mac", "1:2", false),
            ("uuid", "6F9619FF-8B86-D011-B42D-00CF4FC964FF", true), ("uuid", "x", false),
            ("byte", "aGk=", true), ("byte", "a", false), ("email", "a@b.c", true), ("email", "a", false),
            ("uri", "https://a/b", true), ("uri", "a b", false), ("hostname", "a.example.org", true),
            ("hostname", "-a", false), ("isbn", "978-0321751041", true), ("isbn10", "0321751043", true),
            ("hexcolor", "#FFFFFF", true), ("rgbcolor", "rgb(255,255,255)", true), ("ssn", "123-45-6789", true),
            ("creditcard", "4111 1111 1111 1111", true), ("creditcard", "4111 1111 1111 1112", false),
            ("k8s-short-name", "a-b", true), ("k8s-short-name", "A", false), ("k8s-long-name", "a.b", true),
            ("password", "anything", true), ("no-such", "anything", true),
        ];
        for (format, text, expected) in table {
            assert_eq!(fits(format, text), expected, "{format} {text}");
        }
    }
}
