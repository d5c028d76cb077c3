//! Runs `net-probe` somewhere and reads its answer.

use std::net::SocketAddr;

use anyhow::{Context, Result, anyhow, ensure};

use super::Place;
use super::running::Running;
use crate::artifacts;
use crate::probe::bulk::Moved;
use crate::probe::rounds::Counted;
use crate::probe::who::{Answer, Transport};

fn net_probe(place: &Place) -> Result<std::process::Command> {
    place.command(artifacts::net_probe().map_err(|missing| anyhow!("{missing}"))?)
}

/// A server that is ready.
pub fn serve(place: &Place, name: &str, listen: &[SocketAddr], cpu: Option<usize>) -> Result<Running> {
    let mut command = net_probe(place)?;
    command.args(["serve", "--name", name]).args(listen.iter().map(ToString::to_string));
    if let Some(cpu) = cpu {
        command.args(["--cpu", &cpu.to_string()]);
    }
    let mut server = Running::start(&mut command, &format!("the server of {name}"), None)?;
    let line = server.line()?;
    ensure!(line == "ready", "the server of {name} said {line:?}");
    Ok(server)
}

/// Asks every address once, in order.
pub fn who(place: &Place, questions: &[(Transport, SocketAddr)]) -> Result<Vec<Answer>> {
    let mut command = net_probe(place)?;
    command.arg("who");
    for (transport, address) in questions {
        let transport = serde_json::to_value(transport)?;
        command.arg(format!("{}={address}", transport.as_str().unwrap_or_default()));
    }
    let output = command.output().context("start net-probe who")?;
    ensure!(output.status.success(), "net-probe who: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_string())).collect()
}

/// Requests and responses for so long, on this CPU.
pub fn rounds(place: &Place, to: SocketAddr, millis: u64, cpu: Option<usize>, udp: bool) -> Result<Counted> {
    let mut command = net_probe(place)?;
    command.args(["rounds", &to.to_string(), "--millis", &millis.to_string()]);
    if let Some(cpu) = cpu {
        command.args(["--cpu", &cpu.to_string()]);
    }
    if udp {
        command.arg("--udp");
    }
    let output = command.output().context("start net-probe rounds")?;
    ensure!(output.status.success(), "net-probe rounds: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("net-probe rounds printed no counts")
}

/// A connection full of bytes.
pub struct Bulk(Running);

impl Bulk {
    /// Returns once bytes come back.
    pub fn start(place: &Place, to: SocketAddr, megabytes: u64) -> Result<Self> {
        let mut command = net_probe(place)?;
        command.args(["bulk", &to.to_string(), "--megabytes", &megabytes.to_string()]);
        let mut bulk = Running::start(&mut command, &format!("bulk transfer to {to}"), None)?;
        let line = bulk.line()?;
        ensure!(line == "flowing", "the bulk transfer said {line:?}");
        Ok(Self(bulk))
    }

    /// Ends it and says what arrived. What was lost, reset or wrong is an error.
    pub fn finish(mut self) -> Result<Moved> {
        self.0.end_input();
        let moved: Moved =
            serde_json::from_str(&self.0.line()?).context("the bulk transfer printed no result")?;
        match &moved.error {
            None => Ok(moved),
            Some(error) => Err(anyhow!(
                "{error} (sent {} bytes, {} came back, longest stall {} ms)",
                moved.sent,
                moved.returned,
                moved.stall_ms
            )),
        }
    }
}
