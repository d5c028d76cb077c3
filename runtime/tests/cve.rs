//! Every known way out of a container, tried on the real binary. Source of the shapes: the CVE that names the test.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Container, OCI, able, push, receive_terminal, wait};
use serde_json::{Value, json};

/// A directory of the host beside the root file system, which a container must not get at.
fn outside(container: &Container) -> PathBuf {
    let path = container.bundle().join("outside");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    path
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

fn capabilities(config: &mut Value, names: &[&str]) {
    config["process"]["capabilities"] = json!({"bounding": names, "effective": names, "permitted": names});
}

fn without_mount(config: &mut Value, destinations: &[&str]) {
    let mounts = config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !destinations.contains(&mount["destination"].as_str().unwrap()));
}

const STRONG: &[&str] =
    &["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_KILL"];

/// A copy of the runtime, which may be attacked.
struct Victim {
    program: PathBuf,
    before: Vec<u8>,
}

impl Victim {
    fn new(container: &Container) -> Self {
        let program = container.bundle().join("corten-oci");
        fs::copy(OCI, &program).unwrap();
        Self { before: fs::read(&program).unwrap(), program }
    }

    fn run(&self, container: &Container, arguments: &[&str]) {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(container.state_root()).args(arguments).current_dir(container.bundle());
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(status.unwrap().success(), "{arguments:?}");
    }

    fn assert_unchanged(&self) {
        assert!(fs::read(&self.program).unwrap() == self.before, "the runtime was changed");
    }
}

