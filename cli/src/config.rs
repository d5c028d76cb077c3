//! What an instance tells its daemons: the text of every file `up` generates. Pure.

use std::path::Path;

use serde_json::{Value, json};

use crate::instance::{Instance, Settings};

/// The plugins of the pod network, all one program.
pub const CNI_PLUGINS: [&str; 4] = ["bridge", "host-local", "loopback", "portmap"];

/// The pod network: every pod gets an address of `pod_cidr` on the bridge, its traffic to elsewhere is masqueraded.
pub fn conflist(instance: &Instance, settings: &Settings) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": settings.network,
        "plugins": [
            {
                "type": "bridge",
                "bridge": settings.bridge,
                "isGateway": true,
                "ipMasq": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": instance.ipam(),
                    "ranges": [[{ "subnet": settings.pod_cidr }]],
                    "routes": [{ "dst": "0.0.0.0/0" }]
                }
            },
            { "type": "portmap", "capabilities": { "portMappings": true } }
        ]
    })
}

/// The configuration of corten-cri.
pub fn cri_toml(instance: &Instance, settings: &Settings, monitor: &Path) -> String {
    let mut certs = vec![instance.config.join("certs.d")];
    if instance.config == Path::new("/etc/corten") {
        certs.push("/etc/containerd/certs.d".into());
    }
    let path = |path: &Path| quoted(&path.to_string_lossy());
    let certs: Vec<String> = certs.iter().map(|dir| path(dir)).collect();
    format!(
        "# Written by `corten up`; changes are overwritten.\n\
         root = {}\nstate = {}\nsocket = {}\ncgroup_parent = {}\nmonitor = {}\n\n\
         [cni]\nbin_dirs = [{}]\nconf_dir = {}\n\n\
         [registry]\ncerts_dirs = [{}]\n",
        path(&instance.root),
        path(&instance.state),
        path(&instance.cri_socket()),
        quoted(&settings.cgroup_parent),
        path(monitor),
        path(&instance.cni_bin()),
        path(&instance.cni_conf()),
        certs.join(", "),
    )
}

/// The node's name: this machine's, as a DNS label; static pods carry it in their names.
pub fn node_name() -> String {
    label(&rustix::system::uname().nodename().to_string_lossy())
}

fn label(hostname: &str) -> String {
    let clean: String = hostname
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let label = clean.trim_matches('-');
    // RFC 1123: 63 bytes; a pod's name and this one share the 253 of a DNS name.
    if label.is_empty() { "node".into() } else { label.chars().take(63).collect() }
}

/// The command line of corten-kubelet.
pub fn kubelet_args(instance: &Instance, settings: &Settings) -> Vec<String> {
    let path = |path: std::path::PathBuf| path.display().to_string();
    let pairs = [
        ("--manifests", path(instance.manifests())),
        ("--runtime-endpoint", format!("unix://{}", instance.cri_socket().display())),
        ("--root-dir", path(instance.kubelet_root())),
        ("--state", path(instance.kubelet_state())),
        ("--log-dir", path(instance.pod_logs())),
        ("--node-name", node_name()),
        ("--cgroup-root", settings.cgroup_parent.clone()),
    ];
    pairs.into_iter().flat_map(|(flag, value)| [flag.to_string(), value]).collect()
}

/// A TOML basic string; JSON's escapes are a subset of TOML's.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(config: &str) -> Instance {
        Instance { root: "/r".into(), state: "/s \"x\"".into(), config: config.into() }
    }

    #[test]
    fn nothing_of_a_private_instance_points_outside_it() {
        let settings = Settings { cgroup_parent: "/t1".into(), ..Settings::default() };
        let text = cri_toml(&instance("/c"), &settings, Path::new("/bin/corten-monitor"));
        assert!(!text.contains("/etc/") && !text.contains("/var/") && !text.contains("/run/"), "{text}");
        assert!(text.contains(r#"state = "/s \"x\"""#), "{text}");
        assert!(text.contains(r#"certs_dirs = ["/c/certs.d"]"#), "{text}");
        assert_eq!(conflist(&instance("/c"), &settings)["plugins"][0]["ipam"]["dataDir"], "/r/cni/networks");
    }

    #[test]
    fn host_names_become_labels() {
        for (host, expected) in [("Web1.example.com", "web1-example-com"), ("", "node"), ("(none)", "none")] {
            assert_eq!(label(host), expected);
        }
    }

    #[test]
    fn the_default_configuration_reads_containerds_registries_too() {
        let text = cri_toml(&instance("/etc/corten"), &Settings::default(), Path::new("/m"));
        assert!(text.contains(r#"["/etc/corten/certs.d", "/etc/containerd/certs.d"]"#), "{text}");
    }
}
