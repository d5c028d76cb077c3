//! One line of arguments out of a file, the environment and the command line, in the order in which they count.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use serde_json::Value;

use super::{Cli, OptionsError, refused};

const PREFIX: &str = "CORTEN_APISERVER_";

/// `typed`: without the program's name. Flags without a subcommand mean `run`.
///
/// # Errors
/// A flag is one that upstream has and we have not; the file of --config cannot be read.
pub fn line(
    typed: Vec<OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<OsString>, OptionsError> {
    let mut line: Vec<OsString> = vec!["corten-apiserver".into()];
    let first = typed.first().and_then(|first| first.to_str()).unwrap_or_default();
    let is_run = first == "run";
    if !is_run && (first.is_empty() || !first.starts_with('-') || is_help(first)) && !typed.is_empty() {
        line.extend(typed);
        return Ok(line);
    }
    let typed: Vec<OsString> = typed.into_iter().skip(usize::from(is_run)).map(two_dashes).collect();
    for word in &typed {
        refuse(word)?;
    }
    line.push("run".into());
    let flags = flags();
    let file = given(&typed, "config").or_else(|| environment(&variable("config")));
    if let Some(file) = file.map(PathBuf::from) {
        for word in of_file(&file)? {
            refuse(&word)?;
            line.push(word);
        }
    }
    for flag in &flags {
        if let Some(value) = environment(&variable(flag)) {
            line.push(assigned(flag, &value));
        }
    }
    line.extend(typed);
    Ok(line)
}

fn is_help(word: &str) -> bool {
    matches!(word, "-h" | "--help" | "-V" | "--version" | "help")
}

fn flags() -> Vec<String> {
    let command = Cli::command();
    let run = command.find_subcommand("run").expect("there is a subcommand run");
    run.get_arguments()
        .filter_map(|arg| arg.get_long())
        .filter(|long| *long != "help")
        .map(str::to_owned)
        .collect()
}

fn variable(flag: &str) -> String {
    format!("{PREFIX}{}", flag.to_uppercase().replace('-', "_"))
}

fn assigned(flag: &str, value: &OsStr) -> OsString {
    let mut word = OsString::from(format!("--{flag}="));
    word.push(value);
    word
}

/// Go takes one dash for two.
fn two_dashes(word: OsString) -> OsString {
    match word.to_str() {
        Some(text)
            if text.len() > 2
                && text.starts_with('-')
                && !text.starts_with("--")
                && !text.starts_with("-v=") =>
        {
            format!("-{text}").into()
        }
        _ => word,
    }
}

fn name(word: &OsStr) -> Option<&str> {
    let flag = word.to_str()?.strip_prefix("--")?;
    Some(flag.split_once('=').map_or(flag, |(flag, _)| flag))
}

fn refuse(word: &OsStr) -> Result<(), OptionsError> {
    match name(word).and_then(|flag| Some((flag, refused::remedy(flag)?))) {
        Some((flag, remedy)) => Err(OptionsError::Refused { flag: flag.to_owned(), remedy }),
        None => Ok(()),
    }
}

fn given(typed: &[OsString], flag: &str) -> Option<OsString> {
    let at = typed.iter().rposition(|word| name(word) == Some(flag))?;
    match typed[at].to_str()?.split_once('=') {
        Some((_, value)) => Some(value.into()),
        None => typed.get(at + 1).cloned(),
    }
}

fn of_file(file: &Path) -> Result<Vec<OsString>, OptionsError> {
    let failed = |error: String| OptionsError::Config { file: file.to_owned(), error };
    let text = std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
    let is_toml = file.extension().is_some_and(|extension| extension == "toml");
    let settings: serde_json::Map<String, Value> = if is_toml {
        toml::from_str(&text).map_err(|error| failed(error.to_string()))?
    } else {
        let read: Option<_> = serde_yaml_ng::from_str(&text).map_err(|error| failed(error.to_string()))?;
        read.unwrap_or_default()
    };
    let word = |(key, value): (&String, &Value)| {
        let text = plain(value)
            .ok_or_else(|| OptionsError::ConfigValue { file: file.to_owned(), key: key.clone() })?;
        Ok(format!("--{key}={text}").into())
    };
    settings.iter().map(word).collect()
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Array(list) => {
            let list: Option<Vec<_>> = list.iter().map(plain).collect();
            Some(list?.join(","))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Command, Options, Storage};
    use super::*;

    fn options(typed: &[&str], environment: &[(&str, &str)]) -> Result<Options, String> {
        let typed = typed.iter().map(OsString::from).collect();
        let find = |name: &str| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        };
        let line = line(typed, find).map_err(|error| error.to_string())?;
        let cli = Cli::try_parse_from(line).map_err(|error| error.to_string())?;
        let Command::Run(run) = cli.command else { return Err("another command".into()) };
        run.options().map_err(|error| error.to_string())
    }

    #[test]
    fn without_a_flag_it_serves() {
        let options = options(&[], &[]).expect("defaults");
        assert_eq!(options.bind.port(), 6443);
        assert!(
            matches!(options.storage, Storage::Embedded { file } if file.ends_with("apiserver/store.redb"))
        );
        assert_eq!(options.authorization, ["Node", "RBAC"]);
    }

    #[test]
    fn the_command_line_counts_more_than_the_environment_and_that_more_than_the_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("config.yaml");
        std::fs::write(
            &file,
            "secure-port: 1001\nevent-ttl: 5m\nauthorization-mode: [RBAC]\nanonymous-auth: false\n",
        )
        .expect("written");
        let config = format!("--config={}", file.display());
        let variables =
            [("CORTEN_APISERVER_SECURE_PORT", "1002"), ("CORTEN_APISERVER_REQUEST_TIMEOUT", "7s")];
        let read = options(&[&config], &variables).expect("fine");
        assert_eq!(
            (read.bind.port(), read.event_ttl.as_secs(), read.request_timeout.as_secs()),
            (1002, 300, 7)
        );
        assert_eq!(read.authorization, ["RBAC"]);
        assert!(!read.anonymous);
        let read = options(&[&config, "-secure-port", "1003"], &variables).expect("fine");
        assert_eq!(read.bind.port(), 1003);
        let toml = directory.path().join("config.toml");
        std::fs::write(&toml, "secure-port = 1004\nauthorization-mode = [\"RBAC\"]\n").expect("written");
        let read = options(&["--config", &toml.display().to_string()], &[]).expect("fine");
        assert_eq!(read.bind.port(), 1004);
        std::fs::write(&toml, "feature-gates = \"A=true\"\n").expect("written");
        let error = options(&["--config", &toml.display().to_string()], &[]).expect_err("refused");
        assert!(error.starts_with("--feature-gates is not served by corten-apiserver"), "{error}");
        std::fs::write(&toml, "no-such-flag = 1\n").expect("written");
        let error = options(&["--config", &toml.display().to_string()], &[]).expect_err("refused");
        assert!(error.contains("--no-such-flag"), "{error}");
    }

    /// All flags of kube-apiserver 1.36.3 but the ones of the process itself.
    const UPSTREAM: &str = include_str!("upstream_flags.txt");

    #[test]
    fn every_flag_of_upstream_is_served_or_refused_by_name_with_a_remedy() {
        let served = flags();
        for flag in UPSTREAM.split_whitespace() {
            let refused = refused::remedy(flag);
            assert!(served.iter().any(|name| name == flag) != refused.is_some(), "{flag}");
            if refused.is_some() {
                let error = options(&[&format!("--{flag}=x")], &[]).expect_err("refused");
                assert!(error.contains(flag) && error.contains(": "), "{error}");
            }
        }
        assert!(refused::all().all(|flag| UPSTREAM.split_whitespace().any(|name| name == flag)));
        assert!(refused::all().is_sorted());
    }

    #[test]
    fn what_does_not_go_together_is_said() {
        #[rustfmt::skip]
        let table: &[(&[&str], &str)] = &[
            (&["--tls-cert-file=a"], "--tls-cert-file and --tls-private-key-file belong together"),
            (&["--etcd-servers=http://a", "--storage=memory"], "--etcd-servers"),
            (&["--authorization-mode=Webhook"], "--authorization-mode Webhook"),
            (&["--service-cluster-ip-range=10.96.0.0"], "--service-cluster-ip-range"),
            (&["--service-node-port-range=30"], "--service-node-port-range"),
            (&["--storage-media-type=application/vnd.kubernetes.protobuf"], "--storage-media-type"),
            (&["--profiling=true"], "--profiling"),
            (&["--allow-privileged=maybe"], "allow-privileged"),
            (&["--controllers=*,nobody"], "--controllers"),
            (&["--audit-policy-file=a"], "--audit-policy-file needs --audit-log-path"),
        ];
        for (typed, expected) in table {
            let error = options(typed, &[]).expect_err("refused");
            assert!(error.contains(expected), "{typed:?}: {error}");
        }
    }
}
