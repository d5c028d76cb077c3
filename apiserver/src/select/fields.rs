//! `fieldSelector=spec.nodeName=a,status.phase!=Failed`. Source: apimachinery `pkg/fields/selector.go`.

use std::fmt;

use crate::object::Object;
use crate::registry::Served;
use crate::status::{Result, Status};

/// All terms must hold; in the order that upstream sorts them in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(Vec<Term>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    field: String,
    equal: bool,
    value: String,
}

impl Fields {
    /// # Errors
    /// What is wrong with it, in upstream's words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut terms = split(text);
        terms.sort_unstable();
        terms.retain(|term| !term.is_empty());
        terms.into_iter().map(|term| Term::parse(text, term)).collect::<Result<_, _>>().map(Self)
    }

    pub fn named(name: &str) -> Self {
        Self(vec![Term { field: "metadata.name".to_owned(), equal: true, value: name.to_owned() }])
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The only value that a field may have.
    pub fn exactly(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|term| term.equal && term.field == field).map(|term| term.value.as_str())
    }

    /// Nothing but the name (and namespace) is selected, which keys say.
    pub fn only_keys(&self) -> bool {
        self.0.iter().all(|term| matches!(&*term.field, "metadata.name" | "metadata.namespace"))
    }

    /// # Errors
    /// 400: this kind has no such field to select by.
    pub fn check(&self, served: &Served) -> Result<()> {
        let unknown = self.0.iter().find(|term| {
            !matches!(&*term.field, "metadata.name" | "metadata.namespace")
                && served.field(&Object::default(), &term.field).is_none()
        });
        match unknown {
            Some(term) => Err(Status::bad_request(unknown_field(&term.field, served))),
            None => Ok(()),
        }
    }

    /// `value` of a field that is not there is empty.
    pub fn matches<'a>(&self, value: impl Fn(&str) -> std::borrow::Cow<'a, str>) -> bool {
        self.0.iter().all(|term| (value(&term.field) == term.value) == term.equal)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|term| term.field.as_str())
    }
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, term) in self.0.iter().enumerate() {
            let separator = if at > 0 { "," } else { "" };
            let operator = if term.equal { "=" } else { "!=" };
            let value = term.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{separator}{}{operator}{value}", term.field)?;
        }
        Ok(())
    }
}

impl Term {
    fn parse(whole: &str, term: &str) -> Result<Self, String> {
        let found = term.char_indices().find_map(|(at, _)| {
            let operator = ["!=", "==", "="].into_iter().find(|operator| term[at..].starts_with(operator))?;
            Some((&term[..at], operator, &term[at + operator.len()..]))
        });
        let (field, operator, value) =
            found.ok_or_else(|| format!("invalid selector: '{whole}'; can't understand '{term}'"))?;
        Ok(Self { field: field.to_owned(), equal: operator != "!=", value: unescape(value)? })
    }
}

/// Upstream says it otherwise of kinds that have fields of their own to select by.
fn unknown_field(field: &str, served: &Served) -> String {
    const OWN: [&str; 8] = [
        "spec.nodeName",
        "spec.unschedulable",
        "spec.clusterIP",
        "spec.signerName",
        "status.phase",
        "status.replicas",
        "type",
        "reason",
    ];
    if served.is_custom() || OWN.iter().any(|own| served.field(&Object::default(), own).is_some()) {
        return format!("field label not supported: {field}");
    }
    let field = serde_json::Value::from(field);
    format!("{field} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
}

/// At commas that no backslash stands before.
fn split(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn unescape(text: &str) -> Result<String, String> {
    let mut value = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(escaped @ ('\\' | ',' | '=')) => value.push(escaped),
                other => {
                    let sequence: String = std::iter::once('\\').chain(other).collect();
                    return Err(format!("invalid field selector: invalid escape sequence: {sequence}"));
                }
            },
            // Upstream prints the rune's number.
            ',' | '=' => {
                let number = character as u32;
                return Err(format!("invalid field selector: unescaped character in value: {number}"));
            }
            other => value.push(other),
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_parsed_as_upstream_parses_them() {
        let fields = Fields::parse("spec.nodeName=a,metadata.name==b,status.phase!=c\\,d,").expect("valid");
        assert_eq!(fields.to_string(), "metadata.name=b,spec.nodeName=a,status.phase!=c\\,d");
        assert_eq!(fields.exactly("metadata.name"), Some("b"));
        assert_eq!(fields.exactly("status.phase"), None);
        for (text, error) in [
            ("abc", "invalid selector: 'abc'; can't understand 'abc'"),
            ("a=b=c", "invalid field selector: unescaped character in value: 61"),
            ("a=\\x", "invalid field selector: invalid escape sequence: \\x"),
            ("a=b\\", "invalid field selector: invalid escape sequence: \\"),
        ] {
            assert_eq!(Fields::parse(text), Err(error.to_owned()), "{text}");
        }
    }

    #[test]
    fn all_terms_must_hold() {
        let fields = Fields::parse("a=1,b!=2").expect("valid");
        let matches = |a: &'static str, b: &'static str| {
            fields.matches(|field| if field == "a" { a.into() } else { b.into() })
        };
        assert!(matches("1", "") && matches("1", "3"));
        assert!(!matches("1", "2") && !matches("2", "3"));
    }
}
