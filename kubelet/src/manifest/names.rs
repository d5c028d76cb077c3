//! The forms names may have, and upstream's words when one has not.

pub const LABEL_MSG: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
pub const SUBDOMAIN_MSG: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

/// What is wrong with `name` as a DNS label (RFC 1123), if anything.
pub fn label(name: &str) -> Option<String> {
    too_long(name, 63).or_else(|| (!is_label(name)).then(|| LABEL_MSG.to_owned()))
}

/// What is wrong with `name` as a DNS subdomain (RFC 1123).
pub fn subdomain(name: &str) -> Option<String> {
    too_long(name, 253).or_else(|| (!name.split('.').all(is_label)).then(|| SUBDOMAIN_MSG.to_owned()))
}

/// What is wrong with `name` as the name of a port (IANA service name).
pub fn port_name(name: &str) -> Option<String> {
    let edge = name.starts_with('-') || name.ends_with('-');
    let charset = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if name.len() > 15 {
        Some("must be no more than 15 characters".into())
    } else if !charset || name.is_empty() {
        Some("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into())
    } else if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        Some("must contain at least one letter (a-z)".into())
    } else if name.contains("--") {
        Some("must not contain consecutive hyphens".into())
    } else {
        edge.then(|| "must not begin or end with a hyphen".into())
    }
}

/// What is wrong with `name` as an environment variable: printable ASCII but `=`.
pub fn env_name(name: &str) -> Option<String> {
    let good = !name.is_empty() && name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=');
    (!good).then(|| {
        "a valid environment variable name must consist only of printable ASCII characters other than '='"
            .into()
    })
}

/// What is wrong with `key` as a label or annotation key (qualified name).
pub fn qualified(key: &str) -> Option<String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if let Some(why) = prefix.and_then(subdomain) {
        return Some(format!("prefix part {why}"));
    }
    if name.is_empty() || name.contains('/') {
        return Some("name part must be non-empty".into());
    }
    too_long(name, 63).map(|why| format!("name part {why}")).or_else(|| {
        (!is_qualified(name)).then(|| "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character".into())
    })
}

/// What is wrong with `value` as a label's value.
pub fn label_value(value: &str) -> Option<String> {
    too_long(value, 63).or_else(|| {
        (!value.is_empty() && !is_qualified(value)).then(|| "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character".into())
    })
}

/// What is wrong with `name` as a sysctl.
pub fn sysctl(name: &str) -> Option<String> {
    let segment = |s: &str| {
        s.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            && s.bytes().last().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    let good = name.len() <= 253 && name.split(['.', '/']).all(segment);
    (!good).then(|| "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*([a-z0-9][-_a-z0-9]*)?[a-z0-9]$".into())
}

fn too_long(name: &str, max: usize) -> Option<String> {
    (name.len() > max).then(|| format!("must be no more than {max} characters"))
}

fn is_label(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !name.is_empty()
        && name.bytes().all(|b| inner(b) || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

fn is_qualified(name: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    edge(name.bytes().next())
        && edge(name.bytes().last())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_as_upstream_judges_them() {
        type Row<'a> = (fn(&str) -> Option<String>, &'a [&'a str], &'a [&'a str]);
        let table: [Row<'_>; 6] = [
            (label, &["a", "a-1", "0"], &["", "-a", "a-", "A", "a.b", "a_b"]),
            (subdomain, &["a", "a.b-c", "1.2"], &["", "a..b", ".a", "a.-b", "A"]),
            (port_name, &["http", "p-1"], &["", "80", "a--b", "-a", "averyveryverylongname", "Http"]),
            (env_name, &["A", "a.b-c", "1"], &["", "A=B", "ä"]),
            (qualified, &["app", "k8s.io/app", "A_b.c"], &["", "/a", "a/", "a/b/c", "-a", "X/a"]),
            (sysctl, &["net.ipv4.ip_forward", "kernel/shmmax"], &["", "a..b", "A.b", ".a", "a.", "../a"]),
        ];
        for (check, good, bad) in table {
            for name in good {
                assert_eq!(check(name), None, "{name}");
            }
            for name in bad {
                assert!(check(name).is_some(), "{name}");
            }
        }
        assert_eq!(label(&"a".repeat(64)).as_deref(), Some("must be no more than 63 characters"));
        assert_eq!(label_value(""), None);
    }
}
