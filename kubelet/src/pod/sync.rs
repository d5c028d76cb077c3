//! What to do next for a pod: a pure function of its spec, what the runtime has, what probes say, and the clock.
//! Decisions are upstream's `computePodActions` (`kuberuntime_manager.go`); it opens nothing and changes nothing.
//!
//! A plan holds only what can be done from what is seen now. After it is done the runtime is looked at again and a
//! new plan made, so that a failed or interrupted action needs no special case: the truth is what the runtime says.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Container as Spec, Pod};

use super::backoff::Backoff;
use super::observed::{Container, Observed, Sandbox, State, UnixNanos};
use super::{all_containers, hash, init_containers, spec};

/// Everything a decision depends on.
pub struct Input<'a> {
    pub pod: &'a Pod,
    pub observed: &'a Observed,
    pub intent: Intent,
    pub backoff: &'a Backoff,
    /// Last failures by container name; [`SANDBOX`] for the pod itself.
    pub failures: &'a HashMap<String, Failure>,
    /// Ids of running containers a probe has given up on.
    pub unhealthy: &'a HashMap<String, Unhealthy>,
    pub now_ns: UnixNanos,
}

/// Key of [`Input::failures`] for what concerns the whole pod: volumes, cgroup, sandbox. No container has this name.
pub const SANDBOX: &str = "";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    Run,
    /// The manifest is gone: stop, then remove all.
    Terminate,
}

/// An action that failed, and when it may be tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Waiting reason of the container status: `ImagePullBackOff`, `CreateContainerError`, ...
    pub reason: &'static str,
    pub message: String,
    pub retry_ns: UnixNanos,
}

/// Which probe gave up on a container, and the grace period it brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unhealthy {
    pub probe: crate::probe::Kind,
    pub grace_seconds: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Stops these containers, all at once, then these sandboxes.
    StopPod {
        containers: Vec<Kill>,
        sandboxes: Vec<String>,
    },
    CreateSandbox {
        attempt: u32,
    },
    Kill(Kill),
    StartContainer {
        name: String,
        attempt: u32,
        sandbox_id: String,
        backoff_since_ns: Option<UnixNanos>,
    },
    RemoveContainer {
        id: String,
        name: String,
    },
    RemoveSandbox {
        id: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    pub id: String,
    pub name: String,
    pub why: Why,
    /// Instead of the pod's.
    pub grace_seconds: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    PodDeleted,
    PodFinished,
    DeadlineExceeded,
    SandboxChanged,
    SpecChanged,
    Unhealthy(crate::probe::Kind),
    Lost,
}

/// Why a container that should run does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub reason: &'static str,
    pub message: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub actions: Vec<Action>,
    /// When to look again although nothing changed.
    pub wake_ns: Option<UnixNanos>,
    /// By container name.
    pub waiting: BTreeMap<String, Waiting>,
    /// Terminating, and nothing of the pod is left in the runtime.
    pub gone: bool,
    pub deadline_exceeded: bool,
}

pub fn plan(input: &Input<'_>) -> Plan {
    match input.intent {
        Intent::Terminate => terminate(input),
        Intent::Run => Run { input, plan: Plan::default() }.decide(),
    }
}

fn terminate(input: &Input<'_>) -> Plan {
    let mut plan = Plan::default();
    if held_back(input, SANDBOX, &mut plan) {
        return plan;
    }
    let ready: Vec<String> =
        input.observed.sandboxes.iter().filter(|s| s.ready).map(|s| s.id.clone()).collect();
    let alive = kills(input, Why::PodDeleted);
    if !ready.is_empty() || !alive.is_empty() {
        plan.actions.push(Action::StopPod { containers: alive, sandboxes: ready });
        return plan;
    }
    plan.actions.extend(input.observed.containers.iter().map(remove_container));
    plan.actions.extend(input.observed.sandboxes.iter().map(|s| Action::RemoveSandbox { id: s.id.clone() }));
    plan.gone = plan.actions.is_empty();
    plan
}

