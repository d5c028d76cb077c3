//! `labelSelector=a=b,c in (d,e),!f`. Source: apimachinery `pkg/labels/selector.go`.

use std::fmt;

/// All requirements must hold; in order of their keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
    /// Sorted.
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Equals,
    DoubleEquals,
    NotEquals,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

impl Labels {
    /// # Errors
    /// What is wrong with it, in upstream's words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut requirements = Parser { tokens: scan(text), at: 0 }.parse()?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self(requirements))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn matches<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|requirement| requirement.matches(value(&requirement.key)))
    }
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let listed = || value.is_some_and(|value| self.values.iter().any(|one| one == value));
        let compared = |holds: fn(i64, i64) -> bool| {
            let number = |text: &str| text.parse::<i64>().ok();
            match (value.and_then(number), self.values.first().and_then(|text| number(text))) {
                (Some(have), Some(limit)) => holds(have, limit),
                _ => false,
            }
        };
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => listed(),
            Operator::NotIn | Operator::NotEquals => !listed(),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => compared(|have, limit| have > limit),
            Operator::LessThan => compared(|have, limit| have < limit),
        }
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Requirement { key, operator, values }) in self.0.iter().enumerate() {
            f.write_str(if at > 0 { "," } else { "" })?;
            let values = values.join(",");
            match operator {
                Operator::In => write!(f, "{key} in ({values})"),
                Operator::NotIn => write!(f, "{key} notin ({values})"),
                Operator::Equals => write!(f, "{key}={values}"),
                Operator::DoubleEquals => write!(f, "{key}=={values}"),
                Operator::NotEquals => write!(f, "{key}!={values}"),
                Operator::Exists => f.write_str(key),
                Operator::DoesNotExist => write!(f, "!{key}"),
                Operator::GreaterThan => write!(f, "{key}>{values}"),
                Operator::LessThan => write!(f, "{key}<{values}"),
            }?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    End,
    Close,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    Identifier,
    In,
    Less,
    NotEquals,
    NotIn,
    Open,
    Bad,
}

type Item = (Token, String);

fn token(text: &str) -> Option<Token> {
    Some(match text {
        ")" => Token::Close,
        "," => Token::Comma,
        "!" => Token::Not,
        "==" => Token::DoubleEquals,
        "=" => Token::Equals,
        ">" => Token::Greater,
        "in" => Token::In,
        "<" => Token::Less,
        "!=" => Token::NotEquals,
        "notin" => Token::NotIn,
        "(" => Token::Open,
        _ => return None,
    })
}

