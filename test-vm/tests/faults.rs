//! What breaks: daemons and monitors killed, images and roots missing. Containers go on where they can, and nothing
//! stays behind.

use std::fs;
use std::process::Command;

use corten_test_vm::crictl::{Crictl, text};
use corten_test_vm::node::{Node, failed, kill};
use corten_test_vm::registry::Registry;
use corten_test_vm::{artifacts, need, wait};
use serde_json::json;

const BUSYBOX: &str = "registry.k8s.io/e2e-test-images/busybox:1.29-2";
const TICK: [&str; 3] = ["sh", "-c", "i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.1; done"];

macro_rules! stack {
    ($node:ident, $crictl:ident, $registry:ident) => {
        let mut $node = need!(Node::new());
        let $registry =
            need!(Registry::start(&need!(artifacts::registry_storage()), &$node.dir().join("registry")));
        $node.mirror(&["registry.k8s.io"], &$registry.address);
        let $crictl = need!(Crictl::of(&$node));
        $node.start_cri();
        $crictl.run(&["pull", BUSYBOX]);
    };
}

fn lines(file: &std::path::Path) -> usize {
    fs::read_to_string(file).unwrap_or_default().lines().count()
}

#[test]
fn a_killed_daemon_costs_no_container_and_no_line_and_the_next_knows_everything() {
    stack!(node, crictl, registry);
    let pod_config = crictl.pod_config("survivor", &json!({}));
    let pod = crictl.run_pod(&pod_config);
    let ticking =
        crictl.run_container(&pod, &crictl.container_config("tick", BUSYBOX, &TICK, &json!({})), &pod_config);
    let short = ["sh", "-c", "sleep 1; exit 7"];
    let ending = crictl.run_container(
        &pod,
        &crictl.container_config("short", BUSYBOX, &short, &json!({})),
        &pod_config,
    );
    let pid = crictl.json(&["inspect", &ticking])["info"]["pid"].as_i64();

    node.kill_cri();
    let log = crictl.logs().join("survivor/tick.log");
    let at_death = lines(&log);
    wait::until_true("the log goes on without the daemon", || lines(&log) > at_death + 10);

    node.start_cri();
    let status = crictl.json(&["inspect", &ticking]);
    assert_eq!(status["status"]["state"], "CONTAINER_RUNNING", "{status}");
    assert_eq!(status["info"]["pid"].as_i64(), pid, "the same process");
    assert_eq!(crictl.run(&["exec", "-s", &ticking, "echo", "still"]), "still");
    wait::until("the exit that nobody saw is known", || {
        let status = crictl.json(&["inspect", &ending]);
        if status["status"]["exitCode"] == 7 { Ok(()) } else { Err(status.to_string()) }
    });
    assert_eq!(crictl.json(&["inspectp", &pod])["status"]["state"], "SANDBOX_READY");
    let text = fs::read_to_string(&log).expect("the log");
    let ticks: Vec<usize> = text.lines().filter_map(|l| l.rsplit(' ').next()?.parse().ok()).collect();
    assert!(ticks.windows(2).all(|pair| pair[1] == pair[0] + 1), "a line was lost or came twice");
    crictl.run(&["stopp", &pod]);
    crictl.run(&["rmp", &pod]);
    drop(registry);
}

#[test]
fn a_killed_monitor_is_reported_dead_and_everything_of_it_is_swept() {
    stack!(node, crictl, registry);
    let pod_config = crictl.pod_config("orphan", &json!({}));
    let pod = crictl.run_pod(&pod_config);
    let ticking =
        crictl.run_container(&pod, &crictl.container_config("tick", BUSYBOX, &TICK, &json!({})), &pod_config);
    let monitor = monitor_of(&node, &pod);
    kill(monitor);
    wait::until("the container is reported dead", || {
        let status = crictl.json(&["inspect", &ticking]);
        if status["status"]["state"] == "CONTAINER_EXITED" { Ok(()) } else { Err(status.to_string()) }
    });
    wait::until("the sandbox is reported dead", || {
        let status = crictl.json(&["inspectp", &pod]);
        if status["status"]["state"] == "SANDBOX_NOTREADY" { Ok(()) } else { Err(status.to_string()) }
    });
    crictl.run(&["stopp", &pod]);
    crictl.run(&["rmp", &pod]);
    let left = members(&node);
    assert!(left.is_empty(), "processes {left:?} outlived their pod");
    assert!(!node.state().join("netns").join(&pod).exists());
    assert_eq!(fs::read_dir(node.state().join("pods")).map_or(0, Iterator::count), 0);
    drop(registry);
}

/// The process that holds `pod`.
fn monitor_of(node: &Node, pod: &str) -> i32 {
    let record = node.state().join("pods").join(pod).join("monitor.json");
    let record = fs::read(&record).unwrap_or_else(|e| panic!("{}: {e}", record.display()));
    let record: serde_json::Value = serde_json::from_slice(&record).expect("a monitor's record is JSON");
    record["pid"].as_i64().expect("it names its pid") as i32
}

/// Every process inside the node's cgroups.
fn members(node: &Node) -> Vec<String> {
    let pids = fs::read_dir("/proc").expect("procfs").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let inside = |pid: &i32| {
        let zombie = fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| s.contains(") Z "));
        let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        !zombie && cgroup.contains(&format!("/{}", node.cgroup))
    };
    pids.filter(inside).map(|pid| pid.to_string()).collect()
}

#[test]
fn a_second_daemon_on_the_same_socket_is_refused_and_the_first_goes_on() {
    stack!(node, crictl, registry);
    let second =
        Command::new(node.program("corten-cri")).arg("--config").arg(node.write_cri_config()).output();
    let said = failed(&second.expect("start a second corten-cri"));
    let names_it = said.contains(&node.dir().display().to_string());
    assert!(names_it, "the second daemon names what it found taken: {said}");
    assert!(crictl.run(&["version"]).contains("corten"));
    drop(registry);
}

