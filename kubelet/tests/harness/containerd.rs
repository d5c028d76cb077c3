//! Debian's containerd as the runtime, in PID, mount and network namespaces of its own: nothing of it outlives the
//! test, and the machine's network is not touched. It proves that the kubelet drives a CRI that is not ours.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{PAUSE, Runtime, until};

pub struct Containerd {
    child: Child,
    /// Its process, seen from outside.
    pid: u32,
    socket: PathBuf,
    _log: PathBuf,
}

pub fn missing() -> Option<String> {
    let programs = ["containerd", "ctr", "runc", "unshare", "nsenter", "setpriv", "ip"];
    let found = |name: &&str| {
        ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].iter().any(|dir| Path::new(dir).join(name).exists())
    };
    let files = ["/usr/lib/cni/bridge", "/usr/lib/cni/host-local", "/usr/lib/cni/portmap", "/bin/busybox"];
    let programs = programs.iter().filter(|p| !found(p)).map(ToString::to_string);
    programs.chain(files.iter().filter(|f| !Path::new(f).exists()).map(ToString::to_string)).next()
}

impl Containerd {
    pub fn start(dir: &Path) -> Self {
        let socket = dir.join("containerd.sock");
        std::fs::create_dir_all(dir.join("cni")).expect("cni dir");
        std::fs::write(dir.join("cni/10-test.conflist"), CNI).expect("cni config");
        std::fs::write(dir.join("containerd.toml"), config(dir, &socket)).expect("containerd config");
        let script = format!(
            "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/lib && mkdir /run/netns && ip link set lo up && \
             exec containerd --config {} ",
            dir.join("containerd.toml").display()
        );
        let log = dir.join("containerd.log");
        let out = std::fs::File::create(&log).expect("log");
        let child = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "unshare",
                "--mount",
                "--net",
                "--ipc",
                "--pid",
                "--fork",
                "--kill-child",
            ])
            .args(["--mount-proc", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("log"))
            .stderr(out)
            .spawn()
            .expect("start containerd");
        let pid = until("containerd's process", || child_of(child.id()));
        let runtime = Self { child, pid, socket, _log: log };
        let archive = dir.join("images.tar");
        super::image::archive(&archive).expect("image archive");
        until("containerd to answer", || {
            let socket = runtime.socket.to_str().expect("path");
            let ctr = ["ctr", "-a", socket, "version"];
            runtime.command(&ctr).output().ok().filter(|o| o.status.success())
        });
        let import =
            ["ctr", "-a", runtime.socket.to_str().expect("path"), "-n", "k8s.io", "images", "import"];
        let done = runtime.command(&import).arg(&archive).output().expect("ctr");
        assert!(done.status.success(), "import: {}", String::from_utf8_lossy(&done.stderr));
        runtime
    }
}

impl Runtime for Containerd {
    fn endpoint(&self) -> String {
        format!("unix://{}", self.socket.display())
    }
    fn command(&self, argv: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.pid.to_string(), "--mount", "--net", "--ipc", "--pid", "--"])
            .args(argv);
        command
    }
    fn client(&self) -> Vec<String> {
        ["ctr", "-a", self.socket.to_str().expect("path"), "-n", "k8s.io"].map(str::to_owned).into()
    }
    fn process(&self, child: &Child) -> u32 {
        until("the process below nsenter", || child_of(child.id()))
    }
}

/// nsenter and unshare fork before they execute: the one child.
fn child_of(pid: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // Its PID namespace ends with it, and so does every shim and container.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let pid = self.pid;
        until("the namespace to end", || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
    }
}

const CNI: &str = r#"{"cniVersion": "0.4.0", "name": "test", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.99.0.0/24"}]], "dataDir": "/run/ipam"}}]}"#;

fn config(dir: &Path, socket: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]
[grpc]
  address = "{}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{dir}/cni"
"#,
        socket.display()
    )
}
