//! The log that callers read: logrus' shape, as runc writes it. containerd takes its error text from `msg`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

impl std::str::FromStr for Format {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Self> {
        match name {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => bail!("unknown log-format {name:?}: use text or json"),
        }
    }
}

/// Opened for append, so that a caller may keep one file over several calls. Without a file, standard error.
#[derive(Debug)]
pub struct Log {
    file: Option<File>,
    format: Format,
}

impl Log {
    pub fn open(path: Option<&PathBuf>, format: Format) -> anyhow::Result<Self> {
        let file = match path {
            None => None,
            Some(path) => {
                let file = OpenOptions::new().append(true).create(true).open(path);
                Some(file.with_context(|| format!("open log file {}", path.display()))?)
            }
        };
        Ok(Self { file, format })
    }

    pub fn warning(&self, message: &str) {
        self.write("warning", message);
    }

    pub fn warnings(&self, messages: &[String]) {
        for message in messages {
            self.warning(message);
        }
    }

    pub fn error(&self, message: &str) {
        self.write("error", message);
    }

    /// Whether errors go to a file, so that standard error should have them too.
    pub fn is_file(&self) -> bool {
        self.file.is_some()
    }

    fn write(&self, level: &str, message: &str) {
        let line = line(self.format, level, message, &time());
        // A log that cannot be written must not stop a container.
        let _ = match &self.file {
            Some(file) => (&*file).write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
    }
}

fn line(format: Format, level: &str, message: &str, time: &str) -> String {
    match format {
        Format::Json => {
            let object = serde_json::json!({ "level": level, "msg": message, "time": time });
            format!("{object}\n")
        }
        Format::Text => format!("time={time:?} level={level} msg={message:?}\n"),
    }
}

/// RFC 3339 in seconds, as logrus.
fn time() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    corten_runtime::rfc3339(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_keys_of_logrus() {
        let json = line(Format::Json, "error", "a \"b\"\nc", "T");
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value, serde_json::json!({"level": "error", "msg": "a \"b\"\nc", "time": "T"}));
        assert_eq!(json.matches('\n').count(), 1);
        assert_eq!(
            line(Format::Text, "warning", "x \"y\"", "T"),
            "time=\"T\" level=warning msg=\"x \\\"y\\\"\"\n"
        );
    }
}
