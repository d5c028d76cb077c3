//! Bad input and faults: a clear error, and nothing left behind.

mod common;

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use common::{Container, able, push, wait};
use serde_json::json;

#[test]
fn a_malformed_config_is_named_with_its_place() {
    if !able() {
        return;
    }
    let container = Container::new("true");
    std::fs::write(container.bundle().join("config.json"), "{\"ociVersion\": ").unwrap();
    let output = container.oci(&["run", &container.id]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("config.json: not valid: EOF") && text.contains("line 1"), "{text}");
    container.assert_nothing_left();
    std::fs::remove_file(container.bundle().join("config.json")).unwrap();
    let output = container.oci(&["run", &container.id]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("ENOENT"), "{output:?}");
}

#[test]
fn a_missing_program_has_runcs_text() {
    if !able() {
        return;
    }
    let text = |args: serde_json::Value| Container::with("", |c| c["process"]["args"] = args).refusal();
    assert!(text(json!(["nope"])).contains(r#"exec: \"nope\": executable file not found in $PATH"#));
    assert!(text(json!(["/nope"])).contains(r#"exec: \"/nope\": stat /nope: no such file or directory"#));
    assert!(text(json!(["/etc"])).contains(r#"exec: \"/etc\": is a directory"#));
    let container = Container::with("", |c| c["process"]["args"] = json!(["/tmp/plain"]));
    std::fs::write(container.rootfs().join("tmp/plain"), "x").unwrap();
    assert!(container.refusal().contains(r#"exec: \"/tmp/plain\": permission denied"#));
}

#[test]
fn what_only_execve_can_refuse_fails_the_start() {
    if !able() {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let container = Container::with("", |c| c["process"]["args"] = json!(["/tmp/garbage"]));
    let file = container.rootfs().join("tmp/garbage");
    std::fs::write(&file, "\u{1}garbage").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    container.create();
    let output = container.oci(&["start", &container.id]);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("exec /tmp/garbage: exec format error"),
        "{output:?}"
    );
    container.wait_status("stopped");
}

#[test]
fn an_unknown_capability_is_a_warning() {
    if !able() {
        return;
    }
    let container =
        Container::with("exit 0", |c| push(c, "/process/capabilities/bounding", json!("CAP_FLY")));
    let output = container.run();
    assert!(output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("level=warning msg=\"ignoring unknown or unavailable capabilities: CAP_FLY")
    );
}

#[test]
fn an_unmapped_user_is_named() {
    if !able() {
        return;
    }
    let container = Container::with("true", |c| {
        user_namespace(c);
        c["process"]["user"]["uid"] = json!(70000);
    });
    open_to_all(&container);
    let text = container.refusal();
    assert!(text.contains("become 70000:0: EINVAL"), "{text}");
}

fn user_namespace(config: &mut serde_json::Value) {
    push(config, "/linux/namespaces", json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
}

fn open_to_all(container: &Container) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(container.bundle(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(container.rootfs(), Some(100_000), Some(100_000)).unwrap();
}

#[test]
fn failures_of_each_step_leave_nothing() {
    if !able() {
        return;
    }
    type Change = fn(&mut serde_json::Value);
    let table: &[(Change, &str)] = &[
        (|c| c["root"]["path"] = json!("missing"), "bind root file system"),
        (
            |c| push(c, "/mounts", json!({"destination": "/x", "source": "/missing", "options": ["bind"]})),
            "mount /missing to /x in the container: ENOENT",
        ),
        (
            |c| push(c, "/mounts", json!({"destination": "/x", "type": "nofs"})),
            "mount nofs to /x in the container: ENODEV",
        ),
        (
            |c| push(c, "/mounts", json!({"destination": "/x", "type": "tmpfs", "options": ["bogus=1"]})),
            "mount tmpfs to /x in the container: EINVAL",
        ),
        (|c| c["process"]["cwd"] = json!("/bin/busybox"), "chdir to cwd (\\\"/bin/busybox\\\"): ENOTDIR"),
        (
            |c| push(c, "/linux/namespaces", json!({"type": "time", "path": "/dev/null"})),
            "open time namespace /dev/null: EINVAL",
        ),
        (
            |c| c["linux"]["sysctl"] = json!({"net.ipv4.nothing": "1"}),
            "write \\\"1\\\" to /proc/sys/net/ipv4/nothing: ENOENT",
        ),
        (
            |c| c["hooks"] = json!({"createRuntime": [{"path": "/bin/false"}]}),
            "createRuntime hook #0 (/bin/false): exit status 1",
        ),
        (
            |c| c["hooks"] = json!({"createContainer": [{"path": "/missing"}]}),
            "createContainer hook #0 (/missing): start: ENOENT",
        ),
        (
            |c| {
                c["hooks"] =
                    json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1}]});
            },
            "timed out after 1 s",
        ),
        (
            |c| c["hooks"] = json!({"startContainer": [{"path": "/bin/false"}]}),
            "startContainer hook #0 (/bin/false): exit status 1",
        ),
    ];
    for (change, expected) in table {
        let text = Container::with("true", change).refusal();
        assert!(text.contains(expected), "{text:?} does not contain {expected:?}");
    }
}

/// The creator is killed a little later each time, from before its record to after its end; then `delete --force`
/// removes every trace.
#[test]
fn kill_9_at_any_point_of_create_leaves_nothing_after_delete_force() {
    if !able() {
        return;
    }
    for step in 0..60 {
        let container = Container::new("exec sleep 100");
        container.write_config();
        let mut create = container
            .command("create")
            .arg(&container.id)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(250 * step));
        create.kill().unwrap();
        let ended = create.wait().unwrap();
        assert!(ended.signal() == Some(9) || ended.success(), "{ended:?}");
        container.success(&["delete", "--force", &container.id]);
        container.assert_nothing_left();
        let bundle = container.bundle().to_owned();
        wait("processes of the container to end", || processes_in(&bundle) == 0);
    }
}

/// Processes whose root or command line is this container's.
fn processes_in(bundle: &std::path::Path) -> usize {
    let bundle = bundle.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let named = processes.filter(|entry| {
        let path = entry.path();
        let root =
            std::fs::read_link(path.join("root")).is_ok_and(|root| root.to_string_lossy().contains(bundle));
        let mounts =
            std::fs::read_to_string(path.join("mountinfo")).is_ok_and(|mounts| mounts.contains(bundle));
        root || mounts
    });
    named.count()
}
