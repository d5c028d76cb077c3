//! 10-flannel.conflist: the CNI configuration that has a runtime call the plugin `flannel`, then `portmap`.
//!
//! As kube-flannel's ConfigMap has it. Paths and the bridge are written only where they are not the defaults.

use std::path::Path;

use serde_json::json;

/// The file's name in a CNI configuration directory.
pub const NAME: &str = "10-flannel.conflist";
const SUBNET_FILE: &str = "/run/flannel/subnet.env";
const BRIDGE: &str = "cni0";

/// The file's text. `subnet_file`: what the plugin reads; `bridge`: what it attaches pods to.
pub fn text(subnet_file: &Path, bridge: &str) -> String {
    let mut delegate = json!({ "hairpinMode": true, "isDefaultGateway": true });
    if bridge != BRIDGE {
        delegate["bridge"] = json!(bridge);
    }
    let mut flannel = json!({ "type": "flannel", "delegate": delegate });
    if subnet_file != Path::new(SUBNET_FILE) {
        flannel["subnetFile"] = json!(subnet_file);
    }
    let list = json!({
        "cniVersion": "1.0.0",
        "cniVersions": ["1.0.0", "1.1.0"],
        "name": "cbr0",
        "plugins": [flannel, { "type": "portmap", "capabilities": { "portMappings": true } }],
    });
    let mut text = serde_json::to_string_pretty(&list).expect("a JSON value is JSON");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_kube_flannels_and_not_repeated() {
        let list: serde_json::Value = serde_json::from_str(&text(Path::new(SUBNET_FILE), BRIDGE)).unwrap();
        assert_eq!(list["name"], "cbr0");
        assert_eq!(
            list["plugins"][0],
            json!({ "type": "flannel", "delegate": { "hairpinMode": true, "isDefaultGateway": true } })
        );
        assert_eq!(list["plugins"][1]["capabilities"]["portMappings"], true);
    }

    #[test]
    fn what_differs_from_the_defaults_is_written() {
        let list: serde_json::Value = serde_json::from_str(&text(Path::new("/tmp/s.env"), "br7")).unwrap();
        assert_eq!(list["plugins"][0]["subnetFile"], "/tmp/s.env");
        assert_eq!(list["plugins"][0]["delegate"]["bridge"], "br7");
    }
}
