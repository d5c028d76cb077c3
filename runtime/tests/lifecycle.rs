//! create, start, state, list, exec, kill, pause, delete: what a caller sees of a container's life.

mod common;

use common::{Container, able, wait};
use serde_json::Value;

#[test]
fn a_container_goes_from_created_to_running_to_stopped_to_gone() {
    if !able() {
        return;
    }
    let container = Container::new("exec sleep 100");
    container.create();
    assert_eq!(container.status(), "created");
    container.success(&["start", &container.id]);
    assert_eq!(container.status(), "running");
    container.success(&["kill", &container.id, "KILL"]);
    container.wait_status("stopped");
    container.success(&["delete", &container.id]);
    container.assert_nothing_left();
    assert!(!container.oci(&["state", &container.id]).status.success());
}

#[test]
fn the_exit_code_of_run_is_the_processes_own_or_128_and_the_signal() {
    if !able() {
        return;
    }
    assert_eq!(Container::new("exit 42").run().status.code(), Some(42));
    assert_eq!(
        Container::new("kill -9 $$; sleep 1").run().status.code(),
        Some(0),
        "pid 1 cannot kill itself"
    );
    let container = Container::new("exec sleep 100");
    container.write_config();
    let mut run = container.command("run").arg(&container.id).spawn().unwrap();
    wait("the container", || container.oci(&["kill", &container.id, "KILL"]).status.success());
    assert_eq!(run.wait().unwrap().code(), Some(137));
    container.assert_nothing_left();
}

#[test]
fn signals_go_through_run_to_the_process() {
    if !able() {
        return;
    }
    let container =
        Container::new("trap 'exit 9' TERM; echo ready > /tmp/ready; while true; do sleep 0.01; done");
    container.write_config();
    let mut run = container.command("run").arg(&container.id).spawn().unwrap();
    wait("the trap", || container.rootfs().join("tmp/ready").exists());
    let pidfd = corten_sys::pidfd::open(run.id() as i32).unwrap();
    corten_sys::pidfd::send_signal(&pidfd, 15).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(9));
}

#[test]
fn exec_shares_the_namespaces_and_cgroup_and_has_its_own_exit_code() {
    if !able() {
        return;
    }
    let container = Container::new("exec sleep 100");
    container.create_and_start();
    let script =
        "cat /proc/1/comm; cat /proc/self/cgroup | grep memory; ls /proc/self/fd | grep -c . ; exit 7";
    let output = container.oci(&["exec", &container.id, "sh", "-c", script]);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("sleep\n"), "{text}");
    let namespaces =
        |pid: &str| container.success(&["exec", &container.id, "readlink", &format!("/proc/{pid}/ns/net")]);
    assert_eq!(namespaces("1"), namespaces("self"));
    let pid = container.state()["pid"].to_string();
    let of = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let mut exec = container.command("exec").args([&container.id, "sleep", "100"]).spawn().unwrap();
    wait("the process", || {
        container.success(&["ps", "--format", "json", &container.id]).matches(',').count() == 1
    });
    let pids: Vec<i32> =
        serde_json::from_str(&container.success(&["ps", "-f", "json", &container.id])).unwrap();
    assert!(pids.iter().all(|other| of(&other.to_string()) == of(&pid)));
    container.success(&["kill", "--all", &container.id, "KILL"]);
    assert_eq!(exec.wait().unwrap().code(), Some(137));
}

#[test]
fn exec_takes_user_cwd_environment_and_capabilities() {
    if !able() {
        return;
    }
    let container = Container::new("exec sleep 100");
    container.create_and_start();
    let script = "id; pwd; echo $X; grep -E 'CapInh|CapPrm|CapBnd' /proc/self/status";
    let id = &container.id;
    let text = container.success(&[
        "exec",
        "-u",
        "7:8",
        "-g",
        "9",
        "--cwd",
        "/tmp",
        "-e",
        "X=y",
        "--cap",
        "CAP_NET_RAW",
        id,
        "sh",
        "-c",
        script,
    ]);
    assert!(text.contains("uid=7 gid=8 groups=9"), "{text}");
    assert!(text.contains("/tmp\ny\n"), "{text}");
    assert!(text.contains("CapInh:\t0000000000000000"), "{text}");
    assert!(text.contains("CapBnd:\t0000000020002420"), "{text}");
}

