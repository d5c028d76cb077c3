//! What one plugin is told: its environment and its stdin.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::INTERFACE;
use super::attachment::{Attachment, PodNetwork};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Add,
    Del,
    Status,
}

impl Verb {
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Status => "STATUS",
        }
    }
}

/// Tells plugins that the network namespace goes away right after DEL, so that what is inside it (a veth's end, and
/// with it the other end) need not be deleted one by one, which takes the kernel 17 ms each (design D5). Plugins that
/// do not know it ignore it.
pub const NETNS_DOOMED: (&str, &str) = ("CORTEN_NETNS_DOOMED", "1");

/// The variables of the specification, and containerd's arguments.
pub fn environment(
    verb: Verb,
    pod: Option<&PodNetwork>,
    bin_dirs: &[PathBuf],
) -> Vec<(&'static str, String)> {
    let path = bin_dirs.iter().map(|d| d.display().to_string()).collect::<Vec<_>>().join(":");
    let mut all = vec![("CNI_COMMAND", verb.name().to_owned()), ("CNI_PATH", path)];
    let Some(pod) = pod else { return all };
    // A namespace that is gone is told by an empty name; DEL must still release the address.
    let netns = if verb == Verb::Del && !pod.netns.exists() { Path::new("") } else { &pod.netns };
    all.extend([
        ("CNI_CONTAINERID", pod.sandbox_id.clone()),
        ("CNI_NETNS", netns.display().to_string()),
        ("CNI_IFNAME", INTERFACE.to_owned()),
        ("CNI_ARGS", arguments(pod)),
    ]);
    if verb == Verb::Del {
        all.push((NETNS_DOOMED.0, NETNS_DOOMED.1.to_owned()));
    }
    all
}

fn arguments(pod: &PodNetwork) -> String {
    // `;` and `=` separate; a pod's name has neither, but nothing may rest on that.
    let clean = |text: &str| text.replace([';', '='], "");
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
        clean(&pod.namespace),
        clean(&pod.name),
        clean(&pod.sandbox_id),
        clean(&pod.uid)
    )
}

/// The plugin's own configuration with the network's name and version, the capability arguments it can use, and the
/// result so far.
pub fn stdin(attachment: &Attachment, plugin: &Map<String, Value>, previous: Option<&Value>) -> Value {
    let mut config = bare(&attachment.network.name, &attachment.network.cni_version, plugin);
    let can_use = |name: &str| {
        plugin.get("capabilities").and_then(|c| c.get(name)).and_then(Value::as_bool) == Some(true)
    };
    let runtime_config: Map<String, Value> = attachment
        .pod
        .capabilities
        .iter()
        .filter(|(name, _)| can_use(name))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    if !runtime_config.is_empty() {
        config.insert("runtimeConfig".into(), Value::Object(runtime_config));
    }
    if let Some(previous) = previous {
        config.insert("prevResult".into(), previous.clone());
    }
    Value::Object(config)
}

/// The configuration for a verb that is about no pod (STATUS).
pub fn bare(name: &str, version: &str, plugin: &Map<String, Value>) -> Map<String, Value> {
    let mut config = plugin.clone();
    config.remove("capabilities");
    config.insert("name".into(), json!(name));
    config.insert("cniVersion".into(), json!(version));
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::config;

    fn attachment() -> Attachment {
        let network = config::parse(
            r#"{"name":"net","cniVersion":"1.0.0","plugins":[{"type":"bridge"},
            {"type":"portmap","capabilities":{"portMappings":true,"bandwidth":false}}]}"#,
            true,
        )
        .unwrap();
        let capabilities = [("portMappings", json!([{"hostPort": 80}])), ("bandwidth", json!({}))];
        Attachment::new(
            PodNetwork {
                sandbox_id: "abc".into(),
                name: "web".into(),
                namespace: "default".into(),
                uid: "u-1".into(),
                netns: "/nonexistent/netns".into(),
                capabilities: capabilities.map(|(k, v)| (k.to_owned(), v)).into_iter().collect(),
            },
            network,
        )
    }

    #[test]
    fn a_plugin_gets_only_the_capabilities_it_can_use() {
        let a = attachment();
        let bridge = stdin(&a, &a.network.plugins[0], None);
        assert_eq!(bridge, json!({"type":"bridge","name":"net","cniVersion":"1.0.0"}));
        let portmap = stdin(&a, &a.network.plugins[1], Some(&json!({"ips":[]})));
        assert_eq!(portmap["runtimeConfig"], json!({"portMappings":[{"hostPort":80}]}));
        assert_eq!(portmap["prevResult"], json!({"ips":[]}));
        assert_eq!(portmap.get("capabilities"), None);
    }

    #[test]
    fn the_environment_is_containerds() {
        let a = attachment();
        let environment: std::collections::HashMap<_, _> =
            environment(Verb::Add, Some(&a.pod), &["/opt/cni/bin".into(), "/b".into()]).into_iter().collect();
        assert_eq!(environment["CNI_PATH"], "/opt/cni/bin:/b");
        assert_eq!(environment["CNI_NETNS"], "/nonexistent/netns");
        assert_eq!(
            environment["CNI_ARGS"],
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=abc;K8S_POD_UID=u-1"
        );
        assert!(!environment.contains_key(NETNS_DOOMED.0));
    }

    #[test]
    fn del_says_so_when_the_namespace_is_gone() {
        let environment: std::collections::HashMap<_, _> =
            environment(Verb::Del, Some(&attachment().pod), &[]).into_iter().collect();
        assert_eq!(environment["CNI_NETNS"], "");
        assert_eq!(environment[NETNS_DOOMED.0], NETNS_DOOMED.1);
    }
}
