//! What a configuration can ask for, each seen from inside of a real container.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::{Command, Stdio};

use common::{Container, OCI, able, push, read_until, receive_terminal};
use serde_json::{Value, json};

#[test]
fn hooks_of_all_kinds_run_in_order_with_the_state_on_stdin() {
    if !able() {
        return;
    }
    let container = Container::with("true", |c| push(c, "/process/env", json!("X=1")));
    let (mut container, said) = (container, "hooks");
    let file = container.bundle().join(said);
    fs::write(&file, "").unwrap();
    push(
        &mut container.config,
        "/mounts",
        json!({"destination": "/hooks", "source": said, "options": ["bind"]}),
    );
    let hook = |kind: &str, shell: &str, file: &str| {
        let script = format!("read -r s; echo \"{kind} $A $s\" >> {file}");
        json!([{"path": shell, "args": ["sh", "-c", script], "env": ["A=b", "PATH=/bin"]}])
    };
    let host = |kind: &str| hook(kind, "/bin/sh", file.to_str().unwrap());
    container.config["hooks"] = json!({
        "prestart": host("prestart"), "createRuntime": host("createRuntime"),
        "createContainer": host("createContainer"), "startContainer": hook("startContainer", "/bin/sh", "/hooks"),
        "poststart": host("poststart"), "poststop": host("poststop"),
    });
    container.output();
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<(String, Value)> = text
        .lines()
        .map(|line| {
            let (kind, rest) = line.split_once(" b ").unwrap();
            (kind.to_owned(), serde_json::from_str(rest).unwrap())
        })
        .collect();
    let order: Vec<_> =
        lines.iter().map(|(kind, state)| (kind.as_str(), state["status"].as_str().unwrap())).collect();
    let expected = [
        ("prestart", "creating"),
        ("createRuntime", "creating"),
        ("createContainer", "creating"),
        ("startContainer", "created"),
        ("poststart", "running"),
        ("poststop", "stopped"),
    ];
    assert_eq!(order, expected);
    assert!(lines.iter().all(|(_, state)| state["id"] == container.id.as_str()));
    assert!(lines.iter().all(|(_, state)| state["bundle"].as_str() == container.bundle().to_str()));
    assert!(lines[0].1["pid"].as_i64() > Some(1));
}

#[test]
fn a_console_socket_gets_the_master_of_a_terminal_of_the_asked_size() {
    if !able() {
        return;
    }
    let container = Container::with("tty; stty size; read x; echo got $x; exec sleep 100", |c| {
        c["process"]["terminal"] = json!(true);
        c["process"]["consoleSize"] = json!({"height": 20, "width": 90});
    });
    let mut terminal = receive_terminal(&container);
    container.success(&["start", &container.id]);
    assert_eq!(read_until(&terminal, "20 90\r\n"), "/dev/pts/0\r\n20 90\r\n");
    std::io::Write::write_all(&mut terminal, b"word\n").unwrap();
    read_until(&terminal, "got word\r\n");
}

fn user_namespace(container: &mut Container) {
    push(&mut container.config, "/linux/namespaces", json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    container.config["linux"]["uidMappings"] = map.clone();
    container.config["linux"]["gidMappings"] = map;
    fs::set_permissions(container.bundle(), fs::Permissions::from_mode(0o755)).unwrap();
    for path in [container.rootfs(), container.rootfs().join("tmp")] {
        chown(path, Some(100_000), Some(100_000)).unwrap();
    }
}

#[test]
fn in_a_user_namespace_root_is_the_mapped_user_of_the_host() {
    if !able() {
        return;
    }
    let script = "id -u; touch /tmp/mine; cat /proc/self/uid_map; stat -c %F /dev/null; exec sleep 100";
    let mut container = Container::new(script);
    user_namespace(&mut container);
    container.create_and_start();
    common::wait("the program", || container.out().ends_with("file\n"));
    let text: Vec<String> = container.out().split_ascii_whitespace().map(str::to_owned).collect();
    assert_eq!(text.join(" "), "0 0 100000 65536 character special file");
    let pid = container.state()["pid"].to_string();
    assert_eq!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), 100_000);
    assert_eq!(fs::metadata(container.rootfs().join("tmp/mine")).unwrap().uid(), 100_000);
    assert_eq!(container.success(&["exec", &container.id, "id", "-u"]), "0\n");
}

