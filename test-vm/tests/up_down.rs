//! One command gives a Ready pod, another takes everything away again.

use corten_test_vm::crictl::Crictl;
use corten_test_vm::machine::Snapshot;
use corten_test_vm::node::{Node, failed, succeeded};
use corten_test_vm::{http, need, wait};
use serde_json::json;

fn address_of_hello(status: &str) -> String {
    let status: serde_json::Value = serde_json::from_str(status).expect("status -o json prints JSON");
    status["pods"][0]["ip"].as_str().expect("the pod has an address").to_string()
}

#[test]
fn hello_is_ready_answers_and_leaves_nothing() {
    let mut node = need!(Node::new());
    let before = Snapshot::take(node.dir(), &node.cgroup);

    let printed = succeeded(&node.corten(&["up"]));
    for line in [
        " preflight  ok",
        " image      ok  corten.local/demo:0.1",
        "2/2 Ready",
        " try:  curl http://10.88.0.",
    ] {
        assert!(printed.contains(line), "no {line:?} in:\n{printed}");
    }

    let ip = address_of_hello(&succeeded(&node.corten(&["status", "-o", "json"])));
    let body = http::get(&format!("{ip}:8080"), "/").expect("the pod's address answers from the host");
    assert!(!body.is_empty());
    wait::until("the client's log shows replies", || {
        let log = succeeded(&node.corten(&["logs", "hello", "-c", "client"]));
        if log.contains("200") { Ok(()) } else { Err(log) }
    });
    let version =
        succeeded(&node.corten(&["exec", "hello", "-c", "server", "--", "/corten-demo", "--version"]));
    assert!(version.starts_with("corten-demo "), "{version}");

    let running = Snapshot::take(node.dir(), &node.cgroup).since(&before);
    for kind in ["process", "mount", "cgroup", "link", "address", "route", "rule", "file"] {
        assert!(running.brought(kind), "the snapshot sees no {kind} of a running pod:\n{running}");
    }

    succeeded(&node.corten(&["down"]));
    let left = Snapshot::take(node.dir(), &node.cgroup).since(&before);
    assert!(left.is_empty(), "down left or took:\n{left}");
}

#[test]
fn up_again_changes_nothing_and_down_again_finds_nothing() {
    let mut node = need!(Node::new());
    let first = succeeded(&node.corten(&["up"]));
    let ip = address_of_hello(&succeeded(&node.corten(&["status", "-o", "json"])));
    let daemons = succeeded(&node.corten(&["status", "-o", "json"]));
    let second = succeeded(&node.corten(&["up"]));
    assert!(first.contains(&ip) && second.contains(&ip), "first:\n{first}\nsecond:\n{second}");
    assert_eq!(succeeded(&node.corten(&["status", "-o", "json"])), daemons, "the same daemons, the same pod");
    succeeded(&node.corten(&["down"]));
    assert!(succeeded(&node.corten(&["down"])).contains("nothing to remove"));
}

/// The kernel removes the links of ended pods a little later: `down` gave up on the bridge while one was still there.
#[test]
fn down_removes_the_pods_of_another_client_and_waits_for_their_links() {
    let mut node = need!(Node::new());
    let before = Snapshot::take(node.dir(), &node.cgroup);
    succeeded(&node.corten(&["up"]));
    let crictl = need!(Crictl::of(&node));
    for name in ["one", "two", "three", "four"] {
        crictl.run_pod(&crictl.pod_config(name, &json!({})));
    }
    succeeded(&node.corten(&["down"]));
    let left = Snapshot::take(node.dir(), &node.cgroup).since(&before);
    for kind in ["process", "mount", "cgroup", "link", "address", "route", "rule"] {
        assert!(!left.brought(kind), "down left:\n{left}");
    }
}

#[test]
fn a_pod_of_ones_own_is_run_and_a_wrong_one_is_refused_by_field() {
    let mut node = need!(Node::new());
    let manifest = node.dir().join("pod.yaml");
    let pod = |spec: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: mine}}\nspec:\n  terminationGracePeriodSeconds: 1\n{spec}"
        )
    };
    let file = manifest.to_str().expect("test paths are UTF-8").to_string();
    std::fs::write(
        &manifest,
        pod("  containers: [{name: a, image: 'corten.local/demo:0.1', nonsense: 1}]\n"),
    )
    .expect("write");
    let refused = failed(&node.corten(&["up", "-f", &file, "--timeout", "30"]));
    assert!(refused.contains("nonsense"), "{refused}");
    std::fs::write(
        &manifest,
        pod("  containers: [{name: a, image: 'corten.local/demo:0.1', args: [serve]}]\n"),
    )
    .expect("write");
    let printed = succeeded(&node.corten(&["up", "-f", &file, "--timeout", "30"]));
    assert!(printed.contains("mine  10.88.0.") && printed.contains("1/1 Ready"), "{printed}");
    succeeded(&node.corten(&["down"]));
}

#[test]
fn a_pod_that_cannot_become_ready_says_why() {
    let mut node = need!(Node::new());
    let manifest = node.dir().join("pod.yaml");
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: sick}\nspec:\n  terminationGracePeriodSeconds: 1\n  \
                containers: [{name: a, image: 'corten.local/demo:0.1', command: [/nowhere]}]\n";
    std::fs::write(&manifest, text).expect("write the manifest");
    let said = failed(&node.corten(&["up", "-f", manifest.to_str().expect("UTF-8"), "--timeout", "5"]));
    assert!(said.contains("container a") && said.contains("/nowhere"), "{said}");
    succeeded(&node.corten(&["down"]));
}
