//! Limits and seccomp in real containers, by the command line. CORTEN_TEST_RUNTIME names another runtime to run the
//! same tests with.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A bundle with busybox, a state directory and a cgroup of its own; everything goes at the end, panic or not.
struct Scene {
    dir: tempfile::TempDir,
    name: String,
    config: Value,
    ids: Vec<String>,
}

impl Scene {
    /// `None`, having said why, where this cannot run.
    fn new(script: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find(|path| Path::new(path).exists());
        let Some(busybox) = busybox.filter(|_| nix::unistd::geteuid().is_root()) else {
            println!("SKIP: needs root and busybox-static");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let rootfs = dir.path().join("rootfs");
        for sub in ["bin", "proc", "sys", "dev", "tmp"] {
            fs::create_dir_all(rootfs.join(sub)).unwrap();
        }
        fs::copy(busybox, rootfs.join("bin/busybox")).unwrap();
        for applet in
            ["sh", "cat", "sleep", "mkdir", "echo", "head", "tail", "unshare", "grep", "mknod", "true"]
        {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        fs::set_permissions(rootfs.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        let name = format!("corten-res-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let config = config(script, &format!("/{name}/c"));
        Some(Self { dir, name, config, ids: Vec::new() })
    }

    fn resources(mut self, resources: Value) -> Self {
        let object = resources.as_object().unwrap();
        self.config["linux"]["resources"].as_object_mut().unwrap().extend(object.clone());
        self
    }

    fn seccomp(mut self, profile: Value) -> Self {
        self.config["linux"]["seccomp"] = profile;
        self
    }

    fn runtime(&self, arguments: &[&str]) -> Command {
        let ours = env!("CARGO_BIN_EXE_corten-oci").to_owned();
        let mut command = Command::new(std::env::var("CORTEN_TEST_RUNTIME").unwrap_or(ours));
        command.arg("--root").arg(self.dir.path().join("state")).args(arguments).stdin(Stdio::null());
        command
    }

    fn write_config(&self) {
        fs::write(self.dir.path().join("config.json"), self.config.to_string()).unwrap();
    }

    /// Run the script to its end.
    fn run(&mut self) -> Output {
        self.write_config();
        let id = self.id("run");
        let bundle = self.dir.path().to_str().unwrap().to_owned();
        bounded(self.runtime(&["run", "--bundle", &bundle, &id]))
    }

    /// Create a container and start it; what it prints goes to a file.
    fn start(&mut self, name: &str) -> (String, PathBuf) {
        self.write_config();
        let (id, printed) = (self.id(name), self.dir.path().join(format!("{name}.out")));
        let bundle = self.dir.path().to_str().unwrap().to_owned();
        let file = fs::File::create(&printed).unwrap();
        let mut create = self.runtime(&["create", "--bundle", &bundle, &id]);
        let status = create.stdout(file.try_clone().unwrap()).stderr(file).status().unwrap();
        assert!(status.success(), "{}", fs::read_to_string(&printed).unwrap());
        let started = bounded(self.runtime(&["start", &id]));
        assert!(started.status.success(), "{}", text(&started));
        (id, printed)
    }

    fn id(&mut self, name: &str) -> String {
        let id = format!("{}-{name}", self.name);
        self.ids.push(id.clone());
        id
    }

    fn cgroups(&self) -> Vec<PathBuf> {
        hierarchies()
            .into_iter()
            .map(|hierarchy| hierarchy.join(&self.name))
            .filter(|path| path.exists())
            .collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for id in &self.ids {
            let _ = bounded(self.runtime(&["delete", "--force", id]));
        }
        for cgroup in self.cgroups() {
            let _ = fs::write(cgroup.join("c/freezer.state"), "THAWED");
            let _ = fs::remove_dir(cgroup.join("c"));
            let _ = fs::remove_dir(cgroup);
        }
    }
}

fn hierarchies() -> Vec<PathBuf> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let cgroups = mountinfo.lines().filter(|line| line.contains(" - cgroup"));
    cgroups.map(|line| line.split(' ').nth(4).unwrap().into()).collect()
}

fn v1() -> bool {
    let v1 = Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists();
    if !v1 {
        println!("SKIP: needs cgroup v1");
    }
    v1
}

/// What `runc spec` has, without a terminal and with a cgroup namespace.
fn config(script: &str, cgroups_path: &str) -> Value {
    let locked = json!(["nosuid", "noexec", "nodev"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0}, "cwd": "/", "noNewPrivileges": true,
            "args": ["/bin/sh", "-c", script], "env": ["PATH=/bin"],
            "capabilities": {
                "bounding": ["CAP_SYS_ADMIN", "CAP_MKNOD"], "effective": ["CAP_SYS_ADMIN", "CAP_MKNOD"],
                "permitted": ["CAP_SYS_ADMIN", "CAP_MKNOD"],
            },
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": locked},
        ],
        "linux": {
            "cgroupsPath": cgroups_path,
            "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network"}],
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
        },
    })
}

