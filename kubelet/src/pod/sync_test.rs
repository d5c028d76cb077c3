//! Decisions, one a row: what the runtime has → what is done.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::backoff::Backoff;
use super::observed::{Container, Exit, Observed, Sandbox, State, UnixNanos};
use super::sync::{Action, Failure, Input, Intent, Plan, SANDBOX, Unhealthy, Why, backoff_key, plan};
use super::{hash, spec};
use crate::probe::Kind;

const S: UnixNanos = 1_000_000_000;
const NOW: UnixNanos = 1000 * S;

fn pod(patch: &Value) -> Pod {
    let mut spec = json!({"restartPolicy": "Always", "containers": [{"name": "a", "image": "i:1"}, {"name": "b", "image": "i:1"}]});
    patch.as_object().expect("object").iter().for_each(|(k, v)| spec[k] = v.clone());
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": spec}))
        .expect("pod")
}

fn init() -> Value {
    json!({"initContainers": [{"name": "i1", "image": "i:1"}, {"name": "i2", "image": "i:1"}]})
}

/// `s1` ready sandbox, `s1-` one that is not; `a=run`, `a=exit0`, `a=exit1`, `a=created`, `a=unknown`, `a@s1=...` in a
/// sandbox. Later words are newer. Attempts count up by name.
fn observed(words: &str, pod: &Pod) -> Observed {
    let mut o = Observed::default();
    let mut current = String::new();
    for (i, word) in words.split_whitespace().enumerate() {
        let created_ns = i as i64 * S;
        match word.split_once('=') {
            None => {
                let id = word.trim_end_matches('-').to_owned();
                current.clone_from(&id);
                let attempt = o.sandboxes.len() as u32;
                let ips = if word.ends_with('-') { vec![] } else { vec!["10.0.0.2".into()] };
                o.sandboxes.push(Sandbox {
                    id,
                    attempt,
                    ready: !word.ends_with('-'),
                    created_ns,
                    ips,
                    host_network: false,
                });
            }
            Some((who, state)) => {
                let (name, sandbox) = who.split_once('@').unwrap_or((who, &current));
                let attempt = o.containers.iter().filter(|c| c.name == name).count() as u32;
                let state = match state {
                    "run" => State::Running { started_ns: created_ns },
                    "created" => State::Created,
                    "unknown" => State::Unknown,
                    exit => State::Exited(Exit {
                        code: exit.trim_start_matches("exit").parse().expect("code"),
                        started_ns: created_ns,
                        finished_ns: NOW - 5 * S,
                        ..Exit::default()
                    }),
                };
                o.containers.push(Container {
                    id: format!("{name}{attempt}"),
                    sandbox_id: sandbox.to_owned(),
                    name: name.to_owned(),
                    attempt,
                    hash: super::container(pod, name).map(hash::of_container),
                    created_ns,
                    state,
                    image: String::new(),
                    image_ref: String::new(),
                    message_file: None,
                    log_path: String::new(),
                });
            }
        }
    }
    o.sort();
    o
}

struct Case {
    pod: Pod,
    observed: Observed,
    intent: Intent,
    backoff: Backoff,
    failures: HashMap<String, Failure>,
    unhealthy: HashMap<String, Unhealthy>,
}

impl Case {
    fn new(patch: &Value, words: &str) -> Self {
        let pod = pod(patch);
        let observed = observed(words, &pod);
        Self {
            pod,
            observed,
            intent: Intent::Run,
            backoff: Backoff::default(),
            failures: HashMap::new(),
            unhealthy: HashMap::new(),
        }
    }
    fn plan(&self) -> Plan {
        plan(&Input {
            pod: &self.pod,
            observed: &self.observed,
            intent: self.intent,
            backoff: &self.backoff,
            failures: &self.failures,
            unhealthy: &self.unhealthy,
            now_ns: NOW,
        })
    }
    fn text(&self) -> String {
        show(&self.plan())
    }
}

/// `sandbox0 start:a0 kill:b1(why) stop[a0 b0|s1] rm:a0 rms:s1`
fn show(plan: &Plan) -> String {
    let actions = plan.actions.iter().map(|action| match action {
        Action::CreateSandbox { attempt } => format!("sandbox{attempt}"),
        Action::StartContainer { name, attempt, .. } => format!("start:{name}{attempt}"),
        Action::Kill(kill) => format!("kill:{}({:?})", kill.id, kill.why),
        Action::StopPod { containers, sandboxes } => {
            let ids: Vec<&str> = containers.iter().map(|k| k.id.as_str()).collect();
            format!("stop[{}|{}]", ids.join(" "), sandboxes.join(" "))
        }
        Action::RemoveContainer { id, .. } => format!("rm:{id}"),
        Action::RemoveSandbox { id } => format!("rms:{id}"),
    });
    let mut text = actions.collect::<Vec<_>>().join(" ");
    if plan.gone {
        text.push_str("gone");
    }
    text
}

