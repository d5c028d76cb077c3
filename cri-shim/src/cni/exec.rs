//! One plugin, run once: a process group of its own, killed whole when it takes too long; output bounded, since what a
//! plugin prints is not ours.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::request::Verb;

/// More output than this is an error: a result is a few hundred bytes.
const STDOUT_LIMIT_BYTES: u64 = 1 << 20;
/// What of stderr is quoted.
const STDERR_LIMIT_BYTES: u64 = 4 << 10;
/// A plugin file that is being replaced (ETXTBSY) is tried again this often.
const BUSY_RETRIES: u32 = 5;

/// Why a plugin did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    #[error("CNI plugin {plugin}: not found in {}; install it there", dirs(.searched))]
    Missing { plugin: String, searched: Vec<PathBuf> },
    #[error("CNI plugin {path} {verb}: {}", crate::error::io_text(source))]
    Run { path: PathBuf, verb: &'static str, source: std::io::Error },
    #[error("CNI plugin {plugin} {verb}: killed with all it started, it took longer than {} s", .after.as_secs())]
    Timeout { plugin: String, verb: &'static str, after: Duration },
    #[error("CNI plugin {plugin} {verb}: error {code}: {message}")]
    Refused { plugin: String, verb: &'static str, code: u64, message: String },
    #[error("CNI plugin {plugin} {verb}: {status} without an error on stdout; stderr: {stderr:?}")]
    Died { plugin: String, verb: &'static str, status: std::process::ExitStatus, stderr: String },
    #[error("CNI plugin {plugin} {verb}: what it printed is no CNI result: {why}")]
    Output { plugin: String, verb: &'static str, why: String },
}

impl PluginError {
    /// The plugin's own error code, where it gave one.
    pub fn code(&self) -> Option<u64> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}

fn dirs(searched: &[PathBuf]) -> String {
    searched.iter().map(|d| d.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// What is run.
pub struct PluginRun<'a> {
    pub plugin: &'a str,
    pub verb: Verb,
    pub bin_dirs: &'a [PathBuf],
    pub environment: Vec<(&'static str, String)>,
    pub stdin: &'a Value,
    pub timeout: Duration,
}

impl PluginRun<'_> {
    /// Runs it. `None`: it succeeded and printed nothing, as DEL does.
    pub async fn run(self) -> Result<Option<Value>, PluginError> {
        let path = self.find()?;
        let mut child = self.spawn(&path).await?;
        let group = child.id().and_then(|pid| rustix::process::Pid::from_raw(pid as i32));
        let finished = tokio::time::timeout(self.timeout, self.talk(&mut child)).await;
        if finished.is_err() || matches!(finished, Ok(Err(_))) {
            // Everything the plugin started is in its group. Not reaped yet, so the number is still its own.
            if let Some(group) = group {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            let _ = child.wait().await;
        }
        match finished {
            Err(_) => Err(PluginError::Timeout {
                plugin: self.plugin.into(),
                verb: self.verb.name(),
                after: self.timeout,
            }),
            Ok(Err(source)) => Err(PluginError::Run { path, verb: self.verb.name(), source }),
            Ok(Ok(output)) => self.judge(&output),
        }
    }

    fn find(&self) -> Result<PathBuf, PluginError> {
        let found = self.bin_dirs.iter().map(|dir| dir.join(self.plugin)).find(|path| path.is_file());
        found.ok_or_else(|| PluginError::Missing {
            plugin: self.plugin.into(),
            searched: self.bin_dirs.to_vec(),
        })
    }

    async fn spawn(&self, path: &std::path::Path) -> Result<Child, PluginError> {
        let mut command = Command::new(path);
        command
            .envs(self.environment.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .current_dir("/")
            .process_group(0)
            .kill_on_drop(true);
        let mut tries = 0;
        loop {
            match command.spawn() {
                Err(e) if e.kind() == std::io::ErrorKind::ExecutableFileBusy && tries < BUSY_RETRIES => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Ok(child) => return Ok(child),
                Err(source) => {
                    return Err(PluginError::Run { path: path.into(), verb: self.verb.name(), source });
                }
            }
        }
    }

    async fn talk(&self, child: &mut Child) -> std::io::Result<Output> {
        let mut stdin = child.stdin.take().expect("piped");
        let mut stdout = child.stdout.take().expect("piped").take(STDOUT_LIMIT_BYTES + 1);
        let mut stderr = child.stderr.take().expect("piped").take(STDERR_LIMIT_BYTES);
        let input = serde_json::to_vec(self.stdin)?;
        let feed = async move {
            // A plugin need not read its configuration to the end (VERSION does not read any of it).
            let _ = stdin.write_all(&input).await;
            drop(stdin);
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let read_out = stdout.read_to_end(&mut out);
        let read_err = async {
            stderr.read_to_end(&mut err).await?;
            // The rest is thrown away, so that the plugin does not block on a full pipe.
            tokio::io::copy(&mut stderr.into_inner(), &mut tokio::io::sink()).await
        };
        let ((), read_out, read_err, status) = tokio::join!(feed, read_out, read_err, child.wait());
        read_out?;
        read_err?;
        Ok(Output { out, err, status: status? })
    }

    fn judge(&self, output: &Output) -> Result<Option<Value>, PluginError> {
        let (plugin, verb) = (self.plugin.to_owned(), self.verb.name());
        if output.out.len() as u64 > STDOUT_LIMIT_BYTES {
            return Err(PluginError::Output { plugin, verb, why: "more than 1 MiB".into() });
        }
        let value = serde_json::from_slice::<Value>(&output.out);
        if output.status.success() {
            return match value {
                Ok(value @ Value::Object(_)) => Ok(Some(value)),
                _ if output.out.trim_ascii().is_empty() => Ok(None),
                Ok(_) => Err(PluginError::Output { plugin, verb, why: "not an object".into() }),
                Err(e) => Err(PluginError::Output { plugin, verb, why: e.to_string() }),
            };
        }
        match value {
            Ok(error) if error.get("code").is_some() => Err(refusal(plugin, verb, &error)),
            _ => {
                let stderr = String::from_utf8_lossy(&output.err).trim().to_owned();
                Err(PluginError::Died { plugin, verb, status: output.status, stderr })
            }
        }
    }
}

fn refusal(plugin: String, verb: &'static str, error: &Value) -> PluginError {
    let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default();
    let mut message: String = text("msg").chars().take(2000).collect();
    if !text("details").is_empty() {
        message.push_str("; ");
        message.extend(text("details").chars().take(2000));
    }
    PluginError::Refused { plugin, verb, code: error["code"].as_u64().unwrap_or(999), message }
}

struct Output {
    out: Vec<u8>,
    err: Vec<u8>,
    status: std::process::ExitStatus,
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    fn script(dir: &Path, name: &str, body: &str) {
        let path = dir.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    async fn run(dir: &Path, plugin: &str, timeout: Duration) -> Result<Option<Value>, PluginError> {
        let bin_dirs = [dir.to_path_buf()];
        let stdin = serde_json::json!({"name": "net"});
        let environment = vec![("CNI_COMMAND", "ADD".to_owned())];
        PluginRun { plugin, verb: Verb::Add, bin_dirs: &bin_dirs, environment, stdin: &stdin, timeout }
            .run()
            .await
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_result_an_empty_answer_and_every_kind_of_failure() {
        let dir = tempfile::tempdir().unwrap();
        script(dir.path(), "good", "cat");
        script(dir.path(), "silent", "exit 0");
        script(dir.path(), "refuses", r#"echo '{"code":7,"msg":"no subnet","details":"left"}'; exit 1"#);
        script(dir.path(), "dies", "echo oops >&2; exit 3");
        script(dir.path(), "babbles", "echo hello");
        script(dir.path(), "floods", "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2");
        assert_eq!(run(dir.path(), "good", LONG).await.unwrap(), Some(serde_json::json!({"name": "net"})));
        assert_eq!(run(dir.path(), "silent", LONG).await.unwrap(), None);
        for (plugin, words) in [
            ("refuses", "CNI plugin refuses ADD: error 7: no subnet; left"),
            ("dies", "oops"),
            ("babbles", "no CNI result"),
            ("floods", "CNI plugin floods"),
            ("absent", "CNI plugin absent: not found in"),
        ] {
            let error = run(dir.path(), plugin, LONG).await.unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[tokio::test]
    async fn a_plugin_that_hangs_dies_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        script(
            dir.path(),
            "hangs",
            &format!("sleep 1000 & echo $! > {}.tmp; mv {0}.tmp {0}; wait", pid_file.display()),
        );
        let error = run(dir.path(), "hangs", Duration::from_millis(1500)).await.unwrap_err();
        assert!(matches!(error, PluginError::Timeout { .. }), "{error}");
        let child = std::fs::read_to_string(&pid_file).unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.trim()));
        // Gone, or a zombie that waits for this machine's init.
        assert!(stat.is_err() || stat.as_ref().unwrap().contains(") Z"), "{stat:?}");
    }
}
