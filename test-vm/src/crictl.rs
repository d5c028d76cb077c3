//! Stock crictl on a node's socket.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::artifacts::{self, Missing};
use crate::node::{Node, succeeded};

pub struct Crictl {
    program: PathBuf,
    socket: String,
    dir: PathBuf,
}

impl Crictl {
    pub fn of(node: &Node) -> Result<Self, Missing> {
        let dir = node.dir().join("crictl");
        fs::create_dir_all(&dir).expect("make crictl's directory");
        // Without a file of its own it would read /etc/crictl.yaml.
        fs::write(dir.join("crictl.yaml"), "timeout: 60\n").expect("write crictl's configuration");
        Ok(Self { program: artifacts::crictl()?, socket: format!("unix://{}", node.socket().display()), dir })
    }

    pub fn output(&self, args: &[&str]) -> Output {
        Command::new(&self.program)
            .arg("--config")
            .arg(self.dir.join("crictl.yaml"))
            .args(["-r", &self.socket, "-i", &self.socket])
            .args(args)
            .output()
            .expect("start crictl")
    }

    /// What a successful call printed, without the last newline.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> String {
        succeeded(&self.output(args)).trim_end().to_string()
    }

    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let text = self.run(args);
        serde_json::from_str(&text)
            .unwrap_or_else(|e| panic!("crictl {args:?} printed no JSON ({e}): {text}"))
    }

    /// Writes a sandbox configuration; `extra` is laid over it.
    pub fn pod_config(&self, name: &str, extra: &Value) -> PathBuf {
        let mut config = json!({
            "metadata": { "name": name, "namespace": "default", "uid": format!("uid-{name}"), "attempt": 0 },
            "hostname": name,
            "log_directory": self.logs().join(name),
            "labels": { "app": name },
            "linux": {}
        });
        lay_over(&mut config, extra);
        self.write(&format!("pod-{name}.json"), &config)
    }

    /// Writes a container configuration.
    pub fn container_config(&self, name: &str, image: &str, command: &[&str], extra: &Value) -> PathBuf {
        let mut config = json!({
            "metadata": { "name": name },
            "image": { "image": image },
            "command": command,
            "log_path": format!("{name}.log"),
            "labels": { "container": name },
            "linux": {}
        });
        lay_over(&mut config, extra);
        self.write(&format!("container-{name}.json"), &config)
    }

    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// runp; the sandbox's id.
    #[track_caller]
    pub fn run_pod(&self, config: &Path) -> String {
        self.run(&["runp", text(config)])
    }

    /// create and start; the container's id.
    #[track_caller]
    pub fn run_container(&self, pod: &str, container: &Path, pod_config: &Path) -> String {
        let id = self.run(&["create", pod, text(container), text(pod_config)]);
        self.run(&["start", &id]);
        id
    }

    /// The pod's address.
    #[track_caller]
    pub fn pod_ip(&self, pod: &str) -> String {
        let status = self.json(&["inspectp", pod]);
        status["status"]["network"]["ip"]
            .as_str()
            .unwrap_or_else(|| panic!("no address: {status}"))
            .to_string()
    }

    fn write(&self, name: &str, config: &Value) -> PathBuf {
        let file = self.dir.join(name);
        fs::write(&file, config.to_string()).expect("write a configuration for crictl");
        file
    }
}

/// The path as crictl's argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

fn lay_over(base: &mut Value, extra: &Value) {
    match (base, extra) {
        (Value::Object(base), Value::Object(extra)) => {
            for (key, value) in extra {
                lay_over(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (base, extra) => *base = extra.clone(),
    }
}
