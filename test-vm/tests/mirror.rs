//! nginx and busybox, pulled by their public names through mirrors from a real registry.

use corten_test_vm::machine::Snapshot;
use corten_test_vm::node::{Node, failed, succeeded};
use corten_test_vm::registry::Registry;
use corten_test_vm::{artifacts, http, need, wait};

const HOSTS: [&str; 3] = ["docker.io", "registry.k8s.io", "gcr.io"];
const NGINX: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/nginx.yaml");

#[test]
fn nginx_and_busybox_come_through_mirrors_and_talk() {
    let mut node = need!(Node::new());
    let registry =
        need!(Registry::start(&need!(artifacts::registry_storage()), &node.dir().join("registry")));
    node.mirror(&HOSTS, &registry.address);
    let before = Snapshot::take(node.dir(), &node.cgroup);

    let printed = succeeded(&node.corten(&["up", "-f", NGINX]));
    assert!(printed.contains("docker.io/library/busybox:latest") && printed.contains("pulled"), "{printed}");
    assert!(printed.contains("2/2 Ready"), "{printed}");
    let status = succeeded(&node.corten(&["status", "-o", "json"]));
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    let ip = status["pods"][0]["ip"].as_str().expect("an address").to_string();
    assert!(http::get(&format!("{ip}:80"), "/").expect("nginx answers").contains("Welcome to nginx!"));
    wait::until("busybox gets the page over 127.0.0.1", || {
        let log = succeeded(&node.corten(&["logs", "nginx", "-c", "busybox"]));
        if log.contains("Welcome to nginx!") { Ok(()) } else { Err(log) }
    });

    succeeded(&node.corten(&["down"]));
    let left = Snapshot::take(node.dir(), &node.cgroup).since(&before);
    // The registry writes nothing of its own while it is only read.
    assert!(left.is_empty(), "down left or took:\n{left}");
}

#[test]
fn images_are_pulled_listed_inspected_and_removed_by_the_command_line() {
    let mut node = need!(Node::new());
    let registry =
        need!(Registry::start(&need!(artifacts::registry_storage()), &node.dir().join("registry")));
    node.mirror(&HOSTS, &registry.address);
    succeeded(&node.corten(&["up"]));
    let image = "gcr.io/k8s-staging-cri-tools/test-image-tags:1";
    succeeded(&node.corten(&["image", "pull", image]));
    let listed = succeeded(&node.corten(&["image", "ls"]));
    assert!(listed.contains(image), "{listed}");
    let inspected: serde_json::Value =
        serde_json::from_str(&succeeded(&node.corten(&["image", "inspect", image]))).expect("JSON");
    assert!(inspected["id"].as_str().is_some_and(|id| id.contains("sha256:")), "{inspected}");
    succeeded(&node.corten(&["image", "rm", image]));
    let listed = succeeded(&node.corten(&["image", "ls"]));
    assert!(!listed.contains(image), "{listed}");
    succeeded(&node.corten(&["down"]));
}

#[test]
fn an_image_that_is_not_there_and_a_registry_that_is_down_are_told_apart() {
    let mut node = need!(Node::new());
    let registry =
        need!(Registry::start(&need!(artifacts::registry_storage()), &node.dir().join("registry")));
    node.mirror(&HOSTS, &registry.address);
    succeeded(&node.corten(&["up"]));
    let missing = failed(&node.corten(&["image", "pull", "registry.k8s.io/nothing:1"]));
    assert!(missing.contains("registry.k8s.io/nothing:1"), "{missing}");
    assert!(missing.contains("not found") || missing.contains("404"), "{missing}");
    let address = registry.address.clone();
    registry.stop();
    let down = failed(&node.corten(&["image", "pull", "registry.k8s.io/pause:3.9"]));
    assert!(down.contains("ECONNREFUSED") || down.contains("refused"), "{down}");
    assert!(down.contains(&address), "the mirror that was asked is named: {down}");
    succeeded(&node.corten(&["down"]));
}

#[test]
fn a_layout_is_loaded_without_a_registry() {
    let mut node = need!(Node::new());
    let layout = need!(artifacts::image_layouts()).join("library_busybox_latest");
    succeeded(&node.corten(&["up"]));
    let path = layout.to_str().expect("UTF-8");
    let loaded = succeeded(&node.corten(&["image", "load", path, "--name", "example.com/loaded:1"]));
    assert!(loaded.contains("example.com/loaded:1"), "{loaded}");
    let absent = failed(&node.corten(&["image", "load", "/nonexistent.tar"]));
    assert!(absent.contains("/nonexistent.tar"), "{absent}");
    succeeded(&node.corten(&["down"]));
}