#[test]
fn namespaces_are_joined_by_path() {
    if !able() {
        return;
    }
    let kinds = [("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid")];
    let first = Container::new("exec sleep 100");
    first.create_and_start();
    let pid = first.state()["pid"].to_string();
    let namespace = |name: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
    let second =
        Container::with("cd /proc/self/ns; for n in net ipc uts pid mnt; do readlink $n; done", |c| {
            let mut list: Vec<Value> = kinds
                .iter()
                .map(|(kind, name)| json!({"type": kind, "path": format!("/proc/{pid}/ns/{name}")}))
                .collect();
            list.extend([json!({"type": "mount"}), json!({"type": "cgroup"})]);
            c["linux"]["namespaces"] = Value::Array(list);
        });
    let output = second.output();
    let lines: Vec<&str> = output.lines().collect();
    for (line, (_, name)) in lines.iter().zip(kinds) {
        assert_eq!(Some(*line), namespace(name).to_str(), "{name}");
    }
    assert_ne!(Some(lines[4]), namespace("mnt").to_str());
}

#[test]
fn a_user_namespace_is_joined_by_path_and_owns_what_is_made_beside_it() {
    if !able() {
        return;
    }
    let mut first = Container::new("exec sleep 100");
    user_namespace(&mut first);
    first.create_and_start();
    let path = format!("/proc/{}/ns/user", first.state()["pid"]);
    let mut second = Container::new("readlink /proc/self/ns/user; id -u; hostname inside && hostname");
    user_namespace(&mut second);
    let linux = second.config["linux"].as_object_mut().unwrap();
    linux.remove("uidMappings");
    linux.remove("gidMappings");
    let namespaces = linux["namespaces"].as_array_mut().unwrap();
    *namespaces.last_mut().unwrap() = json!({"type": "user", "path": path});
    let all = json!(["CAP_SYS_ADMIN"]);
    second.config["process"]["capabilities"] = json!({"bounding": all, "effective": all, "permitted": all});
    let expected = fs::read_link(&path).unwrap();
    assert_eq!(second.output(), format!("{}\n0\ninside\n", expected.display()));
}

#[test]
fn limits_that_may_not_be_raised_are_clamped_with_a_warning() {
    if !able() {
        return;
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
    let may_raise = u64::from_str_radix(held, 16).unwrap() & (1 << 24) != 0;
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let hard: u64 = files.split_ascii_whitespace().nth(4).unwrap().parse().unwrap();
    let score: i32 = fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    let container = Container::with("ulimit -Hn; ulimit -n; cat /proc/self/oom_score_adj", |c| {
        c["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": hard + 1}]);
        c["process"]["oomScoreAdj"] = json!(score - 1);
    });
    let output = container.run();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if may_raise {
        assert_eq!(text, format!("{}\n100\n{}\n", hard + 1, score - 1));
        return;
    }
    assert_eq!(text, format!("{hard}\n100\n{score}\n"), "{errors}");
    assert!(errors.contains(&format!("RLIMIT_NOFILE of 100:{} clamped to 100:{hard}", hard + 1)), "{errors}");
    assert!(errors.contains(&format!("oom_score_adj of {} clamped to {score}", score - 1)), "{errors}");
}

#[test]
fn preserved_descriptors_are_the_programs_and_no_others() {
    if !able() {
        return;
    }
    let container = Container::new("cat <&3; [ -e /proc/self/fd/4 ] || echo none");
    container.write_config();
    fs::write(container.bundle().join("given"), "given\n").unwrap();
    let mut command = Command::new("/bin/busybox");
    command
        .args(["sh", "-c", "exec 3<given 4</; exec \"$@\"", "sh", OCI, "--root"])
        .arg(container.state_root());
    command.args(["run", "--preserve-fds", "1", &container.id]).current_dir(container.bundle());
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "given\nnone\n", "{output:?}");
}

