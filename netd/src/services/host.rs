//! What the node's kernel must be set to for packets to find back.

use std::path::Path;

use super::model::Family;
use super::status::Mode;

/// Of this thread's network namespace. `families`: of the Services.
pub fn warnings(proc_sys_net: &Path, families: &[Family], mode: &Mode) -> Vec<String> {
    let is_on =
        |name: &str| std::fs::read_to_string(proc_sys_net.join(name)).is_ok_and(|text| text.trim() == "1");
    let mut warnings = Vec::new();
    for family in families {
        let (forwarding, bridge) = match family {
            Family::V4 => ("ipv4/ip_forward", "bridge/bridge-nf-call-iptables"),
            Family::V6 => ("ipv6/conf/all/forwarding", "bridge/bridge-nf-call-ip6tables"),
        };
        if !is_on(forwarding) {
            warnings.push(format!(
                "net/{forwarding} is not 1: who is outside reaches no pod through this node (sysctl -w it)"
            ));
        }
        // An answer from a pod to its neighbour on the bridge does not pass the node's IP layer, and so comes from a
        // stranger: the pod's address instead of the Service's.
        if *mode != Mode::SocketsAndPackets && !is_on(bridge) {
            warnings.push(format!(
                "net/{bridge} is not 1: pods of one bridge do not reach each other through a Service \
                 (modprobe br_netfilter, and sysctl -w it)"
            ));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_off_is_named_where_it_matters() {
        let directory = tempfile::tempdir().expect("a directory");
        let put = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().expect("below")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        let count = |families: &[Family], mode: &Mode| warnings(directory.path(), families, mode).len();
        let packets = Mode::PacketsOnly { why: "a test".into() };
        assert_eq!(count(&[Family::V4, Family::V6], &packets), 4);
        assert_eq!(count(&[Family::V4, Family::V6], &Mode::SocketsAndPackets), 2);
        put("ipv4/ip_forward", "1\n");
        put("bridge/bridge-nf-call-iptables", "0\n");
        assert_eq!(count(&[Family::V4], &Mode::SocketsAndPackets), 0);
        let left = warnings(directory.path(), &[Family::V4], &packets);
        assert!(left[0].contains("bridge-nf-call-iptables is not 1"), "{left:?}");
        put("bridge/bridge-nf-call-iptables", "1\n");
        assert_eq!(count(&[Family::V4], &packets), 0);
        assert_eq!(count(&[], &packets), 0);
    }
}
