//! A container of the real binary: its bundle, its state directory, its cgroup; everything goes with it, panics too.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub const OCI: &str = env!("CARGO_BIN_EXE_corten-oci");
const BUSYBOX: &str = "/bin/busybox";
const APPLETS: &[&str] = &[
    "sh",
    "true",
    "false",
    "sleep",
    "cat",
    "ls",
    "id",
    "mount",
    "hostname",
    "echo",
    "grep",
    "stat",
    "readlink",
    "touch",
    "mkdir",
    "umask",
    "env",
    "pwd",
    "dd",
    "kill",
    "test",
    "stty",
    "tty",
    "dnsdomainname",
    "ip",
    "head",
    "mv",
    "rm",
    "ln",
    "cp",
    "date",
];

/// What these tests cannot do without; otherwise they skip, and say so.
pub fn able() -> bool {
    let root = fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
    if !root {
        println!("SKIP: containers are made as root");
        return false;
    }
    if !Path::new(BUSYBOX).exists() {
        println!("SKIP: {BUSYBOX} is missing (package busybox-static)");
        return false;
    }
    true
}

pub struct Container {
    pub id: String,
    directory: tempfile::TempDir,
    pub config: Value,
}

impl Container {
    /// A bundle whose process runs a shell script.
    pub fn new(script: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!("t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = tempfile::tempdir().unwrap();
        let container = Self { config: config(&id, script), id, directory };
        let bin = container.rootfs().join("bin");
        fs::create_dir_all(&bin).unwrap();
        for name in ["etc", "tmp"] {
            fs::create_dir_all(container.rootfs().join(name)).unwrap();
        }
        fs::copy(BUSYBOX, bin.join("busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", bin.join(applet)).unwrap();
        }
        container
    }

    pub fn with(script: &str, change: impl FnOnce(&mut Value)) -> Self {
        let mut container = Self::new(script);
        change(&mut container.config);
        container
    }

    pub fn bundle(&self) -> &Path {
        self.directory.path()
    }

    pub fn rootfs(&self) -> PathBuf {
        self.bundle().join("rootfs")
    }

    pub fn state_root(&self) -> PathBuf {
        self.bundle().join("state")
    }

    pub fn cgroup(&self) -> PathBuf {
        Path::new(self.config["linux"]["cgroupsPath"].as_str().unwrap()).strip_prefix("/").unwrap().to_owned()
    }

    pub fn write_config(&self) {
        fs::write(self.bundle().join("config.json"), self.config.to_string()).unwrap();
    }

    /// The binary with its state directory, and this command.
    pub fn command(&self, command: &str) -> Command {
        let mut oci = Command::new(OCI);
        oci.arg("--root").arg(self.state_root()).arg(command).current_dir(self.bundle());
        oci
    }

    pub fn oci(&self, arguments: &[&str]) -> Output {
        let (command, rest) = arguments.split_first().unwrap();
        self.command(command).args(rest).stdin(Stdio::null()).output().unwrap()
    }

    /// `run`, to its end.
    pub fn run(&self) -> Output {
        self.write_config();
        self.oci(&["run", &self.id])
    }

    /// `run`, whose output is asserted to be a success.
    pub fn output(&self) -> String {
        let output = self.run();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What `run` complains of.
    pub fn refusal(&self) -> String {
        let output = self.run();
        assert!(!output.status.success(), "it was taken: {output:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        self.assert_nothing_left();
        text
    }

    /// `create`; streams go to files, for a pipe would wait for the container.
    pub fn create(&self) {
        self.write_config();
        let log = fs::File::create(self.bundle().join("log")).unwrap();
        let status = self
            .command("create")
            .arg(&self.id)
            .stdin(Stdio::null())
            .stdout(fs::File::create(self.bundle().join("out")).unwrap())
            .stderr(log)
            .status()
            .unwrap();
        assert!(status.success(), "{}", self.log());
    }

    pub fn create_and_start(&self) {
        self.create();
        self.success(&["start", &self.id]);
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.bundle().join("log")).unwrap_or_default()
    }

    pub fn out(&self) -> String {
        fs::read_to_string(self.bundle().join("out")).unwrap_or_default()
    }

    pub fn success(&self, arguments: &[&str]) -> String {
        let output = self.oci(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn state(&self) -> Value {
        serde_json::from_str(&self.success(&["state", &self.id])).unwrap()
    }

    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    pub fn wait_status(&self, status: &str) {
        wait(&format!("status {status}"), || self.status() == status);
    }

    /// No state, no cgroup, no mount.
    pub fn assert_nothing_left(&self) {
        assert!(!self.state_root().join(&self.id).exists(), "the state directory is left");
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap() {
            let cgroup = hierarchy.unwrap().path().join(self.cgroup());
            assert!(!cgroup.exists(), "{} is left", cgroup.display());
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let bundle = self.bundle().to_str().unwrap();
        assert!(!mounts.contains(bundle), "a mount below {bundle} is left");
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.oci(&["delete", "--force", &self.id]);
        // The parent that tests of the cgroup path share is nobody's but theirs.
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(hierarchy.path().join(self.cgroup()));
            if let Some(parent) = self.cgroup().parent().filter(|parent| !parent.as_os_str().is_empty()) {
                let _ = fs::remove_dir(hierarchy.path().join(parent));
            }
        }
    }
}

fn config(id: &str, script: &str) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["sh", "-c", script],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "ro"]}
        ],
        "linux": {
            "cgroupsPath": format!("/corten-test-{id}"),
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}],
            "maskedPaths": ["/proc/acpi", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/proc/missing"],
            "readonlyPaths": ["/proc/bus", "/proc/sys"]
        }
    })
}

pub fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Adds to a list of the configuration.
pub fn push(config: &mut Value, pointer: &str, value: Value) {
    config
        .pointer_mut(pointer)
        .and_then(Value::as_array_mut)
        .unwrap_or_else(|| panic!("no list at {pointer}"))
        .push(value);
}

/// `create` with a console socket: the terminal's master.
pub fn receive_terminal(container: &Container) -> fs::File {
    container.write_config();
    let path = container.bundle().join("console.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let output = container.oci(&["create", "--console-socket", "console.sock", &container.id]);
    assert!(output.status.success(), "{output:?}");
    let (socket, _) = listener.accept().unwrap();
    let mut name = [0; 64];
    let (_, mut fds) = corten_sys::scm::receive(&socket, &mut name).unwrap();
    fs::File::from(fds.remove(0))
}

/// Reads from a terminal until the text ends so.
pub fn read_until(terminal: &fs::File, end: &str) -> String {
    use std::io::Read;
    let mut text = String::new();
    while !text.ends_with(end) {
        let mut buffer = [0; 256];
        let mut reader = terminal;
        let count = reader.read(&mut buffer).unwrap_or(0);
        assert!(count > 0, "the terminal ended after {text:?}");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    text
}
