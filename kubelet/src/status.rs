//! v1 `PodStatus` from facts. Pure: computed whenever it is asked for, nothing is remembered but when a condition last
//! changed, which only the previous status knows. Rules are upstream's (`kubelet_pods.go`, `status/generate.go`).

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{
    Container as Spec, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::pod::observed::{Container, Exit, Observed, State, UnixNanos};
use crate::pod::sync::Waiting;
use crate::pod::{init_containers, resources, spec};

/// What probes say of a running container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// The startup probe, if any, has succeeded.
    pub started: bool,
    /// Started, and the readiness probe, if any, succeeds.
    pub ready: bool,
}

pub struct Facts<'a> {
    pub pod: &'a Pod,
    pub observed: &'a Observed,
    pub waiting: &'a BTreeMap<String, Waiting>,
    /// By container id.
    pub health: &'a HashMap<String, Health>,
    /// Termination messages by container id.
    pub messages: &'a HashMap<String, String>,
    pub deadline_exceeded: bool,
    pub terminating: bool,
    pub host_ip: &'a str,
    /// When this kubelet first saw the pod, if the runtime does not remember longer.
    pub first_seen_ns: UnixNanos,
    pub now_ns: UnixNanos,
    pub previous: Option<&'a PodStatus>,
}

/// The status of a pod as the API would show it.
pub fn of_pod(facts: &Facts<'_>) -> PodStatus {
    let init: Vec<ContainerStatus> =
        init_containers(facts.pod).iter().map(|c| container(c, facts, true)).collect();
    let main: Vec<ContainerStatus> =
        spec(facts.pod).containers.iter().map(|c| container(c, facts, false)).collect();
    let phase = phase(facts, &init, &main);
    let sandbox = facts.observed.sandboxes.first().filter(|s| s.ready);
    let host_network = spec(facts.pod).host_network == Some(true);
    let ips = match sandbox {
        Some(_) if host_network => vec![facts.host_ip.to_owned()],
        Some(sandbox) => sandbox.ips.clone(),
        None => vec![],
    };
    let start = facts.observed.first_created_ns().unwrap_or(facts.first_seen_ns);
    let exceeded = facts.deadline_exceeded;
    PodStatus {
        conditions: Some(conditions(facts, phase, &init, &main)),
        phase: Some(phase.into()),
        reason: exceeded.then(|| "DeadlineExceeded".into()),
        message: exceeded.then(|| "Pod was active on the node longer than the specified deadline".into()),
        host_ip: Some(facts.host_ip.into()),
        host_ips: Some(vec![HostIP { ip: facts.host_ip.into() }]),
        pod_ip: ips.first().cloned(),
        pod_ips: (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect()),
        start_time: Some(time(start)),
        qos_class: Some(resources::qos(facts.pod).name().into()),
        init_container_statuses: (!init.is_empty()).then_some(init),
        container_statuses: Some(main),
        ..PodStatus::default()
    }
}

/// API times have whole seconds.
pub fn time(ns: UnixNanos) -> Time {
    Time(Timestamp::from_second(ns.div_euclid(1_000_000_000)).unwrap_or(Timestamp::UNIX_EPOCH))
}

fn container(c: &Spec, facts: &Facts<'_>, is_init: bool) -> ContainerStatus {
    let newest = facts.observed.newest(&c.name);
    let mut dead = facts.observed.containers.iter().filter(|o| o.name == c.name && o.exit().is_some());
    let waiting = facts.waiting.get(&c.name);
    let state = match (newest, waiting) {
        (Some(o), _) if o.is_running() => running(o),
        (Some(o), None) if o.exit().is_some() => terminated(o, facts),
        (_, Some(waiting)) => waits(waiting.reason, &waiting.message),
        // Seen, but what to do is not decided yet.
        (_, None) => waits(if is_init { "PodInitializing" } else { "ContainerCreating" }, ""),
    };
    let is_newest_dead = state.terminated.is_some();
    let last = if is_newest_dead { dead.nth(1) } else { dead.next() };
    let health = newest.filter(|o| o.is_running()).and_then(|o| facts.health.get(&o.id));
    let exited_well = newest.and_then(Container::exit).is_some_and(|exit| exit.code == 0);
    let ready = if is_init { exited_well } else { health.is_some_and(|h| h.ready) && !facts.terminating };
    ContainerStatus {
        name: c.name.clone(),
        image: c.image.clone().unwrap_or_default(),
        image_id: newest.map(|o| o.image_ref.clone()).unwrap_or_default(),
        container_id: newest.map(container_id),
        restart_count: newest.map_or(0, |o| o.attempt as i32),
        ready,
        started: Some(if is_init {
            newest.is_some_and(Container::is_running)
        } else {
            health.is_some_and(|h| h.started)
        }),
        state: Some(state),
        last_state: last.map(|o| terminated(o, facts)),
        ..ContainerStatus::default()
    }
}

/// `containerd://ID` upstream, from the runtime's name; here the part before is always `cri`, so that no status
/// depends on which runtime answers.
fn container_id(o: &Container) -> String {
    format!("cri://{}", o.id)
}

fn running(o: &Container) -> ContainerState {
    let State::Running { started_ns } = o.state else { return ContainerState::default() };
    let running = ContainerStateRunning { started_at: Some(time(started_ns)) };
    ContainerState { running: Some(running), ..ContainerState::default() }
}