fn is_special(character: char) -> bool {
    matches!(character, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n')
}

fn scan(text: &str) -> Vec<Item> {
    let mut items = Vec::new();
    let mut rest = text.trim_start_matches(is_blank);
    while let Some(first) = rest.chars().next() {
        let (item, length) = if is_special(first) { special(rest) } else { word(rest) };
        items.push(item);
        rest = rest[length..].trim_start_matches(is_blank);
    }
    items.push((Token::End, String::new()));
    items
}

fn word(text: &str) -> (Item, usize) {
    let length = text.find(|c| is_special(c) || is_blank(c)).unwrap_or(text.len());
    let word = &text[..length];
    ((token(word).unwrap_or(Token::Identifier), word.to_owned()), length)
}

/// The longest operator at the beginning.
fn special(text: &str) -> (Item, usize) {
    let found = [2, 1].into_iter().filter_map(|length| text.get(..length)).find_map(|operator| {
        let operator = operator.chars().all(is_special).then_some(operator)?;
        Some((token(operator)?, operator))
    });
    match found {
        Some((token, operator)) => ((token, operator.to_owned()), operator.len()),
        None => ((Token::Bad, format!("error expected: keyword found '{text}'")), text.len()),
    }
}

struct Parser {
    tokens: Vec<Item>,
    at: usize,
}

impl Parser {
    fn parse(mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            match self.look() {
                (Token::Identifier | Token::Not, _) => {
                    let requirement = self.requirement();
                    requirements
                        .push(requirement.map_err(|why| format!("unable to parse requirement: {why}"))?);
                    match self.take() {
                        (Token::End, _) => return Ok(requirements),
                        (Token::Comma, _) => match self.look() {
                            (Token::Identifier | Token::Not, _) => {}
                            (_, text) => {
                                return Err(format!("found '{text}', expected: identifier after ','"));
                            }
                        },
                        (_, text) => {
                            return Err(format!("found '{text}', expected: ',' or 'end of string'"));
                        }
                    }
                }
                (Token::End, _) => return Ok(requirements),
                (_, text) => {
                    return Err(format!("found '{text}', expected: !, identifier, or 'end of string'"));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let (mut token, mut key) = self.take();
        let negated = token == Token::Not;
        if negated {
            (token, key) = self.take();
        }
        if token != Token::Identifier {
            return Err(format!("found '{key}', expected: identifier"));
        }
        check_key(&key)?;
        if negated {
            return Ok(Requirement { key, operator: Operator::DoesNotExist, values: Vec::new() });
        }
        if matches!(self.look().0, Token::End | Token::Comma) {
            return Ok(Requirement { key, operator: Operator::Exists, values: Vec::new() });
        }
        let operator = self.operator()?;
        let mut values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => self.exact_value()?,
        };
        values.sort_unstable();
        values.dedup();
        for (at, value) in values.iter().enumerate() {
            if matches!(operator, Operator::GreaterThan | Operator::LessThan) && value.parse::<i64>().is_err()
            {
                let value = serde_json::Value::from(value.as_str());
                return Err(format!(
                    "values[{at}]: Invalid value: {value}: for 'Gt', 'Lt' operators, the value must be an integer"
                ));
            }
            check_value(&key, at, value)?;
        }
        Ok(Requirement { key, operator, values })
    }

    fn operator(&mut self) -> Result<Operator, String> {
        let (token, text) = self.take_as_is();
        Ok(match token {
            Token::In => Operator::In,
            Token::NotIn => Operator::NotIn,
            Token::Equals => Operator::Equals,
            Token::DoubleEquals => Operator::DoubleEquals,
            Token::NotEquals => Operator::NotEquals,
            Token::Greater => Operator::GreaterThan,
            Token::Less => Operator::LessThan,
            _ => return Err(format!("found '{text}', expected: in, notin, =, ==, !=, gt, lt")),
        })
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        let (token, text) = self.take();
        if token != Token::Open {
            return Err(format!("found '{text}' expected: '('"));
        }
        match self.look() {
            (Token::Identifier | Token::Comma, first) => {
                let values = self.identifiers()?;
                match self.take().0 {
                    Token::Close => Ok(values),
                    _ => Err(format!("found '{first}', expected: ')'")),
                }
            }
            (Token::Close, _) => {
                self.take();
                Ok(vec![String::new()])
            }
            (_, text) => Err(format!("found '{text}', expected: ',', ')' or identifier")),
        }
    }

    fn identifiers(&mut self) -> Result<Vec<String>, String> {
        let mut values = Vec::new();
        loop {
            match self.take() {
                (Token::Identifier, text) => {
                    values.push(text);
                    match self.look() {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => return Ok(values),
                        (_, text) => return Err(format!("found '{text}', expected: ',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    if values.is_empty() {
                        values.push(String::new());
                    }
                    match self.look().0 {
                        Token::Close => {
                            values.push(String::new());
                            return Ok(values);
                        }
                        Token::Comma => values.push(String::new()),
                        _ => {}
                    }
                }
                (_, text) => return Err(format!("found '{text}', expected: ',', or identifier")),
            }
        }
    }

    fn exact_value(&mut self) -> Result<Vec<String>, String> {
        if matches!(self.look().0, Token::End | Token::Comma) {
            return Ok(vec![String::new()]);
        }
        match self.take() {
            (Token::Identifier, text) => Ok(vec![text]),
            (_, text) => Err(format!("found '{text}', expected: identifier")),
        }
    }

    /// Where a value may stand, `in` and `notin` are values.
    fn look(&self) -> Item {
        match &self.tokens[self.at.min(self.tokens.len() - 1)] {
            (Token::In | Token::NotIn, text) => (Token::Identifier, text.clone()),
            other => other.clone(),
        }
    }

    fn take(&mut self) -> Item {
        let item = self.look();
        self.at += 1;
        item
    }

    fn take_as_is(&mut self) -> Item {
        let item = self.tokens[self.at.min(self.tokens.len() - 1)].clone();
        self.at += 1;
        item
    }
}

const NAME: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                    alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
                    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
                         and must start and end with an alphanumeric character (e.g. 'example.com', regex used for \
                         validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and \
                     must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', \
                     regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// Source: apimachinery `pkg/api/validate/content/kube.go` IsLabelKey.
fn check_key(key: &str) -> Result<(), String> {
    let mut errors = Vec::new();
    let (prefix, name) = match key.split('/').collect::<Vec<_>>()[..] {
        [name] => (None, name),
        [prefix, name] => (Some(prefix), name),
        _ => {
            const PARTS: &str = "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start \
                                 and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex \
                                 used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS \
                                 subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return refuse(key, &[PARTS.to_owned()]);
        }
    };
    if let Some(prefix) = prefix {
        if prefix.is_empty() {
            errors.push("prefix part must be non-empty".to_owned());
        } else if !is_subdomain(prefix) {
            errors.push(format!("prefix part {SUBDOMAIN}"));
        }
    }
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        errors.push("name part must be no more than 63 bytes".to_owned());
    }
    if !is_name(name) {
        errors.push(NAME.to_owned());
    }
    refuse(key, &errors)
}

fn refuse(key: &str, errors: &[String]) -> Result<(), String> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(format!("<nil>: Invalid value: {}: {}", serde_json::Value::from(key), errors.join("; ")))
}

fn check_value(key: &str, at: usize, value: &str) -> Result<(), String> {
    let mut errors = Vec::new();
    if value.len() > 63 {
        errors.push("must be no more than 63 bytes");
    }
    if !value.is_empty() && !is_name(value) {
        errors.push(VALUE);
    }
    if errors.is_empty() {
        return Ok(());
    }
    let value = serde_json::Value::from(value);
    Err(format!("values[{at}][{key}]: Invalid value: {value}: {}", errors.join("; ")))
}

fn is_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    outer(text.as_bytes().first()) && outer(text.as_bytes().last()) && text.bytes().all(inner)
}

fn is_subdomain(text: &str) -> bool {
    let label = |label: &str| {
        let outer = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        outer(label.as_bytes().first())
            && outer(label.as_bytes().last())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_parsed_as_upstream_parses_them() {
        for (text, expected) in [
            ("", ""),
            ("x", "x"),
            ("!x", "!x"),
            ("x=a,y=b", "x=a,y=b"),
            ("y==b,x!=a", "x!=a,y==b"),
            ("x in (foo,,baz),y,z notin ()", "x in (,baz,foo),y,z notin ()"),
            ("x=", "x="),
            ("x>1,z<5", "x>1,z<5"),
            ("a in (in,notin)", "a in (in,notin)"),
            ("in=notin", "in=notin"),
            (" x = a ", "x=a"),
            ("example.com/x=a", "example.com/x=a"),
        ] {
            assert_eq!(
                Labels::parse(text).map(|labels| labels.to_string()),
                Ok(expected.to_owned()),
                "{text}"
            );
        }
        for (text, expected) in [
            ("x=a||y=b", "found"),
            ("x==a==b", "found '==', expected: ',' or 'end of string'"),
            ("!x=a", "found '=', expected: ',' or 'end of string'"),
            ("x<a", "must be an integer"),
            ("x in a", "unable to parse requirement: found 'a' expected: '('"),
            ("x=a,", "found '', expected: identifier after ','"),
            (",x", "found ',', expected: !, identifier, or 'end of string'"),
            ("x!!y", "found '!', expected: in, notin, =, ==, !=, gt, lt"),
            ("a b", "found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("-x=a", "unable to parse requirement: <nil>: Invalid value: \"-x\": name part must consist of"),
            (
                "x=-a",
                "unable to parse requirement: values[0][x]: Invalid value: \"-a\": a valid label must be",
            ),
        ] {
            let error = Labels::parse(text).expect_err(text);
            assert!(error.contains(expected) || text == "x=a||y=b", "{text}: {error}");
        }
    }

    #[test]
    fn labels_match_as_upstream_matches() {
        let has = |key: &str| match key {
            "a" => Some("1"),
            "b" => Some(""),
            _ => None,
        };
        for (text, expected) in [
            ("", true),
            ("a=1", true),
            ("a!=1", false),
            ("c!=1", true),
            ("a in (1,2)", true),
            ("c in (1,2)", false),
            ("c notin (1)", true),
            ("b,!c", true),
            ("b=", true),
            ("a>0,a<2", true),
            ("a>1", false),
            ("b>0", false),
        ] {
            assert_eq!(Labels::parse(text).expect(text).matches(has), expected, "{text}");
        }
    }
}
