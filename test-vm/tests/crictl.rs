//! Stock crictl drives corten-cri through the life of pods and containers.

use std::time::Duration;

use corten_test_vm::crictl::{Crictl, text};
use corten_test_vm::machine::Snapshot;
use corten_test_vm::node::{Node, failed};
use corten_test_vm::registry::Registry;
use corten_test_vm::{artifacts, http, need, wait};
use serde_json::json;

const BUSYBOX: &str = "registry.k8s.io/e2e-test-images/busybox:1.29-2";
const NGINX: &str = "registry.k8s.io/e2e-test-images/nginx:1.14-2";

/// Bindings of a node with a daemon, a registry behind its mirrors, and crictl.
macro_rules! stack {
    ($node:ident, $crictl:ident, $registry:ident) => {
        let mut $node = need!(Node::new());
        let $registry =
            need!(Registry::start(&need!(artifacts::registry_storage()), &$node.dir().join("registry")));
        $node.mirror(&["docker.io", "registry.k8s.io", "gcr.io"], &$registry.address);
        let $crictl = need!(Crictl::of(&$node));
        $node.start_cri();
    };
}

#[test]
fn every_command_of_a_pods_life_works() {
    stack!(node, crictl, registry);
    assert!(crictl.run(&["version"]).contains("corten"));
    let info = crictl.json(&["info"]);
    let ready =
        info["status"]["conditions"].as_array().expect("conditions").iter().all(|c| c["status"] == true);
    assert!(ready, "{info}");
    // What pods share (the bridge, the cgroup above them, the frame of the rules) comes with the first of them.
    let first = crictl.run_pod(&crictl.pod_config("first", &json!({})));
    crictl.run(&["stopp", &first]);
    crictl.run(&["rmp", &first]);
    let before = Snapshot::take(&node.root().join("pods"), &node.cgroup);

    crictl.run(&["pull", BUSYBOX]);
    let images = crictl.json(&["images", "-o", "json"]);
    assert_eq!(images["images"][0]["repoTags"][0], BUSYBOX, "{images}");

    let pod_config = crictl.pod_config("life", &json!({}));
    let pod = crictl.run_pod(&pod_config);
    let command = ["sh", "-c", "echo out; echo err >&2; trap 'exit 0' TERM; while :; do sleep 1; done"];
    let config = crictl.container_config("main", BUSYBOX, &command, &json!({}));
    let container = crictl.run(&["create", &pod, text(&config), text(&pod_config)]);
    assert_eq!(crictl.json(&["inspect", &container])["status"]["state"], "CONTAINER_CREATED");
    crictl.run(&["start", &container]);

    assert_eq!(crictl.run(&["exec", "-s", &container, "echo", "hi"]), "hi");
    let wrong = failed(&crictl.output(&["exec", "-s", &container, "sh", "-c", "echo no >&2; exit 3"]));
    assert!(wrong.contains('3') && wrong.contains("no"), "{wrong}");
    wait::until("both streams are in the log", || {
        let output = crictl.output(&["logs", &container]);
        let both = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if both.0.contains("out") && both.1.contains("err") { Ok(()) } else { Err(format!("{both:?}")) }
    });
    let running = crictl.json(&["ps", "-o", "json"]);
    assert_eq!(running["containers"][0]["id"], container.as_str(), "{running}");
    let pods = crictl.json(&["pods", "-o", "json"]);
    assert_eq!(
        (&pods["items"][0]["id"], &pods["items"][0]["state"]),
        (&json!(pod), &json!("SANDBOX_READY")),
        "{pods}"
    );
    assert_eq!(crictl.json(&["inspectp", &pod])["status"]["metadata"]["name"], "life");

    crictl.run(&["stop", "-t", "10", &container]);
    let status = crictl.json(&["inspect", &container]);
    assert_eq!(
        (&status["status"]["state"], &status["status"]["exitCode"]),
        (&json!("CONTAINER_EXITED"), &json!(0)),
        "{status}"
    );
    crictl.run(&["rm", &container]);
    assert_eq!(crictl.json(&["ps", "-a", "-o", "json"])["containers"], json!([]));
    crictl.run(&["stopp", &pod]);
    assert_eq!(crictl.json(&["pods", "-o", "json"])["items"][0]["state"], "SANDBOX_NOTREADY");
    crictl.run(&["rmp", &pod]);
    assert_eq!(crictl.json(&["pods", "-o", "json"])["items"], json!([]));
    crictl.run(&["rmi", BUSYBOX]);
    assert_eq!(crictl.json(&["images", "-o", "json"])["images"], json!([]));

    let left = Snapshot::take(&node.root().join("pods"), &node.cgroup).since(&before);
    assert!(left.is_empty(), "a removed pod left or took:\n{left}");
    drop(registry);
}