fn terminated(o: &Container, facts: &Facts<'_>) -> ContainerState {
    let default = Exit::default();
    let exit = o.exit().unwrap_or(&default);
    let reason = match (exit.reason.as_str(), exit.code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    let said = facts.messages.get(&o.id).filter(|m| !m.is_empty()).unwrap_or(&exit.message);
    let terminated = ContainerStateTerminated {
        exit_code: exit.code,
        signal: None,
        reason: Some(reason.into()),
        message: (!said.is_empty()).then(|| said.clone()),
        started_at: Some(time(exit.started_ns)),
        finished_at: Some(time(exit.finished_ns)),
        container_id: Some(container_id(o)),
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

fn waits(reason: &str, message: &str) -> ContainerState {
    let message = (!message.is_empty()).then(|| message.to_owned());
    let waiting = ContainerStateWaiting { reason: Some(reason.into()), message };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

/// What a container's status counts as for the phase.
fn last_exit(status: &ContainerStatus) -> Option<i32> {
    let terminated =
        |s: &Option<ContainerState>| s.as_ref().and_then(|s| s.terminated.as_ref()).map(|t| t.exit_code);
    terminated(&status.state).or_else(|| terminated(&status.last_state))
}

fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|s| s.running.is_some())
}

fn phase(facts: &Facts<'_>, init: &[ContainerStatus], main: &[ContainerStatus]) -> &'static str {
    let policy = spec(facts.pod).restart_policy.as_deref().unwrap_or("Always");
    if facts.deadline_exceeded {
        return "Failed";
    }
    let begun = main.iter().any(|s| is_running(s) || last_exit(s).is_some());
    let init_failed = init.iter().any(|s| !is_running(s) && last_exit(s).is_some_and(|code| code != 0));
    let init_done = begun || init.iter().all(|s| s.ready);
    if !init_done {
        return if init_failed && policy == "Never" { "Failed" } else { "Pending" };
    }
    let running = main.iter().filter(|s| is_running(s)).count();
    let stopped: Vec<i32> = main.iter().filter(|s| !is_running(s)).filter_map(last_exit).collect();
    match (running, stopped.as_slice()) {
        _ if running + stopped.len() < main.len() => "Pending",
        (0, codes) if codes.iter().all(|code| *code == 0) && policy != "Always" => "Succeeded",
        (0, _) if policy == "Never" => "Failed",
        _ => "Running",
    }
}

fn conditions(
    facts: &Facts<'_>,
    phase: &str,
    init: &[ContainerStatus],
    main: &[ContainerStatus],
) -> Vec<PodCondition> {
    let unready = |list: &[ContainerStatus]| -> Vec<String> {
        list.iter().filter(|s| !s.ready).map(|s| s.name.clone()).collect()
    };
    let begun = main.iter().any(|s| is_running(s) || last_exit(s).is_some());
    let sandbox = facts.observed.sandboxes.first().is_some_and(|s| s.ready);
    let missing = if begun { vec![] } else { unready(init) };
    let initialized = match phase {
        "Succeeded" => Verdict::yes_because("PodCompleted"),
        _ if missing.is_empty() => Verdict::yes(),
        _ => Verdict::no(
            "ContainersNotInitialized",
            format!("containers with incomplete status: [{}]", missing.join(" ")),
        ),
    };
    let not_ready = unready(main);
    let ready = match phase {
        "Succeeded" => Verdict::no("PodCompleted", String::new()),
        "Failed" => Verdict::no("PodFailed", String::new()),
        _ if not_ready.is_empty() => Verdict::yes(),
        _ => Verdict::no(
            "ContainersNotReady",
            format!("containers with unready status: [{}]", not_ready.join(" ")),
        ),
    };
    let sandboxed = if sandbox { Verdict::yes() } else { Verdict::no("", String::new()) };
    [
        ("PodReadyToStartContainers", sandboxed),
        ("Initialized", initialized),
        ("Ready", ready.clone()),
        ("ContainersReady", ready),
        ("PodScheduled", Verdict::yes()),
    ]
    .map(|(kind, verdict)| verdict.condition(kind, facts))
    .into()
}

#[derive(Clone)]
struct Verdict {
    holds: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn yes() -> Self {
        Self::yes_because("")
    }
    fn yes_because(reason: &'static str) -> Self {
        Self { holds: true, reason, message: String::new() }
    }
    fn no(reason: &'static str, message: String) -> Self {
        Self { holds: false, reason, message }
    }
    fn condition(self, kind: &str, facts: &Facts<'_>) -> PodCondition {
        let status = if self.holds { "True" } else { "False" };
        let before = facts.previous.and_then(|p| p.conditions.iter().flatten().find(|c| c.type_ == kind));
        let unchanged = before.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
        PodCondition {
            type_: kind.into(),
            status: status.into(),
            reason: (!self.reason.is_empty()).then(|| self.reason.into()),
            message: (!self.message.is_empty()).then_some(self.message),
            last_transition_time: Some(unchanged.unwrap_or_else(|| time(facts.now_ns))),
            ..PodCondition::default()
        }
    }
}

#[cfg(test)]
#[path = "status_test.rs"]
mod tests;