/// Everything that may be alive, in the order of the spec reversed.
fn kills(input: &Input<'_>, why: Why) -> Vec<Kill> {
    let alive = input.observed.containers.iter().filter(|c| c.may_be_alive());
    alive.map(|c| Kill { id: c.id.clone(), name: c.name.clone(), why, grace_seconds: None }).collect()
}

fn remove_container(c: &Container) -> Action {
    Action::RemoveContainer { id: c.id.clone(), name: c.name.clone() }
}

/// Whether `key` failed and may not be tried yet; the plan then wakes when it may.
fn held_back(input: &Input<'_>, key: &str, plan: &mut Plan) -> bool {
    let Some(failure) = input.failures.get(key).filter(|f| f.retry_ns > input.now_ns) else { return false };
    wake(plan, failure.retry_ns);
    true
}

fn wake(plan: &mut Plan, at_ns: UnixNanos) {
    plan.wake_ns = Some(plan.wake_ns.map_or(at_ns, |other| other.min(at_ns)));
}

/// What the containers of a pod need of its sandbox.
enum Need {
    /// Nothing is to be started, and nothing runs: the sandbox has done its work.
    Nothing,
    Sandbox,
}

struct Run<'a> {
    input: &'a Input<'a>,
    plan: Plan,
}

impl Run<'_> {
    fn decide(mut self) -> Plan {
        self.collect_garbage();
        if self.deadline_exceeded() {
            self.plan.deadline_exceeded = true;
            self.stop_all(Why::DeadlineExceeded);
            return self.plan;
        }
        match self.current_sandbox().cloned() {
            Some(sandbox) => self.in_sandbox(&sandbox),
            None => self.without_sandbox(),
        }
        self.plan
    }

    /// The one ready sandbox that is as the spec wants it.
    fn current_sandbox(&self) -> Option<&Sandbox> {
        let mut ready = self.input.observed.sandboxes.iter().filter(|s| s.ready);
        let newest = self.input.observed.sandboxes.first()?;
        let host_network = spec(self.input.pod).host_network == Some(true);
        let one = ready.next().is_some_and(|s| s.id == newest.id) && ready.next().is_none();
        let fits = newest.host_network == host_network && (host_network || !newest.ips.is_empty());
        (one && fits).then_some(newest)
    }

    fn without_sandbox(&mut self) {
        let stale: Vec<String> =
            self.input.observed.sandboxes.iter().filter(|s| s.ready).map(|s| s.id.clone()).collect();
        let alive = kills(self.input, Why::SandboxChanged);
        if !stale.is_empty() || !alive.is_empty() {
            if !held_back(self.input, SANDBOX, &mut self.plan) {
                self.plan.actions.push(Action::StopPod { containers: alive, sandboxes: stale });
            }
            return;
        }
        match self.need_of_a_new_sandbox() {
            Need::Nothing => {}
            Need::Sandbox => {
                let waits = held_back(self.input, SANDBOX, &mut self.plan);
                let why = self.input.failures.get(SANDBOX).filter(|_| waits);
                let message = why.map(|f| f.message.clone()).unwrap_or_default();
                let reason = if init_containers(self.input.pod).is_empty() {
                    "ContainerCreating"
                } else {
                    "PodInitializing"
                };
                for container in all_containers(self.input.pod) {
                    self.plan
                        .waiting
                        .insert(container.name.clone(), Waiting { reason, message: message.clone() });
                }
                if !waits {
                    let attempt = self.input.observed.sandboxes.first().map_or(0, |s| s.attempt + 1);
                    self.plan.actions.push(Action::CreateSandbox { attempt });
                }
            }
        }
    }

    /// A finished pod gets no new sandbox, and one that must not restart only its first.
    fn need_of_a_new_sandbox(&self) -> Need {
        let observed = self.input.observed;
        let started_before = !observed.sandboxes.is_empty() && !observed.containers.is_empty();
        if started_before && self.policy() == "Never" {
            return Need::Nothing;
        }
        let to_start = spec(self.input.pod).containers.iter().any(|c| {
            observed.newest(&c.name).and_then(Container::exit).is_none_or(|exit| self.restarts(exit.code))
        });
        if to_start { Need::Sandbox } else { Need::Nothing }
    }

    fn in_sandbox(&mut self, sandbox: &Sandbox) {
        if let Some(next) = self.next_init(sandbox) {
            return self.init(next, sandbox);
        }
        let mut runs = 0;
        for container in &spec(self.input.pod).containers {
            runs += usize::from(self.container(container, sandbox));
        }
        if runs == 0 {
            self.stop_all(Why::PodFinished);
        }
    }

    /// The init container whose turn it is; `None` when all have succeeded, or when a container of the pod exists
    /// in this sandbox, which proves that they had (their remains may be gone).
    fn next_init(&self, sandbox: &Sandbox) -> Option<usize> {
        let observed = self.input.observed;
        if spec(self.input.pod).containers.iter().any(|c| observed.newest_in(&c.name, &sandbox.id).is_some())
        {
            return None;
        }
        let init = init_containers(self.input.pod);
        let succeeded = |c: &Spec| {
            observed
                .newest_in(&c.name, &sandbox.id)
                .and_then(Container::exit)
                .is_some_and(|exit| exit.code == 0)
        };
        init.iter()
            .rposition(succeeded)
            .map_or(Some(0), |last| Some(last + 1))
            .filter(|next| *next < init.len())
    }

    fn init(&mut self, next: usize, sandbox: &Sandbox) {
        for waiting in
            spec(self.input.pod).containers.iter().chain(&init_containers(self.input.pod)[next + 1..])
        {
            self.wait(&waiting.name, "PodInitializing", String::new());
        }
        let container = &init_containers(self.input.pod)[next];
        match self.input.observed.newest_in(&container.name, &sandbox.id) {
            Some(c) if c.is_running() => {}
            Some(c) if c.state == State::Unknown => self.kill(c, Why::Lost, None),
            Some(c) if c.exit().is_some() && self.policy() == "Never" => {
                // A failed init container fails the pod.
                self.plan.waiting.clear();
                self.stop_all(Why::PodFinished);
            }
            _ => self.start(container, sandbox),
        }
    }

    /// Whether the container runs or will.
    fn container(&mut self, container: &Spec, sandbox: &Sandbox) -> bool {
        let newest = self.input.observed.newest(&container.name);
        match newest {
            Some(c) if c.state == State::Unknown => self.kill(c, Why::Lost, None),
            Some(c) if c.is_running() => self.running(c, container),
            Some(c) if c.exit().is_some_and(|exit| !self.restarts(exit.code)) => return false,
            _ => self.start(container, sandbox),
        }
        true
    }

    fn running(&mut self, c: &Container, container: &Spec) {
        if c.hash.is_some_and(|old| old != hash::of_container(container)) {
            self.kill(c, Why::SpecChanged, None);
        } else if let Some(unhealthy) = self.input.unhealthy.get(&c.id) {
            self.kill(c, Why::Unhealthy(unhealthy.probe), unhealthy.grace_seconds);
        }
    }

    fn start(&mut self, container: &Spec, sandbox: &Sandbox) {
        let name = &container.name;
        if let Some(failure) = self.input.failures.get(name).filter(|f| f.retry_ns > self.input.now_ns) {
            wake(&mut self.plan, failure.retry_ns);
            return self.wait(name, failure.reason, failure.message.clone());
        }
        let newest = self.input.observed.newest(name);
        let failed_ns = newest.and_then(Container::exit).map(|exit| exit.finished_ns);
        let key = backoff_key(container);
        let until = failed_ns.and_then(|since| self.input.backoff.until(&key, since, self.input.now_ns));
        if let Some(until) = until {
            wake(&mut self.plan, until);
            let delay = human(self.input.backoff.delay(&key));
            let pod = format!(
                "{}_{}({})",
                super::name(self.input.pod),
                super::namespace(self.input.pod),
                super::uid(self.input.pod)
            );
            let message = format!("back-off {delay} restarting failed container={name} pod={pod}");
            return self.wait(name, "CrashLoopBackOff", message);
        }
        // One that was created and never started is started anew: what it was made of may be gone.
        if let Some(c) = newest.filter(|c| c.state == State::Created) {
            self.plan.actions.push(remove_container(c));
        }
        self.wait(name, "ContainerCreating", String::new());
        self.plan.actions.push(Action::StartContainer {
            name: name.clone(),
            attempt: newest.map_or(0, |c| c.attempt + u32::from(c.state != State::Created)),
            sandbox_id: sandbox.id.clone(),
            backoff_since_ns: failed_ns,
        });
    }

    fn kill(&mut self, c: &Container, why: Why, grace_seconds: Option<i64>) {
        if held_back(self.input, &c.name, &mut self.plan) {
            return;
        }
        self.plan.actions.push(Action::Kill(Kill {
            id: c.id.clone(),
            name: c.name.clone(),
            why,
            grace_seconds,
        }));
    }

    fn wait(&mut self, name: &str, reason: &'static str, message: String) {
        self.plan.waiting.insert(name.to_owned(), Waiting { reason, message });
    }

    fn stop_all(&mut self, why: Why) {
        let sandboxes: Vec<String> =
            self.input.observed.sandboxes.iter().filter(|s| s.ready).map(|s| s.id.clone()).collect();
        let containers = kills(self.input, why);
        if (!sandboxes.is_empty() || !containers.is_empty())
            && !held_back(self.input, SANDBOX, &mut self.plan)
        {
            self.plan.actions.push(Action::StopPod { containers, sandboxes });
        }
    }

    fn policy(&self) -> &str {
        spec(self.input.pod).restart_policy.as_deref().unwrap_or("Always")
    }

    fn restarts(&self, exit_code: i32) -> bool {
        match self.policy() {
            "Never" => false,
            "OnFailure" => exit_code != 0,
            _ => true,
        }
    }

    fn deadline_exceeded(&mut self) -> bool {
        let seconds = spec(self.input.pod).active_deadline_seconds;
        let (Some(seconds), Some(start)) = (seconds, self.input.observed.first_created_ns()) else {
            return false;
        };
        let deadline = start.saturating_add(seconds.saturating_mul(1_000_000_000));
        if self.input.now_ns < deadline {
            wake(&mut self.plan, deadline);
        }
        self.input.now_ns >= deadline
    }

    /// Of each container one dead instance is kept, for its log and its last state; of the sandboxes the newest and
    /// those with containers that are kept (upstream: container GC, MaxPerPodContainer 1).
    fn collect_garbage(&mut self) {
        let observed = self.input.observed;
        let mut dead: HashMap<&str, usize> = HashMap::new();
        let mut kept = Vec::new();
        for c in &observed.containers {
            if c.exit().is_some() {
                *dead.entry(&c.name).or_default() += 1;
            }
            if c.exit().is_some() && dead[c.name.as_str()] > 1 {
                self.plan.actions.push(remove_container(c));
            } else {
                kept.push(c.sandbox_id.as_str());
            }
        }
        let old = observed.sandboxes.iter().skip(1).filter(|s| !s.ready && !kept.contains(&s.id.as_str()));
        self.plan.actions.extend(old.map(|s| Action::RemoveSandbox { id: s.id.clone() }));
    }
}

/// Back-off belongs to a container with this spec: another image starts anew.
pub fn backoff_key(container: &Spec) -> String {
    format!("{}_{:x}", container.name, hash::of_container(container))
}

/// `1m20s`, as Go prints a duration.
pub fn human(duration: std::time::Duration) -> String {
    match (duration.as_secs() / 60, duration.as_secs() % 60) {
        (0, s) => format!("{s}s"),
        (m, s) => format!("{m}m{s}s"),
    }
}
