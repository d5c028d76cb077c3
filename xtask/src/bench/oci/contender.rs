//! One of those who take part: an OCI runtime by its command line, or the floor.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::floor::Programs;
use super::scene::{self, Scene};
use crate::run;

pub struct Contender {
    name: String,
    how: How,
    /// Runs `true` in every round.
    passing: Container,
    /// Runs `pause`; exec goes into it.
    staying: Container,
}

enum How {
    Oci { program: PathBuf, root: PathBuf },
    Floor { programs: Programs, hierarchies: String },
}

struct Container {
    id: &'static str,
    bundle: PathBuf,
    state: PathBuf,
    cgroup: String,
    program: &'static str,
}

const DEATH: Duration = Duration::from_secs(10);

impl Contender {
    pub fn oci(scene: &Scene, name: &str, program: PathBuf) -> Result<Self> {
        let said = run::output(Command::new(&program).arg("--version"))
            .with_context(|| format!("{name} ({}) does not run", program.display()))?;
        let version = said.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        let root = scene.dir.join("root").join(name);
        let name_version = format!("{name} {}", version.unwrap_or("?"));
        Self::new(scene, name, name_version, How::Oci { program, root })
    }

    pub fn floor(scene: &Scene, programs: Programs) -> Result<Self> {
        let hierarchies = scene.hierarchies.join(":");
        Self::new(scene, "floor", "(the kernel alone)".into(), How::Floor { programs, hierarchies })
    }

    fn new(scene: &Scene, short: &str, name: String, how: How) -> Result<Self> {
        let container = |id: &'static str, program: &'static str| {
            let bundle = format!("{short}-{id}");
            anyhow::Ok(Container {
                id,
                bundle: scene.bundle(&bundle, program)?,
                state: scene.dir.join(format!("state-{bundle}")),
                cgroup: scene::cgroup(&bundle),
                program,
            })
        };
        Ok(Self {
            name,
            how,
            passing: container("passing", "true")?,
            staying: container("staying", "pause")?,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn create(&self) -> Result<Duration> {
        timed(&mut self.command("create", &self.passing))
    }

    pub fn start(&self) -> Result<Duration> {
        timed(&mut self.command("start", &self.passing))
    }

    pub fn delete(&self) -> Result<Duration> {
        timed(&mut self.command("delete", &self.passing))
    }

    pub fn wait_dead(&self) -> Result<()> {
        wait_dead(self.pid(&self.passing)?)
    }

    /// Start the container that exec goes into.
    pub fn hold(&self) -> Result<()> {
        timed(&mut self.command("create", &self.staying))?;
        timed(&mut self.command("start", &self.staying)).map(drop)
    }

    pub fn exec(&self) -> Result<Duration> {
        let mut command = match &self.how {
            How::Oci { program, root } => {
                let mut command = Command::new(program);
                command.arg("--root").arg(root).args(["exec", self.staying.id, "/bin/true"]);
                command
            }
            How::Floor { programs, hierarchies } => {
                let mut command = Command::new(&programs.exec);
                command.env("FLOOR_CGROUPS", hierarchies).arg(self.pid(&self.staying)?.to_string());
                command.args([&self.staying.cgroup, "/bin/true"]);
                command
            }
        };
        timed(&mut command)
    }

    fn command(&self, operation: &str, container: &Container) -> Command {
        match &self.how {
            How::Oci { program, root } => {
                let mut command = Command::new(program);
                command.arg("--root").arg(root).args(operation.split(' '));
                if operation == "create" {
                    command.arg("--bundle").arg(&container.bundle).arg("--pid-file").arg(&container.state);
                }
                command.arg(container.id);
                command
            }
            How::Floor { programs, hierarchies } => {
                let mut command = Command::new(&programs.container);
                command.env("FLOOR_CGROUPS", hierarchies).arg(operation);
                if operation == "create" {
                    command.arg(&container.bundle);
                }
                command.arg(&container.state);
                if operation != "start" {
                    command.arg(&container.cgroup);
                }
                if operation == "create" {
                    command.arg(format!("/bin/{}", container.program));
                }
                command
            }
        }
    }

    fn pid(&self, container: &Container) -> Result<u32> {
        let file = match self.how {
            How::Oci { .. } => container.state.clone(),
            How::Floor { .. } => container.state.join("state.json"),
        };
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let pid = text.split_whitespace().next().unwrap_or_default();
        pid.parse().with_context(|| format!("no pid in {}", file.display()))
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        for container in [&self.passing, &self.staying] {
            let Ok(pid) = self.pid(container) else { continue };
            let operation = if matches!(self.how, How::Oci { .. }) { "delete --force" } else { "delete" };
            let mut command = self.command(operation, container);
            // Usually there is nothing left to delete.
            let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
            // crun returns before the process is dead, and its cgroup stays then.
            let _ = wait_dead(pid);
        }
    }
}

fn timed(command: &mut Command) -> Result<Duration> {
    // Standard error is the terminal: a pipe would be held open by the container.
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let start = Instant::now();
    let status = command.status().with_context(|| format!("cannot start `{}`", run::shown(command)))?;
    let took = start.elapsed();
    ensure!(status.success(), "`{}` failed: {status}", run::shown(command));
    Ok(took)
}

/// Gone, or a zombie that nobody has reaped yet.
fn wait_dead(pid: u32) -> Result<()> {
    let deadline = Instant::now() + DEATH;
    loop {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        if matches!(state, None | Some('Z' | 'X')) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("process {pid} is still alive after {} s", DEATH.as_secs());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}
