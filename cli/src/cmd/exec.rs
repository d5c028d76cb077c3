//! `corten exec`: one command in a running container, its output and its exit code.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Result, bail};
use corten_cri_api::v1;

use crate::cri::{CONTAINER_NAME, Cri, POD_NAME, POD_NAMESPACE, block_on, need_root, told};
use crate::instance::Instance;
use crate::pick::{self, Candidate};

/// Run a command in a container of a pod
///
/// Prints what the command printed and ends with its exit code.
#[derive(clap::Args)]
pub struct Args {
    /// The pod: NAME or NAMESPACE/NAME
    pod: String,
    /// The container; the pod's first one when not given
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Refused: passing standard input needs streaming
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Refused: a terminal needs streaming
    #[arg(short = 't', long)]
    tty: bool,
    /// Seconds after which the command is killed; 0 is never
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    timeout: i64,
    /// The command and its arguments, after --
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    for (given, flag, what) in [(args.stdin, "-i", "standard input"), (args.tty, "-t", "a terminal")] {
        if given {
            bail!(
                "{flag}: {what} needs streaming exec, which corten-cri does not serve; run the command without {flag}"
            );
        }
    }
    need_root("corten exec")?;
    block_on(async {
        let mut cri = Cri::connect(instance).await?;
        let container_id = find(&mut cri, &args.pod, args.container.as_deref()).await?;
        let request = v1::ExecSyncRequest { container_id, cmd: args.command.clone(), timeout: args.timeout };
        let what = format!("run {:?} in {}", args.command[0], args.pod);
        let answer = cri.runtime.exec_sync(request).await.map_err(|s| told(&what, &s))?.into_inner();
        std::io::stdout().write_all(&answer.stdout)?;
        std::io::stderr().write_all(&answer.stderr)?;
        Ok(ExitCode::from(answer.exit_code as u8))
    })
}

/// The id of the running container that the user means.
async fn find(cri: &mut Cri, wanted: &str, container: Option<&str>) -> Result<String> {
    let filter = v1::PodSandboxFilter {
        state: Some(v1::PodSandboxStateValue { state: v1::PodSandboxState::SandboxReady.into() }),
        ..Default::default()
    };
    let request = v1::ListPodSandboxRequest { filter: Some(filter) };
    let mut sandboxes = cri
        .runtime
        .list_pod_sandbox(request)
        .await
        .map_err(|s| told("list sandboxes", &s))?
        .into_inner()
        .items;
    // Newest first, as the kubelet replaces a sandbox by one of the same name.
    sandboxes.sort_by_key(|sandbox| std::cmp::Reverse(sandbox.created_at));
    let mut pods: Vec<Candidate> = Vec::new();
    let mut ids = Vec::new();
    for sandbox in sandboxes {
        let pod = candidate(&sandbox.labels);
        if !pods.contains(&pod) {
            pods.push(pod);
            ids.push(sandbox.id);
        }
    }
    let index = pick::pod(wanted, &pods)?;
    let filter = v1::ContainerFilter {
        pod_sandbox_id: ids.swap_remove(index),
        state: Some(v1::ContainerStateValue { state: v1::ContainerState::ContainerRunning.into() }),
        ..Default::default()
    };
    let request = v1::ListContainersRequest { filter: Some(filter) };
    let mut running = cri
        .runtime
        .list_containers(request)
        .await
        .map_err(|s| told("list containers", &s))?
        .into_inner()
        .containers;
    running.sort_by_key(|container| container.created_at);
    let names: Vec<String> =
        running.iter().map(|c| c.labels.get(CONTAINER_NAME).cloned().unwrap_or_default()).collect();
    let name = pick::container(wanted, container, &names)?.to_string();
    let position = names.iter().position(|n| *n == name).expect("the name comes from this list");
    Ok(running.swap_remove(position).id)
}

fn candidate(labels: &std::collections::HashMap<String, String>) -> Candidate {
    let label = |key: &str| labels.get(key).cloned().unwrap_or_default();
    Candidate { namespace: label(POD_NAMESPACE), name: label(POD_NAME), node: crate::config::node_name() }
}
