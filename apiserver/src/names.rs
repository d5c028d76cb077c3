//! The forms that names, labels and keys may have, with upstream's messages: clients compare them.
//! Source: apimachinery `pkg/api/validate/content/{dns,kube,path}.go`, `pkg/util/validation`.

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const LABEL_1035: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const KEY: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const VALUE: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";

/// RFC 1123 label: at most 63 bytes.
pub fn dns1123_label(text: &str) -> Vec<String> {
    const WHAT: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
    let mut wrong = Vec::new();
    if text.len() > 63 {
        wrong.push(too_long(63));
    }
    if !is_label(text) {
        wrong.push(if is_subdomain(text) {
            "must not contain dots".to_owned()
        } else {
            pattern(WHAT, LABEL, &["my-name", "123-abc"])
        });
    }
    wrong
}

/// RFC 1123 subdomain: at most 253 bytes.
pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    const WHAT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
    let mut wrong = Vec::new();
    if text.len() > 253 {
        wrong.push(too_long(253));
    }
    if !is_subdomain(text) {
        wrong.push(pattern(WHAT, SUBDOMAIN, &["example.com"]));
    }
    wrong
}

/// RFC 1035 label: at most 63 bytes, begins with a letter.
pub fn dns1035_label(text: &str) -> Vec<String> {
    const WHAT: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
    let mut wrong = Vec::new();
    if text.len() > 63 {
        wrong.push(too_long(63));
    }
    if !(is_label(text) && text.starts_with(|first: char| first.is_ascii_lowercase())) {
        wrong.push(pattern(WHAT, LABEL_1035, &["my-name", "abc-123"]));
    }
    wrong
}

/// A label's or annotation's key, a finalizer, a resource's name: `example.com/name`.
pub fn qualified(text: &str) -> Vec<String> {
    const WHAT: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    const EXAMPLES: [&str; 3] = ["MyName", "my.name", "123-abc"];
    let mut wrong = Vec::new();
    let name = match *text.split('/').collect::<Vec<_>>() {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                wrong.push("prefix part must be non-empty".to_owned());
            } else {
                wrong.extend(dns1123_subdomain(prefix).into_iter().map(|why| format!("prefix part {why}")));
            }
            name
        }
        _ => {
            let why = pattern(WHAT, KEY, &EXAMPLES);
            return vec![format!(
                "a valid label key {why} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        wrong.push(format!("name part {}", too_long(63)));
    }
    if !is_key(name) {
        wrong.push(format!("name part {}", pattern(WHAT, KEY, &EXAMPLES)));
    }
    wrong
}

pub fn label_value(text: &str) -> Vec<String> {
    const WHAT: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    let mut wrong = Vec::new();
    if text.len() > 63 {
        wrong.push(too_long(63));
    }
    if !text.is_empty() && !is_key(text) {
        wrong.push(pattern(WHAT, VALUE, &["MyValue", "my_value", "12345"]));
    }
    wrong
}

/// What can stand between two slashes of a path; of a `prefix` `.` and `..` are forgiven.
pub fn path_segment(text: &str, prefix: bool) -> Vec<String> {
    if !prefix && matches!(text, "." | "..") {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"]
        .into_iter()
        .filter(|&no| text.contains(no))
        .map(|no| format!("may not contain '{no}'"))
        .collect()
}

/// `WHAT (e.g. 'a',  or 'b', regex used for validation is 'RE')`
pub fn pattern(what: &str, regex: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{what} (regex used for validation is '{regex}')");
    }
    // The comma before `or` is upstream's.
    let examples = examples.iter().map(|one| format!("'{one}', ")).collect::<Vec<_>>().join(" or ");
    format!("{what} (e.g. {examples}regex used for validation is '{regex}')")
}

pub fn too_long(limit: usize) -> String {
    format!("must be no more than {limit} bytes")
}

fn is_label(text: &str) -> bool {
    between(text, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit(), b"-")
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn is_key(text: &str) -> bool {
    between(text, u8::is_ascii_alphanumeric, b"-_.")
}

/// `ends` everywhere, and what is `within` also between the first and the last.
fn between(text: &str, ends: impl Fn(&u8) -> bool, within: &[u8]) -> bool {
    match text.as_bytes() {
        [] => false,
        [one] => ends(one),
        [first, middle @ .., last] => {
            ends(first) && ends(last) && middle.iter().all(|byte| ends(byte) || within.contains(byte))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_forms() {
        let subdomain: fn(&str) -> Vec<String> = dns1123_subdomain;
        let segment: fn(&str) -> Vec<String> = |name| path_segment(name, false);
        #[rustfmt::skip]
        let table = [
            (subdomain, "a", true), (subdomain, "a.b-c.1", true), (subdomain, "", false), (subdomain, "a..b", false),
            (subdomain, "A", false), (subdomain, "a-", false), (subdomain, "-a", false), (subdomain, "a_b", false),
            (subdomain, "a.-b", false), (dns1123_label, "a-1", true), (dns1123_label, "a.b", false),
            (dns1123_label, "ä", false), (dns1035_label, "1a", false), (dns1035_label, "a1", true),
            (segment, "system:node", true), (segment, "..", false), (segment, "a/b", false), (segment, "a%2f", false),
        ];
        for (rule, name, good) in table {
            assert_eq!(rule(name).is_empty(), good, "{name}");
        }
        assert!(!dns1123_label(&"a".repeat(64)).is_empty());
        assert!(!subdomain(&"a".repeat(254)).is_empty());
    }

    #[test]
    fn messages_are_upstreams() {
        assert_eq!(
            dns1123_subdomain("A"),
            [
                r"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
        assert_eq!(
            label_value("a b"),
            [
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            ]
        );
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
    }

    #[test]
    fn keys_may_have_one_prefix() {
        for (key, good) in [
            ("a", true),
            ("example.com/a_B.c", true),
            ("a/b/c", false),
            ("/a", false),
            ("a/", false),
            ("Example.com/a", false),
            ("", false),
            ("-a", false),
        ] {
            assert_eq!(qualified(key).is_empty(), good, "{key}");
        }
    }
}