#[test]
fn a_paused_container_stands_still_and_refuses_exec() {
    if !able() {
        return;
    }
    let container = Container::new("exec sleep 100");
    container.create_and_start();
    container.success(&["pause", &container.id]);
    assert_eq!(container.status(), "paused");
    let output = container.oci(&["exec", &container.id, "true"]);
    assert_eq!(output.status.code(), Some(255));
    assert!(String::from_utf8_lossy(&output.stderr).contains("it is paused"));
    container.success(&["resume", &container.id]);
    container.success(&["exec", &container.id, "true"]);
    container.success(&["pause", &container.id]);
    container.success(&["delete", "--force", &container.id]);
    container.assert_nothing_left();
}

#[test]
fn list_shows_each_container_once_in_both_shapes() {
    if !able() {
        return;
    }
    let container = Container::new("exec sleep 100");
    assert_eq!(container.success(&["list", "-q"]), "");
    container.create();
    assert_eq!(container.success(&["list", "-q"]), format!("{}\n", container.id));
    let list: Value = serde_json::from_str(&container.success(&["list", "--format", "json"])).unwrap();
    assert_eq!(list[0]["status"], "created");
    assert!(container.success(&["list"]).starts_with("ID "));
}

#[test]
fn an_id_is_given_out_once() {
    if !able() {
        return;
    }
    let container = Container::new("exec sleep 100");
    container.create();
    let output = container.oci(&["create", &container.id]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("already exists"), "{output:?}");
    assert_eq!(container.status(), "created", "the first one is untouched");
    let output = container.oci(&["create", "../x"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("invalid container ID format"), "{output:?}");
}

#[test]
fn a_running_container_is_not_deleted_without_force_nor_started_twice() {
    if !able() {
        return;
    }
    let container = Container::new("exec sleep 100");
    container.create_and_start();
    assert!(!container.oci(&["delete", &container.id]).status.success());
    assert!(!container.oci(&["start", &container.id]).status.success());
    assert_eq!(container.status(), "running");
    container.success(&["delete", "-f", &container.id]);
    container.success(&["delete", "-f", &container.id]);
    assert!(!container.oci(&["delete", &container.id]).status.success());
}

#[test]
fn killing_what_has_stopped_says_container_not_running() {
    if !able() {
        return;
    }
    let container = Container::new("true");
    container.create_and_start();
    container.wait_status("stopped");
    let output = container.oci(&["kill", &container.id, "TERM"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("container not running"), "{output:?}");
}

#[test]
fn the_log_has_the_keys_that_containerd_reads_and_is_appended() {
    if !able() {
        return;
    }
    let container = Container::new("true");
    let log = container.bundle().join("log.json");
    for _ in 0..2 {
        let status = std::process::Command::new(common::OCI)
            .args(["--log", log.to_str().unwrap(), "--log-format", "json", "state", "none"])
            .output()
            .unwrap();
        assert_eq!(status.status.code(), Some(1));
        assert!(
            String::from_utf8_lossy(&status.stderr)
                .starts_with("corten-oci: container \"none\" does not exist")
        );
    }
    let text = std::fs::read_to_string(log).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["level"], "error");
    assert_eq!(lines[0]["msg"], "container \"none\" does not exist");
    assert!(lines[0]["time"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn version_and_features_have_runcs_shape() {
    let version = std::process::Command::new(common::OCI).arg("--version").output().unwrap();
    let text = String::from_utf8(version.stdout).unwrap();
    assert!(text.starts_with("corten-oci version ") && text.contains("\nspec: 1."), "{text}");
    let features = std::process::Command::new(common::OCI).arg("features").output().unwrap();
    let features: oci_spec::runtime::Features = serde_json::from_slice(&features.stdout).unwrap();
    assert_eq!(features.hooks().as_ref().unwrap().len(), 6);
}