#[test]
fn running_a_pod() {
    let none = json!({});
    let on_failure = json!({"restartPolicy": "OnFailure"});
    let never = json!({"restartPolicy": "Never"});
    let with = |extra: Value| {
        let mut spec = init();
        extra.as_object().expect("object").iter().for_each(|(k, v)| spec[k] = v.clone());
        spec
    };
    let never_init = with(never.clone());
    for (spec, words, wanted) in [
        // From nothing to running.
        (&none, "", "sandbox0"),
        (&none, "s1", "start:a0 start:b0"),
        (&none, "s1 a=run", "start:b0"),
        (&none, "s1 a=run b=run", ""),
        (&none, "s1 a=created", "rm:a0 start:a0 start:b0"),
        // Exits, by policy.
        (&none, "s1 a=run b=exit0", "start:b1"),
        (&none, "s1 a=run b=exit1", "start:b1"),
        (&on_failure, "s1 a=run b=exit0", ""),
        (&on_failure, "s1 a=run b=exit1", "start:b1"),
        (&never, "s1 a=run b=exit1", ""),
        (&never, "s1 a=run", "start:b0"),
        // Finished pods give up their sandbox and get no new one.
        (&never, "s1 a=exit0 b=exit1", "stop[|s1]"),
        (&on_failure, "s1 a=exit0 b=exit0", "stop[|s1]"),
        (&on_failure, "s1- a=exit0 b=exit0", ""),
        (&never, "s1- a=exit0 b=exit0", ""),
        // A sandbox that died is replaced, and its containers with it.
        (&none, "s1- a=exit0 b=exit0", "sandbox1"),
        (&none, "s1- a=run b=exit0", "stop[a0|]"),
        (&on_failure, "s1- a=exit0 b=exit1", "sandbox1"),
        (&never, "s1- a=exit1", ""),
        (&never, "s1-", "sandbox1"),
        (&none, "s1- a=exit137 b=exit137 s2", "start:a1 start:b1"),
        (&on_failure, "s1- a=exit0 b=exit1 s2", "start:b1"),
        // Two ready sandboxes: which is right is not known, so neither is.
        (&none, "s1 s2", "stop[|s2 s1]"),
        // What the runtime lost is stopped before it starts anew.
        (&none, "s1 a=unknown b=run", "kill:a0(Lost)"),
        // Init containers, one after the other.
        (&init(), "s1", "start:i10"),
        (&init(), "s1 i1=run", ""),
        (&init(), "s1 i1=exit0", "start:i20"),
        (&init(), "s1 i1=exit0 i2=run", ""),
        (&init(), "s1 i1=exit0 i2=exit0", "start:a0 start:b0"),
        (&init(), "s1 i1=exit1", "start:i11"),
        (&init(), "s1 i1=exit0 i2=exit2", "start:i21"),
        (&never_init, "s1 i1=exit1", "stop[|s1]"),
        (&never_init, "s1- i1=exit1", ""),
        // A main container proves that they are done, though nothing else remembers it.
        (&init(), "s1 a=run b=run", ""),
        (&init(), "s1 a=exit1 b=run", "start:a1"),
        // In a new sandbox they run again.
        (&init(), "s1- i1=exit0 i2=exit0 a=exit1 b=exit1 s2", "start:i11"),
        // One dead instance of each is kept.
        (&none, "s1 a=exit1 a=exit1 a=run b=run", "rm:a0"),
        (&none, "s1- a=exit1 b=exit1 s2- a=exit1 b=exit1 s3 a=run b=run", "rm:b0 rm:a0 rms:s1"),
    ] {
        assert_eq!(Case::new(spec, words).text(), wanted, "{spec} {words}");
    }
}

#[test]
fn terminating_a_pod() {
    for (words, wanted) in [
        ("", "gone"),
        ("s1 a=run b=exit0", "stop[a0|s1]"),
        ("s1 a=run b=unknown", "stop[b0 a0|s1]"),
        ("s1 a=exit0", "stop[|s1]"),
        ("s1- a=exit0 b=created", "rm:b0 rm:a0 rms:s1"),
        ("s1-", "rms:s1"),
        ("s1 s2 a@s1=run", "stop[a0|s2 s1]"),
    ] {
        let case = Case { intent: Intent::Terminate, ..Case::new(&json!({}), words) };
        assert_eq!(case.text(), wanted, "{words}");
    }
}

#[test]
fn a_failed_stop_is_tried_again_later() {
    let mut case = Case { intent: Intent::Terminate, ..Case::new(&json!({}), "s1 a=run") };
    let failure = |retry_ns| Failure { reason: "KillPodSandboxError", message: "no".into(), retry_ns };
    case.failures.insert(SANDBOX.into(), failure(NOW + S));
    assert_eq!((case.text().as_str(), case.plan().wake_ns), ("", Some(NOW + S)));
    case.failures.insert(SANDBOX.into(), failure(NOW));
    assert_eq!(case.text(), "stop[a0|s1]");
}