#[test]
fn two_containers_of_a_pod_see_one_network() {
    stack!(node, crictl, registry);
    for image in [BUSYBOX, NGINX] {
        crictl.run(&["pull", image]);
    }
    let pod_config = crictl.pod_config("shared", &json!({}));
    let pod = crictl.run_pod(&pod_config);
    let web = crictl.container_config("web", NGINX, &[], &json!({ "command": null }));
    crictl.run_container(&pod, &web, &pod_config);
    let shell = crictl.container_config("shell", BUSYBOX, &["sleep", "600"], &json!({}));
    let shell = crictl.run_container(&pod, &shell, &pod_config);
    wait::until("the neighbour answers on 127.0.0.1", || {
        let output = crictl.output(&["exec", "-s", &shell, "wget", "-q", "-O", "-", "http://127.0.0.1/"]);
        let page = String::from_utf8_lossy(&output.stdout).into_owned();
        if page.contains("Welcome to nginx!") { Ok(()) } else { Err(format!("{output:?}")) }
    });
    let seen = crictl.run(&["exec", "-s", &shell, "ip", "-o", "-4", "addr", "show", "eth0"]);
    assert!(seen.contains(&crictl.pod_ip(&pod)), "{seen}");
    drop((registry, node));
}

#[test]
fn a_host_port_answers_from_the_host() {
    stack!(node, crictl, registry);
    crictl.run(&["pull", NGINX]);
    let mapping = json!({ "port_mappings": [{ "protocol": 0, "container_port": 80, "host_port": 18080 }] });
    let pod_config = crictl.pod_config("ported", &mapping);
    let pod = crictl.run_pod(&pod_config);
    let web = crictl.container_config("web", NGINX, &[], &json!({ "command": null }));
    crictl.run_container(&pod, &web, &pod_config);
    for address in ["127.0.0.1:18080", "10.99.0.1:18080"] {
        let page = wait::until(address, || http::get(address, "/"));
        assert!(page.contains("Welcome to nginx!"), "{page}");
    }
    crictl.run(&["stopp", &pod]);
    http::get("127.0.0.1:18080", "/").expect_err("a stopped pod's port is free");
    drop((registry, node));
}

#[test]
fn pods_reach_each_other_by_address() {
    stack!(node, crictl, registry);
    for image in [BUSYBOX, NGINX] {
        crictl.run(&["pull", image]);
    }
    let web_pod = crictl.pod_config("web", &json!({}));
    let web = crictl.run_pod(&web_pod);
    crictl.run_container(
        &web,
        &crictl.container_config("web", NGINX, &[], &json!({ "command": null })),
        &web_pod,
    );
    let other_pod = crictl.pod_config("other", &json!({}));
    let other = crictl.run_pod(&other_pod);
    let shell = crictl.container_config("shell", BUSYBOX, &["sleep", "600"], &json!({}));
    let shell = crictl.run_container(&other, &shell, &other_pod);
    let (web_ip, other_ip) = (crictl.pod_ip(&web), crictl.pod_ip(&other));
    assert_ne!(web_ip, other_ip);
    wait::until("one pod gets the other's page", || {
        let output =
            crictl.output(&["exec", "-s", &shell, "wget", "-q", "-O", "-", &format!("http://{web_ip}/")]);
        let page = String::from_utf8_lossy(&output.stdout).into_owned();
        if page.contains("Welcome to nginx!") { Ok(()) } else { Err(format!("{output:?}")) }
    });
    drop((registry, node));
}

#[test]
fn the_image_says_who_runs_and_the_pod_may_say_otherwise() {
    stack!(node, crictl, registry);
    let image = "gcr.io/k8s-staging-cri-tools/test-image-user-username:latest";
    crictl.run(&["pull", image]);
    let pod_config = crictl.pod_config("users", &json!({}));
    let pod = crictl.run_pod(&pod_config);
    let config = crictl.container_config("image", image, &["sleep", "600"], &json!({}));
    let by_image = crictl.run_container(&pod, &config, &pod_config);
    assert_eq!(crictl.run(&["exec", "-s", &by_image, "id", "-u"]), "33");
    let security = json!({ "linux": { "security_context": { "run_as_user": { "value": 1234 }, "run_as_group": { "value": 5678 } } } });
    let config = crictl.container_config("pod", image, &["sleep", "600"], &security);
    let by_pod = crictl.run_container(&pod, &config, &pod_config);
    assert_eq!(crictl.run(&["exec", "-s", &by_pod, "sh", "-c", "id -u; id -g"]), "1234\n5678");
    drop((registry, node));
}

#[test]
fn stop_kills_what_ignores_its_signal_after_the_grace_period() {
    stack!(node, crictl, registry);
    crictl.run(&["pull", BUSYBOX]);
    let pod_config = crictl.pod_config("stubborn", &json!({}));
    let pod = crictl.run_pod(&pod_config);
    let command = ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"];
    let config = crictl.container_config("stubborn", BUSYBOX, &command, &json!({}));
    let container = crictl.run_container(&pod, &config, &pod_config);
    let started = std::time::Instant::now();
    crictl.run(&["stop", "-t", "1", &container]);
    let took = started.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_secs(20)).contains(&took), "{took:?}");
    assert_eq!(crictl.json(&["inspect", &container])["status"]["exitCode"], 137);
    drop((registry, node));
}