#[test]
fn cve_2019_5736_an_entrypoint_of_proc_self_exe_does_not_lead_to_the_runtime() {
    if !able() {
        return;
    }
    let container = Container::with("", |c| {
        c["process"]["args"] = json!(["/proc/self/exe", "--log", "/tmp/fifo", "state", "x"]);
        capabilities(c, STRONG);
    });
    let victim = Victim::new(&container);
    // Opening the log waits for a reader: so long the container's program is the runtime itself.
    let fifo = container.rootfs().join("tmp/fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    container.write_config();
    victim.run(&container, &["create", &container.id]);
    victim.run(&container, &["start", &container.id]);
    let pid = container.state()["pid"].as_i64().unwrap();
    wait("the runtime as the entrypoint", || {
        fs::read(format!("/proc/{pid}/cmdline")).unwrap().starts_with(b"/proc/self/exe")
    });
    let executable = File::open(format!("/proc/{pid}/exe")).unwrap();
    let script = "echo x >> /proc/1/exe";
    assert!(!container.oci(&["exec", &container.id, "sh", "-c", script]).status.success());
    container.success(&["delete", "--force", &container.id]);
    // Nobody runs it any more; the host's root itself may not write through what was kept open.
    let again = format!("/proc/self/fd/{}", executable.as_raw_fd());
    let written = OpenOptions::new().append(true).open(again).and_then(|mut file| file.write_all(b"x"));
    assert!(written.is_err());
    victim.assert_unchanged();
}

#[test]
fn cve_2019_5736_the_runtime_seen_as_proc_pid_exe_cannot_be_overwritten_from_inside() {
    if !able() {
        return;
    }
    let container = Container::with("exec sleep 100", |c| capabilities(c, STRONG));
    let victim = Victim::new(&container);
    container.write_config();
    victim.run(&container, &["create", &container.id]);
    let script =
        "exec 2>/dev/null 8</proc/1/exe; echo > /tmp/open; echo x >> /proc/1/exe && echo > /tmp/written
        until [ -e /tmp/go ]; do sleep 0.01; done
        mount -o remount,rw /proc/self/fd/8; mount -o remount,rw,bind /proc/self/fd/8
        echo x >> /proc/self/fd/8 && echo > /tmp/written; echo > /tmp/done";
    victim.run(&container, &["exec", "--detach", &container.id, "sh", "-c", script]);
    let there = |name: &str| container.rootfs().join("tmp").join(name).exists();
    wait("the attacker has the executable", || there("open"));
    victim.run(&container, &["start", &container.id]);
    let pid = container.state()["pid"].as_i64().unwrap();
    wait("the runtime to be gone from the container", || {
        fs::read_link(format!("/proc/{pid}/exe")).unwrap().ends_with("busybox")
    });
    fs::write(container.rootfs().join("tmp/go"), "").unwrap();
    wait("the attack", || there("done"));
    assert!(!there("written"));
    victim.assert_unchanged();
}

#[test]
fn cve_2016_9962_a_process_on_its_way_in_cannot_be_looked_into() {
    if !able() {
        return;
    }
    let container = Container::new("exec sleep 100");
    container.create();
    let look = |script: &str| container.oci(&["exec", &container.id, "sh", "-c", script]).status.success();
    for script in ["readlink /proc/1/exe", "readlink /proc/1/fd/1", "ls /proc/1/cwd/", "cat /proc/1/environ"]
    {
        assert!(!look(script), "{script}");
    }
    container.success(&["start", &container.id]);
    wait("the program", || look("readlink /proc/1/exe"));
}

/// Runs the binary with the host's root and a file of the host open at 7 and 8.
fn with_leaked_descriptors(container: &Container, arguments: &[&str]) -> Command {
    container.write_config();
    let script = "exec 7</ 8</etc/passwd; exec \"$@\"";
    let mut command = Command::new("/bin/busybox");
    command.args(["sh", "-c", script, "sh", OCI, "--root"]).arg(container.state_root()).args(arguments);
    command.current_dir(container.bundle()).stdin(Stdio::null());
    command
}

#[test]
fn cve_2024_21626_leaked_descriptors_are_closed_before_anything_of_the_container_is_touched() {
    if !able() {
        return;
    }
    for number in 3..24 {
        for cwd in [format!("/proc/self/fd/{number}"), format!("/proc/self/fd/{number}/../../..")] {
            let container = Container::with("ls -l; pwd", |c| c["process"]["cwd"] = cwd.clone().into());
            let output = with_leaked_descriptors(&container, &["run", &container.id]).output().unwrap();
            assert!(!output.status.success(), "{cwd}: {output:?}");
            assert!(String::from_utf8_lossy(&output.stderr).contains("cwd"), "{cwd}: {output:?}");
            container.assert_nothing_left();
        }
    }
}

#[test]
fn cve_2024_21626_neither_the_program_nor_an_exec_has_a_descriptor_of_the_host() {
    if !able() {
        return;
    }
    let container = Container::new("exec sleep 100");
    // No pipes: the container would keep them open.
    let mut create = with_leaked_descriptors(&container, &["create", &container.id]);
    assert!(create.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let pid = container.state()["pid"].as_i64().unwrap();
    let opened = || names_in(Path::new(&format!("/proc/{pid}/fd")));
    let targets = opened().into_iter().map(|fd| fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap());
    assert!(targets.into_iter().all(|target| target != Path::new("/") && target != Path::new("/etc/passwd")));
    container.success(&["start", &container.id]);
    wait("the program with its three streams", || opened().len() == 3);
    for cwd in ["/proc/self/fd/7", "/proc/self/fd/3", "/proc/self/fd/5", "/proc/1/fd/3"] {
        let output =
            with_leaked_descriptors(&container, &["exec", "--cwd", cwd, &container.id, "ls"]).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(255), "{cwd}: {output:?}");
    }
    let script = "cd /proc/self/fd; for fd in *; do [ $fd -gt 2 ] && [ -e $fd ] && readlink $fd; done; true";
    let mut exec = with_leaked_descriptors(&container, &["exec", &container.id, "sh", "-c", script]);
    let output = exec.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{output:?}");
}

#[test]
fn cve_2025_31133_a_mask_is_the_real_null_device_whatever_the_image_has_there() {
    if !able() {
        return;
    }
    let script =
        "stat -c '%F %t:%T' /proc/keys /etc/hidden; cat /etc/hidden; ls -A /etc/dir; stat -c %F /dev/null";
    let container = Container::with(script, |c| {
        without_mount(c, &["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"]);
        c["linux"]["maskedPaths"] = json!(["/proc/keys", "/etc/hidden", "/etc/dir"]);
    });
    fs::create_dir(container.rootfs().join("dev")).unwrap();
    fs::create_dir(container.rootfs().join("etc/dir")).unwrap();
    fs::write(container.rootfs().join("etc/dir/secret"), "secret").unwrap();
    fs::write(container.rootfs().join("etc/hidden"), "secret").unwrap();
    symlink("/proc/sys/kernel/core_pattern", container.rootfs().join("dev/null")).unwrap();
    let null = "character special file";
    assert_eq!(container.output(), format!("{null} 1:3\n{null} 1:3\n{null}\n"));
}

#[test]
fn cve_2025_52565_the_console_is_the_terminal_itself_and_lands_inside() {
    if !able() {
        return;
    }
    let script = "stat -L -c '%F %t' /dev/console; mount | grep -c core_pattern; exec sleep 100";
    let container = Container::with(script, |c| {
        without_mount(c, &["/dev", "/dev/shm", "/dev/mqueue"]);
        c["process"]["terminal"] = json!(true);
    });
    let outside = outside(&container);
    fs::create_dir(container.rootfs().join("dev")).unwrap();
    symlink("/tmp/terminals", container.rootfs().join("dev/pts")).unwrap();
    fs::create_dir(container.rootfs().join("tmp/terminals")).unwrap();
    symlink("/proc/sys/kernel/core_pattern", container.rootfs().join("tmp/terminals/0")).unwrap();
    let up = "../".repeat(20);
    symlink(format!("{up}{}/console", outside.display()), container.rootfs().join("dev/console")).unwrap();
    let inside = container.rootfs().join(outside.strip_prefix("/").unwrap());
    fs::create_dir_all(&inside).unwrap();
    fs::write(inside.join("console"), "").unwrap();
    let terminal = receive_terminal(&container);
    container.success(&["start", &container.id]);
    let text = common::read_until(&terminal, "\r\n0\r\n");
    assert_eq!(text, "character special file 88\r\n0\r\n");
    assert!(names_in(&outside).is_empty());
}

#[test]
fn cve_2023_27561_proc_and_sys_must_be_directories_of_the_image() {
    if !able() {
        return;
    }
    for name in ["proc", "sys"] {
        let container = Container::new("true");
        fs::create_dir(container.rootfs().join("tmp/fake")).unwrap();
        symlink("/tmp/fake", container.rootfs().join(name)).unwrap();
        let text = container.refusal();
        assert!(text.contains("must not be a symbolic link"), "{text}");
        let container = Container::new("true");
        fs::write(container.rootfs().join(name), "").unwrap();
        let text = container.refusal();
        assert!(text.contains(&format!("/{name}")), "{text}");
    }
}

#[test]
fn cve_2019_16884_nothing_is_mounted_over_a_part_of_proc() {
    if !able() {
        return;
    }
    for destination in ["/proc/self/attr", "/proc/sys/kernel", "/proc/1", "/tmp/../proc/self"] {
        let text = Container::with("true", |c| {
            push(c, "/mounts", json!({"destination": destination, "type": "tmpfs", "source": "tmpfs"}));
        })
        .refusal();
        assert!(text.contains("mounts[7].destination"), "{text}");
    }
}

#[test]
fn cve_2021_30465_a_link_in_a_mount_target_stays_in_the_container() {
    if !able() {
        return;
    }
    let container = Container::new("touch /vol/new/marker /vol/file; mount | grep -c ' /.*/outside/new '");
    let outside = outside(&container);
    fs::write(container.bundle().join("source"), "").unwrap();
    let mut container = container;
    for mount in [
        json!({"destination": "/vol/new", "type": "tmpfs", "source": "tmpfs"}),
        json!({"destination": "/vol/file", "source": "source", "options": ["bind"]}),
    ] {
        push(&mut container.config, "/mounts", mount);
    }
    symlink(format!("../../../../../../../..{}", outside.display()), container.rootfs().join("vol")).unwrap();
    let inside = container.rootfs().join(outside.strip_prefix("/").unwrap());
    fs::create_dir_all(&inside).unwrap();
    assert_eq!(container.output(), "1\n");
    assert!(names_in(&outside).is_empty(), "{:?}", names_in(&outside));
    assert!(inside.join("new").is_dir() && inside.join("file").is_file());
}

#[test]
fn cve_2021_30465_a_target_that_is_swapped_for_a_link_meanwhile_leads_nowhere() {
    if !able() {
        return;
    }
    let container = Container::with("true", |c| {
        for n in 0..8 {
            let destination = format!("/vol/a/b{n}/c");
            push(c, "/mounts", json!({"destination": destination, "type": "tmpfs", "source": "tmpfs"}));
        }
    });
    let outside = outside(&container);
    let (vol, link) = (container.rootfs().join("vol"), container.rootfs().join("link"));
    fs::create_dir(&vol).unwrap();
    symlink(&outside, &link).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let exchange = rustix::fs::RenameFlags::EXCHANGE;
            while !done.load(order) {
                let at = rustix::fs::CWD;
                rustix::fs::renameat_with(at, &vol, at, &link, exchange).unwrap();
            }
        });
        // It may fail: what it must not do is to follow the link out of the root.
        container.write_config();
        (0..20).for_each(|_| drop(container.oci(&["run", &container.id])));
        done.store(true, order);
    });
    assert!(names_in(&outside).is_empty(), "{:?}", names_in(&outside));
    container.assert_nothing_left();
}

