//! What a name, a label, a port name, ... may look like. Each function returns what there is to say against a text, in
//! upstream's words. Source: apimachinery `pkg/util/validation/validation.go`, `pkg/api/validate/content`.

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const KEY: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

fn longest(limit: usize) -> String {
    format!("must be no more than {limit} characters")
}

fn longest_bytes(limit: usize) -> String {
    format!("must be no more than {limit} bytes")
}

fn pattern(what: &str, regex: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{what} (regex used for validation is '{regex}')");
    }
    let examples = examples.iter().map(|one| format!("'{one}', ")).collect::<Vec<_>>().join(" or ");
    format!("{what} (e.g. {examples}regex used for validation is '{regex}')")
}

/// Starts and ends with an `outer`, `inner` between.
fn shaped(text: &str, outer: fn(u8) -> bool, inner: fn(u8) -> bool) -> bool {
    match text.as_bytes() {
        [] => false,
        [one] => outer(*one),
        [first, middle @ .., last] => outer(*first) && outer(*last) && middle.iter().all(|byte| inner(*byte)),
    }
}

fn lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    shaped(text, lower, |byte| lower(byte) || byte == b'-')
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

pub fn dns_label(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > 63 {
        errors.push(longest(63));
    }
    if !is_label(text) {
        if is_subdomain(text) {
            errors.push("must not contain dots".to_owned());
        } else {
            let what = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
            errors.push(pattern(what, LABEL, &["my-name", "123-abc"]));
        }
    }
    errors
}

pub fn dns_subdomain(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > 253 {
        errors.push(longest(253));
    }
    if !is_subdomain(text) {
        let what = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
        errors.push(pattern(what, &format!("{LABEL}(\\.{LABEL})*"), &["example.com"]));
    }
    errors
}

/// As search paths of DNS may be.
pub fn dns_subdomain_with_underscore(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > 253 {
        errors.push(longest(253));
    }
    let is = |part: &str| {
        let part = part.strip_prefix('_').unwrap_or(part);
        shaped(part, lower, |byte| lower(byte) || matches!(byte, b'-' | b'_'))
    };
    if !text.split('.').all(is) {
        let what = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character";
        let label = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
        errors.push(pattern(what, &format!("{label}(\\.{label})*"), &["example.com"]));
    }
    errors
}

pub fn wildcard_subdomain(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > 253 {
        errors.push(longest(253));
    }
    if !text.strip_prefix("*.").is_some_and(is_subdomain) {
        let what = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
        errors.push(pattern(what, &format!("\\*\\.{LABEL}(\\.{LABEL})*"), &["*.example.com"]));
    }
    errors
}

pub fn dns_1035_label(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > 63 {
        errors.push(longest(63));
    }
    if !is_label(text) || !text.as_bytes()[0].is_ascii_lowercase() {
        let what = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
        errors.push(pattern(what, "[a-z]([-a-z0-9]*[a-z0-9])?", &["my-name", "abc-123"]));
    }
    errors
}

/// The key of a label, an annotation, a resource, a condition: `example.com/name`.
pub fn qualified(text: &str) -> Vec<String> {
    let what = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    let examples = ["MyName", "my.name", "123-abc"];
    let mut errors = Vec::new();
    let mut parts = text.split('/');
    let name = match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, _) => name,
        (Some(prefix), Some(name), None) => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                let of = dns_subdomain(prefix).into_iter();
                errors.extend(
                    of.map(|error| format!("prefix part {}", error.replace("253 characters", "253 bytes"))),
                );
            }
            name
        }
        _ => {
            let shape = pattern(what, KEY, &examples);
            let more = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a valid label key {shape} {more}")];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        errors.push(format!("name part {}", longest_bytes(63)));
    }
    if !is_key(name) {
        errors.push(format!("name part {}", pattern(what, KEY, &examples)));
    }
    errors
}

fn is_key(text: &str) -> bool {
    shaped(
        text,
        |byte| byte.is_ascii_alphanumeric(),
        |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'),
    )
}