#[test]
fn crash_loops_wait_longer_and_say_so() {
    let mut case = Case::new(&json!({}), "s1 a=run b=exit1 b=exit1");
    let key = backoff_key(&spec(&case.pod).containers[1]);
    case.backoff.advance(&key, NOW - 20 * S, NOW - 20 * S);
    let plan = case.plan();
    assert_eq!(show(&plan), "rm:b0");
    assert_eq!(plan.wake_ns, Some(NOW + 5 * S), "ten seconds after the exit five seconds ago");
    let waiting = &plan.waiting["b"];
    assert_eq!(waiting.reason, "CrashLoopBackOff");
    assert_eq!(waiting.message, "back-off 10s restarting failed container=b pod=p_ns(u)");
}

#[test]
fn failed_starts_wait_for_their_retry() {
    let mut case = Case::new(&json!({}), "s1 a=run");
    let failure =
        Failure { reason: "ImagePullBackOff", message: "registry down".into(), retry_ns: NOW + 7 * S };
    case.failures.insert("b".into(), failure);
    let plan = case.plan();
    assert_eq!((show(&plan).as_str(), plan.wake_ns), ("", Some(NOW + 7 * S)));
    assert_eq!(plan.waiting["b"].reason, "ImagePullBackOff");
}

#[test]
fn a_failed_sandbox_waits_and_all_containers_say_why() {
    let mut case = Case::new(&json!({}), "");
    let failure =
        Failure { reason: "FailedCreatePodSandBox", message: "cni says no".into(), retry_ns: NOW + S };
    case.failures.insert(SANDBOX.into(), failure);
    let plan = case.plan();
    assert_eq!((show(&plan).as_str(), plan.wake_ns), ("", Some(NOW + S)));
    assert_eq!(plan.waiting["a"].message, "cni says no");
}

#[test]
fn probes_that_gave_up_restart_the_container() {
    let mut case = Case::new(&json!({}), "s1 a=run b=run");
    let unhealthy = Unhealthy { probe: Kind::Liveness, grace_seconds: Some(3) };
    case.unhealthy.insert("b0".into(), unhealthy);
    let plan = case.plan();
    assert_eq!(show(&plan), "kill:b0(Unhealthy(Liveness))");
    assert!(matches!(&plan.actions[0], Action::Kill(kill) if kill.grace_seconds == Some(3)));
}

#[test]
fn another_spec_restarts_the_container() {
    let mut case = Case::new(&json!({}), "s1 a=run b=run");
    case.observed.containers[0].hash = Some(1);
    assert_eq!(case.text(), format!("kill:{}({:?})", case.observed.containers[0].id, Why::SpecChanged));
    case.observed.containers[0].hash = None;
    assert_eq!(case.text(), "", "a container without a hash is not judged");
}

#[test]
fn a_sandbox_that_does_not_fit_is_replaced() {
    let mut case = Case::new(&json!({}), "s1 a=run");
    case.observed.sandboxes[0].ips.clear();
    assert_eq!(case.text(), "stop[a0|s1]", "no address");
    let mut case = Case::new(&json!({"hostNetwork": true}), "s1 a=run");
    assert_eq!(case.text(), "stop[a0|s1]", "own network, but the host's is wanted");
    case.observed.sandboxes[0].host_network = true;
    case.observed.sandboxes[0].ips.clear();
    assert_eq!(case.text(), "start:b0");
}

#[test]
fn the_deadline_ends_a_pod() {
    let case = Case::new(&json!({"activeDeadlineSeconds": 10}), "s1 a=run b=exit1");
    let plan = case.plan();
    assert!(plan.deadline_exceeded);
    assert_eq!(show(&plan), "stop[a0|s1]");
    let case = Case::new(&json!({"activeDeadlineSeconds": 10}), "s1- a=exit137 b=exit1");
    assert_eq!((case.text().as_str(), case.plan().deadline_exceeded), ("", true));
    let case = Case::new(&json!({"activeDeadlineSeconds": 1001}), "s1 a=run b=run");
    let plan = case.plan();
    assert_eq!((plan.deadline_exceeded, plan.wake_ns), (false, Some(1001 * S)));
}

#[test]
fn waiting_containers_say_for_what() {
    let plan = Case::new(&init(), "s1 i1=run").plan();
    let reasons: Vec<_> = plan.waiting.iter().map(|(name, w)| format!("{name}={}", w.reason)).collect();
    assert_eq!(reasons, ["a=PodInitializing", "b=PodInitializing", "i2=PodInitializing"]);
    let plan = Case::new(&json!({}), "s1").plan();
    assert_eq!(plan.waiting["a"].reason, "ContainerCreating");
}