/// The end of a command, or a panic after 20 s.
fn bounded(mut command: Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("still running after 20 s: {command:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn the_container_sees_its_limits_and_its_cgroup_goes_with_it() {
    let script = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes pids/pids.max cpu/cpu.shares cpu/cpu.cfs_quota_us cpuset/cpuset.cpus; \
                  cat /proc/self/cgroup | grep -c /c$";
    let Some(scene) = Scene::new(script).filter(|_| v1()) else { return };
    let mut scene = scene.resources(json!({
        "memory": {"limit": 67_108_864}, "pids": {"limit": 50}, "cpu": {"shares": 256, "quota": 20000, "period": 100_000, "cpus": "0"},
    }));
    let output = scene.run();
    let said = text(&output);
    let (limits, joined) = said.trim_end().rsplit_once('\n').unwrap();
    assert_eq!(limits, "67108864\n50\n256\n20000\n0");
    let v1 = hierarchies().iter().filter(|hierarchy| !hierarchy.join("cgroup.controllers").exists()).count();
    assert!(joined.parse::<usize>().unwrap() >= v1, "in {joined} of {v1} hierarchies");
    assert!(scene.cgroups().iter().all(|cgroup| !cgroup.join("c").exists()), "left: {:?}", scene.cgroups());
}

#[test]
fn too_much_memory_is_death_by_sigkill() {
    let Some(scene) = Scene::new("head -c 104857600 /dev/zero | tail; echo $?").filter(|_| v1()) else {
        return;
    };
    let mut scene = scene.resources(json!({"memory": {"limit": 20_971_520, "swap": 20_971_520}}));
    let said = text(&scene.run());
    assert!(said.contains("137") || said.contains("Killed"), "{said}");
}

#[test]
fn a_fork_bomb_stops_at_the_pids_limit() {
    let Some(scene) =
        Scene::new("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 2 & done; echo all").filter(|_| v1())
    else {
        return;
    };
    let said = text(&scene.resources(json!({"pids": {"limit": 6}})).run());
    assert!(said.contains("can't fork") && !said.contains("all"), "{said}");
}

#[test]
fn devices_that_are_not_on_the_list_cannot_be_opened() {
    let script = "mknod /dev/kmsg c 1 11 && cat /dev/kmsg; mknod /dev/full2 c 1 7 && head -c 1 /dev/full2 > /dev/null && echo full";
    let Some(mut scene) = Scene::new(script) else { return };
    let said = text(&scene.run());
    assert!(said.contains("Operation not permitted") && said.contains("full\n"), "{said}");
}

#[test]
fn a_second_container_in_the_same_cgroup_is_refused_and_the_first_lives_on() {
    let Some(mut scene) = Scene::new("sleep 100") else { return };
    let (first, _) = scene.start("first");
    scene.config["process"]["args"] = json!(["/bin/true"]);
    let second = scene.run();
    assert!(!second.status.success() && text(&second).contains("holds 1 processes"), "{}", text(&second));
    let exec = bounded(scene.runtime(&["exec", &first, "/bin/true"]));
    assert!(exec.status.success(), "the first container is hurt: {}", text(&exec));
}

#[test]
fn a_frozen_cgroup_is_refused_at_create() {
    let Some(mut scene) = Scene::new("true").filter(|_| v1()) else { return };
    let frozen = Path::new("/sys/fs/cgroup/freezer").join(&scene.name).join("c");
    fs::create_dir_all(&frozen).unwrap();
    fs::write(frozen.join("freezer.state"), "FROZEN").unwrap();
    let output = scene.run();
    assert!(!output.status.success() && text(&output).contains("frozen"), "{}", text(&output));
}

#[test]
fn a_limit_the_kernel_refuses_is_named_and_leaves_nothing() {
    let Some(scene) = Scene::new("true").filter(|_| v1()) else { return };
    let mut scene = scene.resources(json!({"cpu": {"cpus": "4000"}}));
    let output = scene.run();
    assert!(!output.status.success() && text(&output).contains("cpuset.cpus"), "{}", text(&output));
    assert!(scene.cgroups().iter().all(|cgroup| !cgroup.join("c").exists()), "left: {:?}", scene.cgroups());
    assert!(fs::read_dir(scene.dir.path().join("state")).map_or(0, Iterator::count) == 0, "state is left");
}

#[test]
fn exec_joins_the_cgroup_and_gets_the_filter() {
    let Some(scene) = Scene::new("sleep 100") else { return };
    let mut scene = scene.seccomp(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}));
    let (id, _) = scene.start("exec");
    let output = bounded(scene.runtime(&[
        "exec",
        &id,
        "/bin/sh",
        "-c",
        "grep -c /c$ /proc/self/cgroup; mkdir /tmp/x",
    ]));
    let said = text(&output);
    assert!(said.contains("No space left"), "{said}");
    assert_ne!(said.lines().next(), Some("0"), "not in the cgroup: {said}");
}