pub fn label_value(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > 63 {
        errors.push(longest_bytes(63));
    }
    if !text.is_empty() && !is_key(text) {
        let what = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
        errors.push(pattern(what, &format!("({KEY})?"), &["MyValue", "my_value", "12345"]));
    }
    errors
}

pub fn port_name(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > 15 {
        errors.push(longest(15));
    }
    if text.is_empty() || !text.bytes().all(|byte| lower(byte) || byte == b'-') {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

/// A part of a path: names of roles and of references.
pub fn path_segment(text: &str) -> Vec<String> {
    if matches!(text, "." | "..") {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"]
        .iter()
        .filter(|part| text.contains(**part))
        .map(|part| format!("may not contain '{part}'"))
        .collect()
}

fn no_way_up(text: &str) -> Option<String> {
    match text {
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        _ => text.starts_with("..").then(|| "must not start with '..'".to_owned()),
    }
}

/// Of a ConfigMap's or a Secret's data.
pub fn config_key(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > 253 {
        errors.push(longest(253));
    }
    let is = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if text.is_empty() || !text.bytes().all(is) {
        let what = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        errors.push(pattern(what, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]));
    }
    errors.extend(no_way_up(text));
    errors
}

/// Of an environment variable (the relaxed form of 1.34).
pub fn variable(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.is_empty() {
        errors.push("environment variable name must be non-empty".to_owned());
    }
    if !text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'=') {
        errors.push("a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned());
    }
    errors
}

pub fn http_header(text: &str) -> Vec<String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Vec::new();
    }
    let what = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![pattern(what, "[-A-Za-z0-9]+", &["X-Header-Name"])]
}

pub fn percent(text: &str) -> Vec<String> {
    let digits = text.strip_suffix('%').unwrap_or_default();
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Vec::new();
    }
    let what = "a valid percent string must be a numeric string followed by an ending '%'";
    vec![pattern(what, "[0-9]+%", &["1%", "93%"])]
}

/// `acme.io/foo`: what there is to say, and of which part of it.
pub fn domain_prefixed_path(text: &str) -> Vec<(String, String)> {
    let parts = text.split_once('/').filter(|(host, path)| !host.is_empty() && !path.is_empty());
    let Some((host, path)) = parts else {
        return vec![(
            text.to_owned(),
            "must be a domain-prefixed path (such as \"acme.io/foo\")".to_owned(),
        )];
    };
    let mut errors: Vec<_> = dns_subdomain(host).into_iter().map(|error| (host.to_owned(), error)).collect();
    let is = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte);
    if !path.bytes().all(is) {
        let error = pattern("Invalid path", "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+", &[]);
        errors.push((path.to_owned(), error));
    }
    errors
}

/// Any: the kinds whose names are checked nowhere.
pub fn anything(_: &str) -> Vec<String> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_in_upstreams_words() {
        assert!(dns_label("a-1").is_empty() && dns_subdomain("a.b-c.1").is_empty());
        assert_eq!(dns_label("a.b"), ["must not contain dots"]);
        assert_eq!(
            dns_label("A"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        for bad in ["", "-a", "a-", "a..b", ".a", "a_b", "ä"] {
            assert!(!dns_subdomain(bad).is_empty(), "{bad}");
        }
        assert!(dns_1035_label("a1").is_empty() && !dns_1035_label("1a").is_empty());
        assert!(!dns_1035_label("").is_empty());
        assert!(
            qualified("a.b/c_D").is_empty() && !qualified("/a").is_empty() && !qualified("a/").is_empty()
        );
        assert!(!qualified("a/b/c").is_empty() && label_value("").is_empty() && !label_value("-").is_empty());
        assert!(port_name("http-1").is_empty() && !port_name("80").is_empty() && !port_name("-a").is_empty());
        assert!(
            config_key("a.b_C-1").is_empty()
                && !config_key("..a").is_empty()
                && !config_key("a/b").is_empty()
        );
        assert!(variable("A B").is_empty() && !variable("A=B").is_empty() && !variable("").is_empty());
        assert!(percent("25%").is_empty() && !percent("%").is_empty() && !percent("25").is_empty());
        assert!(wildcard_subdomain("*.a.b").is_empty() && !wildcard_subdomain("*").is_empty());
    }
}
