//! How a command ended, as it is written to the error stream.

use serde_json::{Value, json};

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// It ran, and ended with another code than 0.
    Exit {
        code: u8,
        message: String,
    },
    /// It could not be run, or the way to it broke.
    Failure(String),
}

impl Outcome {
    /// For protocol version 4 and later a Status; for older ones the text of an error, and nothing for success.
    pub(super) fn encode(&self, version: u8) -> Vec<u8> {
        if version >= 4 {
            return self.status().to_string().into_bytes();
        }
        match self {
            Self::Success => Vec::new(),
            Self::Exit { message, .. } => exit_message(message).into_bytes(),
            Self::Failure(message) => format!("Internal error occurred: {message}").into_bytes(),
        }
    }

    /// As a Status.
    pub fn status(&self) -> Value {
        match self {
            Self::Success => json!({"metadata": {}, "status": "Success"}),
            Self::Exit { code, message } => json!({
                "metadata": {}, "status": "Failure", "message": exit_message(message), "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Self::Failure(message) => json!({
                "metadata": {}, "status": "Failure", "message": format!("Internal error occurred: {message}"),
                "reason": "InternalError", "details": {"causes": [{"message": message}]}, "code": 500,
            }),
        }
    }

    /// What a client of version 4 makes of what came on the error stream. Source: client-go `tools/remotecommand/v4.go`.
    pub fn of_error_stream(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return Self::Success;
        }
        let wrong = |what: &str| Self::Failure(format!("error stream protocol error: {what}"));
        let status: Value = match serde_json::from_slice(bytes) {
            Ok(status) => status,
            Err(error) => return wrong(&format!("{error} in {:?}", String::from_utf8_lossy(bytes))),
        };
        let text = |key: &str| status[key].as_str().unwrap_or_default();
        match (text("status"), text("reason")) {
            ("Success", _) => Self::Success,
            ("Failure", "NonZeroExitCode") => {
                let Some(details) = status.get("details") else { return wrong("details must be set") };
                let causes = details["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
                let Some(cause) = causes.iter().find(|cause| cause["reason"] == "ExitCode") else {
                    return wrong("no ExitCode cause given");
                };
                let code = cause["message"].as_str().unwrap_or_default();
                match code.parse() {
                    Ok(code) => {
                        Self::Exit { code, message: format!("command terminated with exit code {code}") }
                    }
                    Err(_) => wrong(&format!("invalid exit code value {code:?}")),
                }
            }
            ("Failure", _) => Self::Failure(text("message").to_owned()),
            _ => wrong("unknown error"),
        }
    }
}

fn exit_message(message: &str) -> String {
    format!("command terminated with non-zero exit code: {message}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_goes_as_a_cause_and_comes_back() {
        let exit = Outcome::Exit { code: 3, message: "command terminated with exit code 3".to_owned() };
        assert_eq!(Outcome::of_error_stream(&exit.encode(4)), exit);
        assert_eq!(
            exit.status()["message"],
            "command terminated with non-zero exit code: command terminated with exit code 3"
        );
        assert_eq!(Outcome::of_error_stream(&Outcome::Success.encode(5)), Outcome::Success);
        let failure = Outcome::of_error_stream(&Outcome::Failure("no such container".to_owned()).encode(4));
        assert_eq!(failure, Outcome::Failure("Internal error occurred: no such container".to_owned()));
        assert_eq!(Outcome::Success.encode(3), b"");
        assert!(exit.encode(1).starts_with(b"command terminated"));
    }

    #[test]
    fn what_is_no_status_is_a_failure_that_says_so() {
        for wrong in [
            "x",
            "{}",
            "[]",
            "{\"status\":\"Failure\",\"reason\":\"NonZeroExitCode\"}",
            "{\"status\":\"Failure\",\"reason\":\"NonZeroExitCode\",\"details\":{\"causes\":[{\"reason\":\"ExitCode\",\"message\":\"256\"}]}}",
        ] {
            let outcome = Outcome::of_error_stream(wrong.as_bytes());
            assert!(
                matches!(&outcome, Outcome::Failure(why) if why.contains("protocol error")),
                "{wrong}: {outcome:?}"
            );
        }
    }
}