#[test]
fn cve_2026_41579_a_dev_that_is_a_link_in_the_image_changes_nothing_on_the_host() {
    if !able() {
        return;
    }
    for with_tmpfs in [false, true] {
        let container = Container::with("readlink /dev; stat -c %F /dev/null", |c| {
            without_mount(c, if with_tmpfs { &[] } else { &["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] });
        });
        let outside = outside(&container);
        for name in ["ptmx", "null", "stdin"] {
            fs::write(outside.join(name), "host").unwrap();
        }
        symlink(&outside, container.rootfs().join("dev")).unwrap();
        let inside = container.rootfs().join(outside.strip_prefix("/").unwrap());
        fs::create_dir_all(&inside).unwrap();
        assert_eq!(container.output(), format!("{}\ncharacter special file\n", outside.display()));
        let mut names = names_in(&outside);
        names.sort();
        assert_eq!(names, ["null", "ptmx", "stdin"]);
        assert!(names.iter().all(|name| fs::read(outside.join(name)).unwrap() == b"host"));
    }
}

#[test]
fn cve_2022_29162_no_process_has_inheritable_or_ambient_capabilities_that_were_not_asked_for() {
    if !able() {
        return;
    }
    let script = "grep -E 'CapInh|CapAmb' /proc/self/status";
    let container = Container::with(&format!("{script}; exec sleep 100"), |c| {
        capabilities(c, STRONG);
        c["process"]["capabilities"]["ambient"] = json!(STRONG);
    });
    container.create_and_start();
    let none = "CapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n";
    wait("the program", || container.out() == none);
    let exec = ["exec", "--cap", "CAP_NET_RAW", "-u", "5:5", &container.id, "sh", "-c", script];
    assert_eq!(container.success(&exec), none);
}

#[test]
fn cve_2025_52881_a_sysctl_goes_to_the_kernel_and_not_to_a_file_of_the_image() {
    if !able() {
        return;
    }
    let script = "cd /real/sys; cat net/ipv4/ip_forward net/ipv4/conf/lo/forwarding kernel/shmmax";
    let container = Container::with(script, |c| {
        without_mount(c, &["/proc"]);
        push(c, "/mounts", json!({"destination": "/real", "type": "proc", "source": "proc"}));
        c["linux"]["sysctl"] = json!({
            "net.ipv4.ip_forward": "0", "net/ipv4/conf/lo/forwarding": "1", "kernel.shmmax": "4242"
        });
    });
    let fake = container.rootfs().join("proc/sys/net/ipv4");
    fs::create_dir_all(&fake).unwrap();
    fs::write(fake.join("ip_forward"), "fake").unwrap();
    assert_eq!(container.output(), "0\n1\n4242\n");
    assert_eq!(fs::read(fake.join("ip_forward")).unwrap(), b"fake");
}

#[test]
fn a_sysctl_name_cannot_leave_what_belongs_to_the_container() {
    if !able() {
        return;
    }
    let hostile = [
        "net/../kernel/hostname",
        "net.ipv4/../../../kernel.hostname",
        "net//ipv4/ip_forward",
        "net/./ipv4",
        "kernel.hostname",
        "kernel.core_pattern",
        "kernel/core_pattern",
        "/proc/sys/kernel/core_pattern",
        "",
    ];
    for name in hostile {
        let text = Container::with("true", |c| c["linux"]["sysctl"] = json!({name: "1"})).refusal();
        assert!(text.contains("linux.sysctl") || text.contains("write"), "{name:?}: {text}");
    }
}
