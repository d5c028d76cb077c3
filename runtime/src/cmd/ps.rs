//! `ps [--format table|json] ID [ps options]`: the processes of a container, by their pids on the host.

use std::process::Command;

use anyhow::{Context as _, bail};

use super::{Answer, Context, output};
use crate::options::{Arguments, unknown_option};

pub fn run(mut arguments: Arguments, context: &Context) -> Answer {
    let mut json = false;
    while let Some(name) = arguments.next()? {
        match name.as_str() {
            "format" | "f" => match arguments.text()?.as_str() {
                "json" => json = true,
                "table" => json = false,
                other => bail!("invalid format option {other:?}: use table or json"),
            },
            other => return unknown_option(other),
        }
    }
    let operands = arguments.operands()?;
    let Some((id, options)) = operands.split_first() else { bail!("the container's id is missing") };
    let pids = context.runtime.pids(id)?;
    let text = if json { format!("{}\n", serde_json::to_string(&pids)?) } else { table(options, &pids)? };
    output(&text)?;
    Ok(0)
}

/// The lines of ps(1) that are the container's, and its header.
fn table(options: &[String], pids: &[i32]) -> anyhow::Result<String> {
    let default = ["-ef".to_owned()];
    let options = if options.is_empty() { &default } else { options };
    let ps = Command::new("ps").args(options).output().context("run ps (package procps)")?;
    if !ps.status.success() {
        bail!("ps: {}", String::from_utf8_lossy(&ps.stderr).trim());
    }
    let text = String::from_utf8_lossy(&ps.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column =
        header.split_whitespace().position(|name| name == "PID").context("ps printed no PID column")?;
    let ours = |line: &&str| {
        line.split_whitespace()
            .nth(column)
            .and_then(|pid| pid.parse().ok())
            .is_some_and(|pid: i32| pids.contains(&pid))
    };
    Ok([header].into_iter().chain(lines.filter(ours)).fold(String::new(), |text, line| text + line + "\n"))
}