#[test]
fn a_filtered_process_gets_the_errno() {
    for (no_new_privs, errno, words) in [(true, 28, "No space left"), (false, 13, "Permission denied")] {
        let Some(scene) = Scene::new("mkdir /tmp/x") else { return };
        let mut scene = scene.seccomp(json!({"defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [{"names": ["mkdir", "mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno}]}));
        scene.config["process"]["noNewPrivileges"] = no_new_privs.into();
        let said = text(&scene.run());
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn killing_is_what_a_killing_rule_does() {
    let Some(scene) = Scene::new("mkdir /tmp/x; echo survived") else { return };
    let mut scene = scene.seccomp(json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}]}));
    let said = text(&scene.run());
    // SIGSYS takes mkdir, not the shell.
    assert!(said.contains("Bad system call") && said.contains("survived"), "{said}");
}

#[test]
fn the_default_profile_lets_a_shell_work_and_not_make_namespaces() {
    let Some(scene) = Scene::new("mkdir /tmp/x && echo made; unshare -n true; echo $?") else { return };
    let profile = corten_runtime::seccomp::default_profile(&std::collections::HashSet::<
        oci_spec::runtime::Capability,
    >::new());
    let said = text(&scene.seccomp(serde_json::to_value(&profile).unwrap()).run());
    assert!(said.contains("made") && said.contains("Operation not permitted"), "{said}");
}

#[test]
fn the_agent_gets_the_notify_descriptor_with_the_state() {
    let Some(scene) = Scene::new("mkdir /tmp/x") else { return };
    let path = scene.dir.path().join("agent.sock");
    let agent = UnixListener::bind(&path).unwrap();
    let mut scene = scene
        .seccomp(json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "meta",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]}));
    let got = std::thread::spawn(move || {
        agent.set_nonblocking(true).unwrap();
        let mut peer = None;
        eventually("the runtime connects", || {
            peer = agent.accept().ok();
            peer.is_some()
        });
        let peer = peer.unwrap().0;
        peer.set_nonblocking(false).unwrap();
        let mut buffer = vec![0; 64 << 10];
        let (length, fds) = corten_sys::scm::receive(&peer, &mut buffer).unwrap();
        // Nobody answers for the descriptor from here on: the call fails with ENOSYS.
        (serde_json::from_slice::<Value>(&buffer[..length]).unwrap(), fds.len())
    });
    let said = text(&scene.run());
    let (state, fds) = got.join().unwrap();
    assert_eq!(
        (state["fds"][0].as_str(), fds, state["metadata"].as_str()),
        (Some("seccompFd"), 1, Some("meta"))
    );
    assert!(state["pid"].as_i64() > Some(1) && state["state"]["id"].as_str().is_some(), "{state}");
    assert!(said.contains("not implemented"), "{said}");
}

#[test]
fn a_profile_the_specification_forbids_is_refused_by_name() {
    let Some(scene) = Scene::new("true") else { return };
    let mut scene = scene.seccomp(json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/x"}));
    let output = scene.run();
    assert!(!output.status.success() && text(&output).contains("SCMP_ACT_NOTIFY"), "{}", text(&output));
}
