//! What is wrong with which field, in the words of upstream's `field.Error`.

use std::fmt;

/// One finding: the JSON path of the field and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// `spec.containers[0].ports[1].hostPort`
    pub path: String,
    pub problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// No field of this name exists: a typing error.
    Unknown,
    /// A field of the Pod API that this kubelet does not have; why, or what to use instead.
    NotSupported(&'static str),
    /// The JSON type is wrong; what it must be.
    Type(&'static str),
    Required,
    Invalid {
        value: String,
        why: String,
    },
    Duplicate(String),
    /// None of the values a field may have.
    OneOf {
        value: String,
        supported: &'static [&'static str],
    },
    Forbidden(String),
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path)?;
        match &self.problem {
            Problem::Unknown => f.write_str("unknown field"),
            Problem::NotSupported(why) => write!(f, "not supported in standalone mode ({why})"),
            Problem::Type(expected) => write!(f, "must be {expected}"),
            Problem::Required => f.write_str("Required value"),
            Problem::Invalid { value, why } => write!(f, "Invalid value: {value:?}: {why}"),
            Problem::Duplicate(value) => write!(f, "Duplicate value: {value:?}"),
            Problem::OneOf { value, supported } => {
                let list: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
                write!(f, "Unsupported value: {value:?}: supported values: {}", list.join(", "))
            }
            Problem::Forbidden(why) => write!(f, "Forbidden: {why}"),
        }
    }
}

/// Collects findings; `at` is the path of the object being looked at.
#[derive(Default)]
pub struct Findings(pub Vec<FieldError>);

impl Findings {
    pub fn add(&mut self, path: impl Into<String>, problem: Problem) {
        self.0.push(FieldError { path: path.into(), problem });
    }
    pub fn invalid(&mut self, path: impl Into<String>, value: impl fmt::Display, why: impl Into<String>) {
        self.add(path, Problem::Invalid { value: value.to_string(), why: why.into() });
    }
    pub fn required(&mut self, path: impl Into<String>) {
        self.add(path, Problem::Required);
    }
    pub fn forbidden(&mut self, path: impl Into<String>, why: impl Into<String>) {
        self.add(path, Problem::Forbidden(why.into()));
    }
    /// `value`, when given, must be one of `supported`.
    pub fn one_of(
        &mut self,
        path: impl Into<String>,
        value: Option<&str>,
        supported: &'static [&'static str],
    ) {
        if let Some(value) = value.filter(|v| !supported.contains(v)) {
            self.add(path, Problem::OneOf { value: value.to_owned(), supported });
        }
    }
    pub fn range(&mut self, path: impl Into<String>, value: i64, low: i64, high: i64) {
        if value < low || value > high {
            let why = if high == i64::MAX {
                format!("must be greater than or equal to {low}")
            } else {
                format!("must be between {low} and {high}, inclusive")
            };
            self.invalid(path, value, why);
        }
    }
}
