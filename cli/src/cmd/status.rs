//! `corten status`.

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use crate::cli::Output;
use crate::cri::block_on;
use crate::daemon::{self, CRI, KUBELET};
use crate::instance::Instance;
use crate::kubelet::{self, Summary};
use crate::table;

/// Show the daemons and the pods
///
/// Ends with 1 when a daemon does not run or a pod is not Ready.
#[derive(clap::Args)]
pub struct Args {
    /// How to print it
    #[arg(short, long, default_value = "table")]
    output: Output,
}

#[derive(Serialize)]
struct Report {
    daemons: Vec<Daemon>,
    pods: Vec<Summary>,
}

#[derive(Serialize)]
struct Daemon {
    name: &'static str,
    /// Absent when it does not run.
    pid: Option<i32>,
}

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    let daemon = |name| Daemon { name, pid: daemon::running(instance, name).map(|p| p.pid) };
    let daemons = vec![daemon(CRI), daemon(KUBELET)];
    let pods = if daemons[1].pid.is_some() { block_on(kubelet::pods(instance))? } else { Vec::new() };
    let well = daemons.iter().all(|d| d.pid.is_some()) && pods.iter().all(|p| p.is_ready() || p.is_done());
    match args.output {
        Output::Json => {
            let pods = pods.iter().map(kubelet::Pod::summary).collect();
            println!("{}", serde_json::to_string_pretty(&Report { daemons, pods })?);
        }
        Output::Table => print!("{}", text(instance, &daemons, &pods)),
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(instance: &Instance, daemons: &[Daemon], pods: &[kubelet::Pod]) -> String {
    if daemons.iter().all(|d| d.pid.is_none()) {
        return format!(
            "nothing runs in {}; start it with `{} up`\n",
            instance.root.display(),
            instance.command()
        );
    }
    let rows: Vec<Vec<String>> = daemons
        .iter()
        .map(|d| match d.pid {
            Some(pid) => vec![d.name.into(), format!("running, pid {pid}")],
            None => vec![d.name.into(), format!("DOWN; `{} up` starts it", instance.command())],
        })
        .collect();
    let mut out = table::aligned(&["DAEMON", "STATE"], &rows) + "\n";
    let rows: Vec<Vec<String>> = pods.iter().flat_map(pod_rows).collect();
    out += &if rows.is_empty() {
        "no pods\n".to_string()
    } else {
        table::aligned(&["NAMESPACE", "POD", "IP", "READY", "CONTAINER", "RESTARTS", "STATE"], &rows)
    };
    out
}

/// One row per container; the pod's own columns stand in its first.
fn pod_rows(pod: &kubelet::Pod) -> Vec<Vec<String>> {
    let summary = pod.summary();
    let rows = summary.containers.into_iter().enumerate().map(|(index, container)| {
        let own = match index {
            0 => [summary.namespace.clone(), summary.name.clone(), summary.ip.clone(), pod.readiness()],
            _ => Default::default(),
        };
        own.into_iter().chain([container.name, container.restarts.to_string(), container.state]).collect()
    });
    rows.collect()
}
