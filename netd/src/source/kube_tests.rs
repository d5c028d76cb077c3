//! What is read from and written into Node objects. The source against a real API server: `cargo xtask conformance
//! netd-kube`.

use super::*;
use corten_netlink::route::Mac;

fn object(value: Value) -> Object {
    serde_json::from_value(value).unwrap()
}

fn keys() -> Keys {
    Keys::new("flannel.alpha.coreos.com").unwrap()
}

fn announcement() -> Announcement {
    Announcement {
        public_ips: PublicIps {
            v4: Some("192.0.2.1".parse().unwrap()),
            v6: Some("2001:db8::1".parse().unwrap()),
        },
        backend: Backend::Vxlan {
            vni: 1,
            vtep: Dual { v4: Some(Mac([2, 0, 0, 0, 0, 4])), v6: Some(Mac([2, 0, 0, 0, 0, 6])) },
        },
    }
}

#[test]
fn prefixes_are_completed_as_flannel_does() {
    let prefix = |text: &str| Keys::new(text).map(|keys| keys.key("public-ip"));
    assert_eq!(prefix("flannel.alpha.coreos.com").unwrap(), "flannel.alpha.coreos.com/public-ip");
    assert_eq!(prefix("a.b/").unwrap(), "a.b/public-ip");
    assert_eq!(prefix("a.b/two").unwrap(), "a.b/two-public-ip");
    assert_eq!(prefix("a.b/two-").unwrap(), "a.b/two-public-ip");
    for wrong in ["", "flannel", "a.b/c/d", "A.b", ".b", "a.b/C"] {
        assert!(prefix(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_node_is_known_by_flag_by_name_or_by_its_pod() {
    let whoami = |given: Option<&str>, env: &[(&str, &str)]| {
        Whoami::from_env(given, |name| env.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned()))
    };
    assert_eq!(whoami(Some("a"), &[("NODE_NAME", "b")]), Whoami::Node("a".into()));
    assert_eq!(whoami(None, &[("NODE_NAME", "b"), ("POD_NAME", "p")]), Whoami::Node("b".into()));
    assert_eq!(
        whoami(None, &[("NODE_NAME", ""), ("POD_NAME", "p"), ("POD_NAMESPACE", "n")]),
        Whoami::Pod { name: "p".into(), namespace: "n".into() }
    );
    assert_eq!(whoami(None, &[("POD_NAME", "p")]), Whoami::Unknown);
}

#[test]
fn a_node_of_flanneld_is_understood() {
    let node = object(json!({
        "metadata": { "name": "b", "annotations": {
            "flannel.alpha.coreos.com/backend-data": "{\"VNI\":1,\"VtepMAC\":\"12:c6:65:89:b4:e3\"}",
            "flannel.alpha.coreos.com/backend-type": "vxlan",
            "flannel.alpha.coreos.com/kube-subnet-manager": "true",
            "flannel.alpha.coreos.com/public-ip": "192.0.2.2",
            "unrelated": "x" } },
        "spec": { "podCIDR": "10.244.2.0/24", "podCIDRs": ["10.244.2.0/24"], "taints": [] },
        "status": { "images": [{ "names": ["x"] }], "conditions": [] }
    }));
    let node = node.node(&keys()).unwrap().unwrap();
    assert_eq!(node.pod_cidrs.v4.unwrap().to_string(), "10.244.2.0/24");
    assert_eq!(node.public_ips, PublicIps { v4: Some("192.0.2.2".parse().unwrap()), v6: None });
    let vtep = Dual { v4: Some("12:c6:65:89:b4:e3".parse().unwrap()), v6: None };
    assert_eq!(node.backend, Backend::Vxlan { vni: 1, vtep });
    let bare = object(json!({ "metadata": { "name": "c" }, "spec": { "podCIDR": "10.244.3.0/24" } }));
    assert!(bare.node(&keys()).is_none(), "flannel does not run there");
    assert_eq!(bare.pod_cidrs().unwrap().v4.unwrap().to_string(), "10.244.3.0/24");
}

#[test]
fn what_a_node_lacks_is_written_and_then_nothing() {
    let mut node = object(json!({
        "metadata": { "name": "a", "annotations": {
            "flannel.alpha.coreos.com/public-ip": "192.0.2.77",
            "flannel.alpha.coreos.com/public-ipv6-overwrite": "2001:db8::99" } },
        "spec": {}
    }));
    let patch = node.lacking(&keys(), &announcement()).unwrap();
    assert_eq!(
        patch["metadata"]["annotations"],
        json!({
            "flannel.alpha.coreos.com/backend-type": "vxlan",
            "flannel.alpha.coreos.com/backend-data": "{\"VNI\":1,\"VtepMAC\":\"02:00:00:00:00:04\"}",
            "flannel.alpha.coreos.com/backend-v6-data": "{\"VNI\":1,\"VtepMAC\":\"02:00:00:00:00:06\"}",
            "flannel.alpha.coreos.com/public-ip": "192.0.2.1",
            "flannel.alpha.coreos.com/public-ipv6": "2001:db8::99",
            "flannel.alpha.coreos.com/kube-subnet-manager": "true",
        })
    );
    let written: BTreeMap<String, String> =
        serde_json::from_value(patch["metadata"]["annotations"].clone()).unwrap();
    node.metadata.annotations.as_mut().unwrap().extend(written);
    assert_eq!(node.lacking(&keys(), &announcement()), None);
    let gateway = Announcement { backend: Backend::HostGw, ..announcement() };
    let patch = node.lacking(&keys(), &gateway).unwrap();
    assert_eq!(patch["metadata"]["annotations"]["flannel.alpha.coreos.com/backend-data"], "null");
}

#[test]
fn annotations_that_make_no_sense_say_which() {
    let node = |name: &str, value: &str| {
        let mut annotations = BTreeMap::from([
            ("flannel.alpha.coreos.com/kube-subnet-manager".to_owned(), "true".to_owned()),
            ("flannel.alpha.coreos.com/backend-type".to_owned(), "vxlan".to_owned()),
        ]);
        annotations.insert(format!("flannel.alpha.coreos.com/{name}"), value.to_owned());
        let node = object(json!({ "metadata": { "name": "b", "annotations": annotations } }));
        node.node(&keys()).unwrap().unwrap_err()
    };
    assert!(node("public-ip", "fd00::1").contains("annotation flannel.alpha.coreos.com/public-ip: fd00::1"));
    assert!(node("backend-data", "{").contains("annotation flannel.alpha.coreos.com/backend-data"));
    assert!(node("backend-data", "null").contains("tells no address of a tunnel device"));
    assert!(node("backend-type", "udp").contains("udp is not supported"));
}

#[test]
fn the_condition_is_up_by_flannels_reason_alone() {
    let up = |status: &str, reason: &str| {
        object(json!({ "metadata": {}, "status": { "conditions": [
            { "type": "NetworkUnavailable", "status": status, "reason": reason } ] } }))
        .network_is_up()
    };
    assert!(up("False", "FlannelIsUp"));
    assert!(!up("True", "FlannelIsUp") && !up("False", "CalicoIsUp"));
}

#[test]
fn whoever_fights_for_the_annotations_is_answered_ever_more_rarely() {
    let start = Instant::now();
    let mut pace = Pace::default();
    let mut writes = |from: u64, to: u64| {
        (from..to).step_by(10).filter(|ms| pace.write(start + Duration::from_millis(*ms)).is_ok()).count()
    };
    assert_eq!(writes(0, 10), 1, "the first at once");
    assert!((8..20).contains(&writes(10, 600_000)));
    assert_eq!(writes(1_000_000, 1_000_010), 1, "at once again after a quiet time");
}
