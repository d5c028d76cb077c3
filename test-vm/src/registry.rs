//! A real registry (Debian's docker-registry) on the loopback of the caller's network namespace.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::artifacts::{self, Missing};
use crate::wait;

/// A running registry; ends with the value.
pub struct Registry {
    child: Child,
    pub address: String,
}

impl Registry {
    /// Starts one on `storage` (its own or the shared one with the test images) with its files in `dir`.
    pub fn start(storage: &Path, dir: &Path) -> Result<Self, Missing> {
        let program = artifacts::tool("docker-registry")?;
        fs::create_dir_all(dir).expect("make the registry's directory");
        // A port that was free a moment ago; another test may take it in between, then the next try gets another.
        for _ in 0..5 {
            let address = free_address();
            let config = dir.join("registry.yml");
            let text = format!(
                "version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  \
                 delete: {{enabled: true}}\nhttp: {{addr: \"{address}\"}}\n",
                storage.display()
            );
            fs::write(&config, text).expect("write the registry's configuration");
            let log = File::create(dir.join("registry.log")).expect("make the registry's log");
            let mut child = Command::new(&program)
                .arg("serve")
                .arg(&config)
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("share the log"))
                .stderr(log)
                .spawn()
                .expect("start docker-registry");
            let up = wait::until("the registry answers or ends", || {
                if child.try_wait().expect("look at the registry").is_some() {
                    return Ok(false);
                }
                TcpStream::connect(&address).map(|_| true).map_err(|e| e.to_string())
            });
            if up {
                return Ok(Self { child, address });
            }
        }
        let log = fs::read_to_string(dir.join("registry.log")).unwrap_or_default();
        panic!("docker-registry does not start:\n{log}");
    }

    /// Ends it, as a registry that goes away under its clients.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.end();
    }
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
    listener.local_addr().expect("the address of a bound socket").to_string()
}
