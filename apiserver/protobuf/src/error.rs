//! What is wrong with a message, and where.

use std::fmt;

/// `path`: as `spec.containers.image`; empty: of the message as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub path: String,
    pub problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("the message does not begin with k8s\\0")]
    NoEnvelope,
    #[error("the content has the encoding {0:?}, which is not supported")]
    Encoding(String),
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    NoKind { api_version: String, kind: String },
    #[error("unexpected EOF")]
    Truncated,
    #[error("integer overflow")]
    Overflow,
    #[error("illegal tag {0}")]
    Tag(u64),
    #[error("wrong wireType = {0}")]
    WireType(u8),
    #[error("the text is not UTF-8")]
    Utf8,
    #[error("nested deeper than {0} levels")]
    Depth(usize),
    #[error("the embedded object is not JSON: {0}")]
    NotJson(String),
    #[error("seconds {0} are no time between the years 0 and 9999")]
    Time(i64),
    #[error("{0} is expected")]
    Form(&'static str),
}

impl Error {
    /// The same, seen from the message around it.
    pub(crate) fn within(mut self, name: &str) -> Self {
        let separator = if self.path.is_empty() { "" } else { "." };
        self.path = format!("{name}{separator}{}", self.path);
        self
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self { path: String::new(), problem }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.path.is_empty() { "" } else { ": " };
        write!(f, "proto: {}{separator}{}", self.path, self.problem)
    }
}

impl std::error::Error for Error {}
