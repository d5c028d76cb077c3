//! The plugins of a network, one after the other.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};

use super::attachment::Attachment;
use super::config::NetworkList;
use super::exec::{PluginError, PluginRun};
use super::request::{self, Verb};
use super::{CniError, addresses};

/// Where plugins are and how long one may take.
#[derive(Clone, Debug)]
pub struct Cni {
    pub bin_dirs: Vec<PathBuf>,
    pub conf_dir: PathBuf,
    pub plugin_timeout: Duration,
}

impl Cni {
    async fn run(
        &self,
        verb: Verb,
        attachment: &Attachment,
        plugin: &Map<String, Value>,
        previous: Option<&Value>,
    ) -> Result<Option<Value>, PluginError> {
        let stdin = request::stdin(attachment, plugin, previous);
        let environment = request::environment(verb, Some(&attachment.pod), &self.bin_dirs);
        self.plugin_run(verb, plugin, environment, &stdin).run().await
    }

    fn plugin_run<'a>(
        &'a self,
        verb: Verb,
        plugin: &'a Map<String, Value>,
        environment: Vec<(&'static str, String)>,
        stdin: &'a Value,
    ) -> PluginRun<'a> {
        PluginRun {
            plugin: kind(plugin),
            verb,
            bin_dirs: &self.bin_dirs,
            environment,
            stdin,
            timeout: self.plugin_timeout,
        }
    }

    /// Whether the network can be used now: its configuration reads, and from CNI 1.1 on every plugin says so.
    pub async fn ready(&self) -> Result<NetworkList, CniError> {
        let network = super::load(&self.conf_dir)?;
        if network.at_least("1.1.0") {
            for plugin in &network.plugins {
                let stdin = Value::Object(request::bare(&network.name, &network.cni_version, plugin));
                let environment = request::environment(Verb::Status, None, &self.bin_dirs);
                match self.plugin_run(Verb::Status, plugin, environment, &stdin).run().await {
                    // 4 is what a plugin says that has no STATUS (an unknown CNI_COMMAND).
                    Ok(_) | Err(PluginError::Refused { code: 4, .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(network)
    }
}

fn kind(plugin: &Map<String, Value>) -> &str {
    plugin.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// Attaches the pod. The record stands in `dir` before the first plugin runs, and holds the result after the last.
/// A failure leaves the record: [`delete`] is owed.
pub async fn add(cni: &Cni, attachment: &mut Attachment, dir: &Path) -> Result<Vec<String>, CniError> {
    attachment.write(dir)?;
    let mut previous: Option<Value> = None;
    for plugin in &attachment.network.plugins {
        let result = cni.run(Verb::Add, attachment, plugin, previous.as_ref()).await?;
        previous = Some(result.ok_or_else(|| PluginError::Output {
            plugin: kind(plugin).into(),
            verb: Verb::Add.name(),
            why: "nothing".into(),
        })?);
    }
    attachment.result = previous;
    attachment.write(dir)?;
    let found = attachment.result.as_ref().map(addresses).unwrap_or_default();
    if found.is_empty() {
        return Err(CniError::NoAddress { network: attachment.network.name.clone() });
    }
    Ok(found)
}

/// Detaches the pod whose record is in `dir`, with the configuration that ADD used, in reverse. Every plugin is asked
/// even if one fails (requirement L3: a failing one must not keep the others' addresses); the record goes when all
/// have succeeded. No record: nothing is owed.
pub async fn delete(cni: &Cni, dir: &Path) -> Result<(), CniError> {
    let Some(attachment) = Attachment::read(dir)? else { return Ok(()) };
    let previous = if attachment.network.at_least("0.4.0") { attachment.result.as_ref() } else { None };
    let mut errors = Vec::new();
    for plugin in attachment.network.plugins.iter().rev() {
        if let Err(error) = cni.run(Verb::Del, &attachment, plugin, previous).await {
            errors.push(error);
        }
    }
    if !errors.is_empty() {
        return Err(CniError::Delete { network: attachment.network.name, errors });
    }
    Attachment::remove(dir)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;
    use crate::cni::{PodNetwork, config};

    /// A plugin that notes each call in `calls`, and fails where its own configuration says so.
    const PLUGIN: &str = r#"#!/bin/sh
dir=$(dirname "$0")
conf=$(cat)
echo "$CNI_COMMAND $(basename "$0") $CNI_NETNS $conf" >> "$dir/calls"
case "$conf" in *"\"fail\":\"$CNI_COMMAND\""*) echo '{"code":100,"msg":"told to fail"}'; exit 1;; esac
[ "$CNI_COMMAND" = ADD ] && echo "{\"cniVersion\":\"1.0.0\",\"ips\":[{\"address\":\"10.9.0.2/24\"}],\"by\":\"$(basename "$0")\"}"
exit 0
"#;

    struct Bench {
        dir: tempfile::TempDir,
        cni: Cni,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            for name in ["first", "second"] {
                let path = dir.path().join(name);
                std::fs::write(&path, PLUGIN).unwrap();
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            }
            let cni = Cni {
                bin_dirs: vec![dir.path().into()],
                conf_dir: dir.path().into(),
                plugin_timeout: Duration::from_secs(20),
            };
            Self { dir, cni }
        }

        fn attachment(&self, first: Value, second: Value) -> Attachment {
            let text = json!({"name":"net","cniVersion":"1.0.0","plugins":[first, second]}).to_string();
            let pod = PodNetwork {
                sandbox_id: "abc".into(),
                name: "web".into(),
                namespace: "default".into(),
                uid: "u".into(),
                netns: self.dir.path().into(),
                capabilities: Map::new(),
            };
            Attachment::new(pod, config::parse(&text, true).unwrap())
        }

        fn calls(&self) -> Vec<String> {
            let text = std::fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default();
            text.lines().map(|l| l.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
        }
    }

    #[tokio::test]
    async fn add_runs_in_order_and_del_in_reverse_with_what_add_used() {
        let bench = Bench::new();
        let mut attachment = bench.attachment(json!({"type":"first"}), json!({"type":"second"}));
        let found = add(&bench.cni, &mut attachment, bench.dir.path()).await.unwrap();
        assert_eq!(found, ["10.9.0.2"]);
        assert_eq!(attachment.result.as_ref().unwrap()["by"], "second");
        delete(&bench.cni, bench.dir.path()).await.unwrap();
        assert_eq!(bench.calls(), ["ADD first", "ADD second", "DEL second", "DEL first"]);
        let text = std::fs::read_to_string(bench.dir.path().join("calls")).unwrap();
        let dels: Vec<&str> = text.lines().filter(|l| l.starts_with("DEL")).collect();
        assert!(
            dels.iter().all(|l| l.contains(r#""prevResult""#) && l.contains(r#""by":"second""#)),
            "{dels:?}"
        );
        // Twice is fine: nothing is owed any more.
        delete(&bench.cni, bench.dir.path()).await.unwrap();
        assert_eq!(bench.calls().len(), 4);
    }

    #[tokio::test]
    async fn a_failed_add_leaves_the_record_that_del_needs() {
        let bench = Bench::new();
        let mut attachment = bench.attachment(json!({"type":"first"}), json!({"type":"second","fail":"ADD"}));
        let error = add(&bench.cni, &mut attachment, bench.dir.path()).await.unwrap_err().to_string();
        assert!(error.contains("second ADD") && error.contains("told to fail"), "{error}");
        delete(&bench.cni, bench.dir.path()).await.unwrap();
        assert_eq!(bench.calls(), ["ADD first", "ADD second", "DEL second", "DEL first"]);
    }

    #[tokio::test]
    async fn a_failing_del_does_not_keep_the_others_from_theirs_and_stays_owed() {
        let bench = Bench::new();
        let mut attachment = bench.attachment(json!({"type":"first"}), json!({"type":"second","fail":"DEL"}));
        add(&bench.cni, &mut attachment, bench.dir.path()).await.unwrap();
        let error = delete(&bench.cni, bench.dir.path()).await.unwrap_err().to_string();
        assert!(error.contains("second DEL"), "{error}");
        assert_eq!(bench.calls()[2..], ["DEL second", "DEL first"]);
        assert!(Attachment::read(bench.dir.path()).unwrap().is_some());
    }
}