#[test]
fn without_root_every_program_says_so() {
    let node = need!(Node::new());
    let setpriv = need!(artifacts::tool("setpriv"));
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(node.dir(), open).expect("let others look");
    // Programs may lie where others cannot look.
    for name in ["corten", "corten-cri"] {
        fs::copy(node.program(name), node.dir().join(name)).expect("copy a program");
    }
    let (root, state) = (node.root(), node.state());
    let config = node.write_cri_config();
    for args in [
        vec!["corten", "--root", text(&root), "--state", text(&state), "up"],
        vec!["corten-cri", "--config", text(&config)],
    ] {
        let output = Command::new(&setpriv)
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(node.dir().join(args[0]))
            .args(&args[1..])
            .output()
            .expect("start setpriv");
        let said = failed(&output);
        assert!(said.contains("root"), "{args:?}: {said}");
    }
}

#[test]
fn an_image_that_is_missing_is_named_to_whoever_wants_it() {
    stack!(node, crictl, registry);
    let missing = failed(&crictl.output(&["pull", "registry.k8s.io/nothing/here:1"]));
    assert!(missing.contains("registry.k8s.io/nothing/here:1"), "{missing}");
    let pod_config = crictl.pod_config("imageless", &json!({}));
    let pod = crictl.run_pod(&pod_config);
    let config = crictl.container_config("x", "registry.k8s.io/nothing/here:1", &["x"], &json!({}));
    let refused = failed(&crictl.output(&["create", &pod, text(&config), text(&pod_config)]));
    assert!(refused.contains("registry.k8s.io/nothing/here:1"), "{refused}");
    assert_eq!(crictl.json(&["ps", "-a", "-o", "json"])["containers"], json!([]), "nothing is left of it");
    drop((registry, node));
}

#[test]
fn a_binary_that_is_missing_fails_the_start_with_the_runtimes_words() {
    stack!(node, crictl, registry);
    let pod_config = crictl.pod_config("binless", &json!({}));
    let pod = crictl.run_pod(&pod_config);
    let config = crictl.container_config("x", BUSYBOX, &["/no/such/program"], &json!({}));
    let made = crictl.output(&["create", &pod, text(&config), text(&pod_config)]);
    let said = if made.status.success() {
        failed(&crictl.output(&["start", String::from_utf8_lossy(&made.stdout).trim()]))
    } else {
        failed(&made)
    };
    assert!(said.contains("/no/such/program") && said.contains("no such file or directory"), "{said}");
    drop((registry, node));
}

#[test]
fn two_pods_of_one_name_are_refused_until_the_first_is_gone() {
    stack!(node, crictl, registry);
    let pod_config = crictl.pod_config("twin", &json!({}));
    let pod = crictl.run_pod(&pod_config);
    let refused = failed(&crictl.output(&["runp", text(&pod_config)]));
    assert!(refused.contains("twin"), "{refused}");
    crictl.run(&["stopp", &pod]);
    crictl.run(&["rmp", &pod]);
    let again = crictl.run_pod(&pod_config);
    assert_ne!(again, pod);
    drop((registry, node));
}

#[test]
fn a_network_plugin_that_fails_leaves_no_sandbox() {
    stack!(node, crictl, registry);
    let script = "[ $CNI_COMMAND = DEL ] && exit 0\n\
                  echo '{\"cniVersion\":\"1.0.0\",\"code\":11,\"msg\":\"out of order\"}'\nexit 1\n";
    install_plugin(&node, "failing", script);
    let said = run_pod_with_plugin(&node, &crictl, "failing");
    assert!(said.contains("out of order"), "{said}");
    assert_eq!(crictl.json(&["pods", "-o", "json"])["items"], json!([]));
    drop((registry, node));
}

#[test]
fn a_network_plugin_that_is_missing_is_named_and_its_pod_goes_when_it_is_there() {
    stack!(node, crictl, registry);
    let said = run_pod_with_plugin(&node, &crictl, "absent");
    assert!(said.contains("absent"), "{said}");
    // Nobody knows whether a plugin that could not be asked had done something: the sandbox stays until it could.
    let pods = crictl.json(&["pods", "-o", "json"]);
    assert_eq!(pods["items"][0]["state"], "SANDBOX_NOTREADY", "{pods}");
    let pod = pods["items"][0]["id"].as_str().expect("an id");
    install_plugin(&node, "absent", "exit 0\n");
    crictl.run(&["stopp", pod]);
    crictl.run(&["rmp", pod]);
    assert_eq!(crictl.json(&["pods", "-o", "json"])["items"], json!([]));
    drop((registry, node));
}

fn install_plugin(node: &Node, name: &str, script: &str) {
    let file = node.dir().join("cni/bin").join(name);
    fs::write(&file, format!("#!/bin/sh\n{script}")).expect("write a plugin");
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("make it executable");
}

/// Puts `plugin` in the place of the bridge plugin; what crictl said as it failed to run a pod with it.
fn run_pod_with_plugin(node: &Node, crictl: &Crictl, plugin: &str) -> String {
    let conf = node.dir().join("cni/net.d/10-test.conflist");
    let good = fs::read_to_string(&conf).expect("the conflist");
    let bad = good.replace("\"type\":\"bridge\"", &format!("\"type\":\"{plugin}\""));
    assert_ne!(good, bad);
    fs::write(&conf, bad).expect("write the conflist");
    failed(&crictl.output(&["runp", text(&crictl.pod_config(plugin, &json!({})))]))
}