#[test]
fn umask_groups_and_home_are_those_of_the_configuration() {
    if !able() {
        return;
    }
    let container = Container::with("umask; id; echo $HOME", |c| {
        c["process"]["user"] = json!({"uid": 7, "gid": 8, "umask": 0o027, "additionalGids": [9, 10]});
    });
    fs::write(container.rootfs().join("etc/passwd"), "seven:x:7:8::/home/seven:/bin/sh\n").unwrap();
    let text = container.output();
    assert!(
        text.starts_with("0027\nuid=7(seven) gid=8 groups=") && text.ends_with("\n/home/seven\n"),
        "{text}"
    );
    assert!(text.contains("9,10"), "{text}");
}

#[test]
fn a_readonly_root_is_read_only_and_its_mounts_are_not() {
    if !able() {
        return;
    }
    let container = Container::with("touch /tmp/x || touch /dev/shm/x && echo shm", |c| {
        c["root"]["readonly"] = json!(true);
        for directory in ["/proc", "/sys", "/dev"] {
            assert!(c["mounts"].as_array().unwrap().iter().any(|mount| mount["destination"] == directory));
        }
    });
    let output = container.run();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "shm\n", "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("Read-only file system"));
    assert!(!container.rootfs().join("tmp/x").exists());
}

/// Runs a script of the host in a mount namespace of its own, where `vol` beside the bundle is a shared mount with a
/// mount `sub` in it; `$oci` is the binary, `$id` the container, which has `vol` at /vol with these options.
fn beside_a_shared_volume(options: Value, script: &str) -> String {
    let mut container = Container::new("exec sleep 100");
    push(
        &mut container.config,
        "/mounts",
        json!({"destination": "/vol", "type": "bind", "source": "vol", "options": options}),
    );
    let all = json!(["CAP_SYS_ADMIN"]);
    container.config["process"]["capabilities"] =
        json!({"bounding": all, "effective": all, "permitted": all});
    container.config["linux"]["rootfsPropagation"] = json!("rshared");
    container.write_config();
    let whole = format!(
        "set -e; mkdir vol; mount -t tmpfs vol vol; mount --make-shared vol; mkdir vol/sub vol/late vol/own
         mount -t tmpfs sub vol/sub
         oci=\"{OCI} --root state\"; id={id}; $oci create $id >/dev/null 2>log </dev/null || cat log; $oci start $id; set +e
         {script}
         $oci delete --force $id",
        id = container.id
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &whole]).current_dir(container.bundle());
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn mounts_propagate_as_each_mount_says() {
    if !able() {
        return;
    }
    let script = "mount -t tmpfs late vol/late; touch vol/late/seen; $oci exec $id ls /vol/late
        $oci exec $id mount -t tmpfs own /vol/own; grep -q '/vol/own ' /proc/self/mountinfo && echo out; true";
    for (propagation, expected) in [("rprivate", ""), ("rslave", "seen\n"), ("rshared", "seen\nout\n")] {
        let text = beside_a_shared_volume(json!(["rbind", propagation]), script);
        assert_eq!(text, expected, "{propagation}");
    }
}

#[test]
fn read_only_is_for_one_mount_and_rro_for_all_below() {
    if !able() {
        return;
    }
    let script = "$oci exec $id touch /vol/x 2>/dev/null || echo ro
        $oci exec $id touch /vol/sub/x 2>/dev/null && echo writable; true";
    assert_eq!(beside_a_shared_volume(json!(["rbind", "ro"]), script), "ro\nwritable\n");
    assert_eq!(beside_a_shared_volume(json!(["rbind", "rro"]), script), "ro\n");
}
