//! The machine's containerd on a node of its own: the peer that benchmarks measure against.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::mount::{MsFlags, mount};

use crate::artifacts::{self, Missing};
use crate::node::{Node, run};
use crate::wait;

/// A running containerd; ends, with its shims, before the node does.
pub struct Containerd {
    child: Child,
    pub socket: PathBuf,
    /// As it calls itself, `containerd 1.6.20`.
    pub version: String,
}

impl Containerd {
    /// Starts it in the namespaces of `node`, with Debian's plugins, in a network of the same shape as the node's.
    pub fn start(node: &Node) -> Result<Self, Missing> {
        let (program, runc) = (artifacts::tool("containerd")?, artifacts::tool("runc")?);
        let plugins = PathBuf::from("/usr/lib/cni");
        if !plugins.join("bridge").is_file() {
            return Err(Missing(
                "containernetworking-plugins is not installed: cargo xtask packages installs it".into(),
            ));
        }
        // Shims keep their sockets in /run/containerd, whatever the configuration says.
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
            .expect("a private /run");
        node.write_cri_config();
        let dir = node.dir().join("containerd");
        fs::create_dir_all(&dir).expect("make containerd's directory");
        let socket = dir.join("containerd.sock");
        let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
        let text = format!(
            "version = 2\nroot = \"{dir}/root\"\nstate = \"/run/containerd\"\n[grpc]\naddress = \"{socket}\"\n\
             [{cri}]\nsandbox_image = \"registry.k8s.io/pause:3.9\"\nrestrict_oom_score_adj = true\n\
             [{cri}.cni]\nbin_dir = \"{plugins}\"\nconf_dir = \"{conf}\"\n\
             [{cri}.registry]\nconfig_path = \"{certs}\"\n\
             [{cri}.containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n\
             [{cri}.containerd.runtimes.runc.options]\nBinaryName = \"{runc}\"\n",
            dir = dir.display(),
            socket = socket.display(),
            plugins = plugins.display(),
            conf = node.dir().join("cni/net.d").display(),
            certs = node.config().join("certs.d").display(),
            runc = runc.display(),
        );
        let config = dir.join("config.toml");
        fs::write(&config, text).expect("write containerd's configuration");
        let log = File::create(dir.join("log")).expect("make containerd's log");
        let mut child = Command::new(&program)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("share the log"))
            .stderr(log)
            .spawn()
            .expect("start containerd");
        wait::until("containerd listens", || {
            if let Some(status) = child.try_wait().expect("look at containerd") {
                panic!(
                    "containerd ended ({status}):\n{}",
                    fs::read_to_string(dir.join("log")).unwrap_or_default()
                );
            }
            std::os::unix::net::UnixStream::connect(&socket).map(drop).map_err(|e| e.to_string())
        });
        let version = run(Command::new(&program).arg("--version"));
        let version = version
            .split_whitespace()
            .nth(2)
            .unwrap_or("unknown")
            .split('~')
            .next()
            .unwrap_or("unknown")
            .to_string();
        Ok(Self { child, socket, version: format!("containerd {version}") })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
