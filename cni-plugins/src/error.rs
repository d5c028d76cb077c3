//! The error a plugin prints: CNI's code, a message, details. The one place that knows the codes.

use std::fmt;

use corten_netlink::NetlinkError;
use corten_sys::Failure;
use corten_sys::netns::NetNsError;
use serde_json::{Value, json};

/// CNI specification, section "Error"; 8 exists only in the Go library, 100 and above belong to a delegate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    IncompatibleVersion,
    UnsupportedField,
    UnknownContainer,
    InvalidEnvironment,
    Io,
    Decoding,
    InvalidConfig,
    InvalidNetns,
    TryAgainLater,
    NotAvailable,
    Internal,
    /// As a delegated plugin said.
    Delegate(u32),
}

impl Code {
    pub fn number(self) -> u32 {
        match self {
            Self::IncompatibleVersion => 1,
            Self::UnsupportedField => 2,
            Self::UnknownContainer => 3,
            Self::InvalidEnvironment => 4,
            Self::Io => 5,
            Self::Decoding => 6,
            Self::InvalidConfig => 7,
            Self::InvalidNetns => 8,
            Self::TryAgainLater => 11,
            Self::NotAvailable => 50,
            Self::Internal => 999,
            Self::Delegate(number) => number,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    pub code: Code,
    pub msg: String,
    pub details: String,
    /// Something that was done before the failure could not be undone.
    pub left_behind: bool,
}

impl Error {
    pub fn new(code: Code, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new(), left_behind: false }
    }

    pub fn config(msg: impl Into<String>) -> Self {
        Self::new(Code::InvalidConfig, msg)
    }

    pub fn environment(msg: impl Into<String>) -> Self {
        Self::new(Code::InvalidEnvironment, msg)
    }

    /// A key this plugin knows and does not do: refused by name rather than ignored.
    pub fn unsupported(key: &str, why: &str) -> Self {
        Self::new(Code::UnsupportedField, format!("configuration key {key:?} is not supported: {why}"))
    }

    pub fn internal(msg: impl Into<String>) -> Self {
        Self::new(Code::Internal, msg)
    }

    #[must_use]
    pub fn details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// What else went wrong while cleaning up; the first error stays the message.
    #[must_use]
    pub fn and(mut self, others: impl IntoIterator<Item = Error>) -> Self {
        for other in others {
            self.left_behind = true;
            if !self.details.is_empty() {
                self.details.push_str("; ");
            }
            self.details.push_str(&other.to_string());
        }
        self
    }

    /// What goes to stdout.
    pub fn to_json(&self, version: Option<&str>) -> Value {
        let mut object = json!({ "code": self.code.number(), "msg": self.msg });
        if let Some(version) = version {
            object["cniVersion"] = version.into();
        }
        if !self.details.is_empty() {
            object["details"] = self.details.as_str().into();
        }
        object
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.msg)?;
        if self.details.is_empty() { Ok(()) } else { write!(f, " ({})", self.details) }
    }
}

/// Every step's outcome into one: the first failure, the others in its details.
pub fn all(outcomes: impl IntoIterator<Item = crate::Result<()>>) -> crate::Result<()> {
    let mut errors = outcomes.into_iter().filter_map(Result::err);
    match errors.next() {
        None => Ok(()),
        Some(first) => Err(first.and(errors)),
    }
}

impl From<NetlinkError> for Error {
    fn from(error: NetlinkError) -> Self {
        Self::internal(error.to_string())
    }
}

impl From<NetNsError> for Error {
    fn from(error: NetNsError) -> Self {
        Self::environment(format!("CNI_NETNS: {error}"))
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::new(Code::Io, failure.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_prints_as_the_specification_says() {
        let error = Error::config("bad range").details("10.0.0.0/32");
        let wanted = json!({"cniVersion": "1.0.0", "code": 7, "msg": "bad range", "details": "10.0.0.0/32"});
        assert_eq!(error.to_json(Some("1.0.0")), wanted);
        assert_eq!(Error::internal("x").to_json(None), json!({"code": 999, "msg": "x"}));
    }

    #[test]
    fn cleaning_up_keeps_the_first_error_and_tells_the_others() {
        let outcome = all([Ok(()), Err(Error::config("first")), Err(Error::internal("second"))]);
        let error = outcome.expect_err("two failed");
        assert_eq!(
            (error.code, error.msg.as_str(), error.details.as_str()),
            (Code::InvalidConfig, "first", "second")
        );
        assert!(error.left_behind);
    }
}
