//! Probes of a pod's containers. One task per running container: the startup probe first, then readiness and liveness
//! side by side, each in its period, until the container is gone. The decision when a streak of answers becomes a
//! verdict is [`Streak`], pure; what asks is one file per kind of handler.

mod exec;
pub mod http;
mod tcp;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use crate::clock::now_ns;
use crate::cri::Cri;
use crate::pod::observed::{Observed, State, UnixNanos};
use crate::pod::sync::Unhealthy;
use crate::pod::{container, spec};
use crate::recorder::Recorder;
use crate::status::Health;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Startup,
    Readiness,
    Liveness,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

/// One answer of a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Success,
    Failure(String),
    /// The question could not be asked (the runtime did not answer): counts as neither.
    Unknown(String),
}

/// Counts equal answers until there are enough to believe them.
#[derive(Debug, Clone, Copy)]
pub struct Streak {
    success_threshold: u32,
    failure_threshold: u32,
    last: Option<bool>,
    run: u32,
}

impl Streak {
    pub fn new(probe: &Probe) -> Self {
        let at_least_one = |n: Option<i32>, default| u32::try_from(n.unwrap_or(default)).unwrap_or(1).max(1);
        Self {
            success_threshold: at_least_one(probe.success_threshold, 1),
            failure_threshold: at_least_one(probe.failure_threshold, 3),
            last: None,
            run: 0,
        }
    }

    /// The verdict after this answer, or `None`: not enough of them in a row.
    pub fn add(&mut self, success: bool) -> Option<bool> {
        self.run = if self.last == Some(success) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(success);
        let threshold = if success { self.success_threshold } else { self.failure_threshold };
        (self.run >= threshold).then_some(success)
    }
}

/// Verdicts of one container. What has no probe counts as well.
#[derive(Debug, Clone, Copy)]
struct Verdicts {
    started: bool,
    ready: bool,
    gave_up: Option<(Kind, Option<i64>)>,
}

type Book = Arc<Mutex<HashMap<String, Verdicts>>>;

/// Everything a probe needs to ask.
#[derive(Clone)]
struct Asker {
    cri: Cri,
    recorder: Recorder,
    pod: Arc<Pod>,
    container: Container,
    container_id: String,
    pod_ip: String,
    started_ns: UnixNanos,
    book: Book,
    /// Wakes the pod's worker.
    changed: Arc<Notify>,
}

/// The probes of one pod. Dropping it ends them.
pub struct Prober {
    pod: Arc<Pod>,
    cri: Cri,
    recorder: Recorder,
    host_ip: String,
    changed: Arc<Notify>,
    book: Book,
    tasks: HashMap<String, tokio::task::JoinHandle<()>>,
}

impl Prober {
    pub fn new(pod: Arc<Pod>, cri: Cri, recorder: Recorder, host_ip: String, changed: Arc<Notify>) -> Self {
        Self { pod, cri, recorder, host_ip, changed, book: Book::default(), tasks: HashMap::new() }
    }

    /// Starts the probes of containers that began to run, ends those of containers that do not any more.
    pub fn follow(&mut self, observed: &Observed) {
        let running: Vec<_> = observed.containers.iter().filter(|c| c.is_running()).collect();
        let lives = |id: &String| running.iter().any(|c| c.id == *id);
        self.tasks.retain(|id, task| {
            if !lives(id) {
                task.abort();
            }
            lives(id)
        });
        lock(&self.book).retain(|id, _| lives(id));
        let is_main = |name: &str| spec(&self.pod).containers.iter().any(|c| c.name == name);
        for c in running.into_iter().filter(|c| is_main(&c.name)) {
            if self.tasks.contains_key(&c.id) {
                continue;
            }
            let (Some(spec), State::Running { started_ns }) = (container(&self.pod, &c.name), &c.state)
            else {
                continue;
            };
            lock(&self.book).insert(
                c.id.clone(),
                Verdicts {
                    started: spec.startup_probe.is_none(),
                    ready: spec.readiness_probe.is_none(),
                    gave_up: None,
                },
            );
            let ip = observed.sandboxes.first().and_then(|s| s.ips.first()).unwrap_or(&self.host_ip);
            let asker = Asker {
                cri: self.cri.clone(),
                recorder: self.recorder.clone(),
                pod: self.pod.clone(),
                container: spec.clone(),
                container_id: c.id.clone(),
                pod_ip: ip.clone(),
                started_ns: *started_ns,
                book: self.book.clone(),
                changed: self.changed.clone(),
            };
            self.tasks.insert(c.id.clone(), tokio::spawn(asker.run()));
        }
    }

    /// What probes say of each running container, by id.
    pub fn health(&self) -> HashMap<String, Health> {
        let of = |v: &Verdicts| Health { started: v.started, ready: v.started && v.ready };
        lock(&self.book).iter().map(|(id, v)| (id.clone(), of(v))).collect()
    }

    /// Containers that must be restarted, by id.
    pub fn unhealthy(&self) -> HashMap<String, Unhealthy> {
        let of = |v: &Verdicts| v.gave_up.map(|(probe, grace_seconds)| Unhealthy { probe, grace_seconds });
        lock(&self.book).iter().filter_map(|(id, v)| Some((id.clone(), of(v)?))).collect()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.tasks.values().for_each(tokio::task::JoinHandle::abort);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Asker {
    async fn run(self) {
        if let Some(probe) = self.container.startup_probe.clone() {
            self.repeat(Kind::Startup, &probe).await;
            if !lock(&self.book).get(&self.container_id).is_some_and(|v| v.started) {
                return;
            }
        }
        let readiness = self.container.readiness_probe.clone();
        let liveness = self.container.liveness_probe.clone();
        tokio::join!(
            async {
                if let Some(probe) = readiness {
                    self.repeat(Kind::Readiness, &probe).await;
                }
            },
            async {
                if let Some(probe) = liveness {
                    self.repeat(Kind::Liveness, &probe).await;
                }
            },
        );
    }

    /// Asks every period until the probe has done its work: startup until it succeeds or gives up, liveness until it
    /// gives up, readiness for ever.
    async fn repeat(&self, kind: Kind, probe: &Probe) {
        let seconds = |n: Option<i32>| Duration::from_secs(u64::try_from(n.unwrap_or(0)).unwrap_or(0));
        let period = seconds(probe.period_seconds).max(Duration::from_secs(1));
        let timeout = seconds(probe.timeout_seconds).max(Duration::from_secs(1));
        self.first_delay(seconds(probe.initial_delay_seconds), period).await;
        let mut streak = Streak::new(probe);
        let mut next = Instant::now();
        loop {
            sleep_until(next).await;
            next += period;
            let answer = self.ask(probe, timeout).await;
            let success = match answer {
                Answer::Success => true,
                Answer::Failure(why) => {
                    let message = format!("{} probe failed: {why}", kind.name());
                    self.recorder.warning(&self.pod, Some(&self.container.name), "Unhealthy", message);
                    false
                }
                Answer::Unknown(why) => {
                    let message = format!("{} probe errored: {why}", kind.name());
                    self.recorder.warning(&self.pod, Some(&self.container.name), "Unhealthy", message);
                    continue;
                }
            };
            if let Some(verdict) = streak.add(success)
                && self.record(kind, verdict, probe.termination_grace_period_seconds)
            {
                return;
            }
            next = next.max(Instant::now());
        }
    }

    /// The initial delay counts from the start of the container. A container that runs longer than a period was
    /// found by a kubelet that just started: its probes are spread over the period, not all asked at once.
    async fn first_delay(&self, initial: Duration, period: Duration) {
        let age = Duration::from_nanos(u64::try_from(now_ns() - self.started_ns).unwrap_or(0));
        sleep(initial.saturating_sub(age)).await;
        if age > initial + period {
            sleep(period.mul_f64(random_fraction())).await;
        }
    }

    async fn ask(&self, probe: &Probe, timeout: Duration) -> Answer {
        if let Some(exec) = &probe.exec {
            exec::ask(&self.cri, &self.container_id, exec, timeout).await
        } else if let Some(get) = &probe.http_get {
            http::ask(get, &self.container, &self.pod_ip, timeout).await
        } else if let Some(socket) = &probe.tcp_socket {
            tcp::ask(socket, &self.container, &self.pod_ip, timeout).await
        } else {
            Answer::Success
        }
    }

    /// Notes a verdict; true when the probe is done.
    fn record(&self, kind: Kind, success: bool, grace_seconds: Option<i64>) -> bool {
        let mut book = lock(&self.book);
        let Some(verdicts) = book.get_mut(&self.container_id) else { return true };
        let changed = match kind {
            Kind::Readiness => std::mem::replace(&mut verdicts.ready, success) != success,
            Kind::Startup if success => !std::mem::replace(&mut verdicts.started, true),
            Kind::Liveness if success => false,
            Kind::Startup | Kind::Liveness => verdicts.gave_up.replace((kind, grace_seconds)).is_none(),
        };
        if changed {
            self.changed.notify_one();
        }
        match kind {
            Kind::Readiness => false,
            Kind::Startup => true,
            Kind::Liveness => !success,
        }
    }
}

/// A number in [0, 1): std's hasher keys are random, and no more is needed to spread probes.
fn random_fraction() -> f64 {
    use std::hash::BuildHasher;
    let hash = std::hash::RandomState::new().hash_one(0_u8);
    f64::from((hash >> 32) as u32) / (f64::from(u32::MAX) + 1.0)
}

/// The number of a port given by number or by name.
pub fn port(port: &IntOrString, container: &Container) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name))?.container_port
        }
    };
    u16::try_from(number).ok()
}

/// `host:port`, with an IPv6 address in brackets.
pub fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(success: i32, failure: i32, answers: &str) -> String {
        let probe =
            Probe { success_threshold: Some(success), failure_threshold: Some(failure), ..Probe::default() };
        let mut streak = Streak::new(&probe);
        let show = |v| match v {
            Some(true) => 'S',
            Some(false) => 'F',
            None => '.',
        };
        answers.chars().map(|a| show(streak.add(a == '+'))).collect()
    }

    #[test]
    fn a_verdict_needs_a_streak() {
        assert_eq!(verdicts(1, 3, "+--+---+"), "S..S..FS");
        assert_eq!(verdicts(2, 1, "-+-++"), "F.F.S");
        assert_eq!(verdicts(0, 0, "+-"), "SF", "zero is one");
    }

    #[test]
    fn ports_by_name_and_hosts_by_family() {
        use k8s_openapi::api::core::v1::ContainerPort;
        let web = ContainerPort { name: Some("web".into()), container_port: 80, ..ContainerPort::default() };
        let container = Container { ports: Some(vec![web]), ..Container::default() };
        assert_eq!(port(&IntOrString::String("web".into()), &container), Some(80));
        assert_eq!(port(&IntOrString::String("x".into()), &container), None);
        assert_eq!(port(&IntOrString::Int(70000), &container), None);
        assert_eq!(authority("fd::2", 80), "[fd::2]:80");
    }
}
