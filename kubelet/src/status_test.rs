//! Statuses, one a row.

use super::*;
use serde_json::{Value, json};

use crate::pod::observed::Sandbox;

const S: UnixNanos = 1_000_000_000;

/// A pod of `a` and `b` (and init `i`), with the state of each: `a=run`, `a=ready`, `a=exit1`, `a=wait`.
struct Case {
    pod: Pod,
    observed: Observed,
    waiting: BTreeMap<String, Waiting>,
    health: HashMap<String, Health>,
}

fn case(policy: &str, words: &str) -> Case {
    let has_init = words.contains("i=");
    let init = if has_init { json!([{"name": "i"}]) } else { json!([]) };
    let spec: Value = json!({"restartPolicy": policy, "initContainers": init, "containers": [{"name": "a"}, {"name": "b"}]});
    let mut case = Case {
        pod: serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).expect("pod"),
        observed: Observed::default(),
        waiting: BTreeMap::new(),
        health: HashMap::new(),
    };
    case.observed.sandboxes.push(Sandbox {
        id: "s".into(),
        attempt: 0,
        ready: true,
        created_ns: 5 * S,
        ips: vec!["10.0.0.2".into()],
        host_network: false,
    });
    for (i, word) in words.split_whitespace().enumerate() {
        let (name, state) = word.split_once('=').expect("word");
        let attempt = case.observed.containers.iter().filter(|c| c.name == name).count() as u32;
        let id = format!("{name}{attempt}");
        let state = match state {
            "wait" => {
                let waiting = Waiting { reason: "CrashLoopBackOff", message: "back-off".into() };
                case.waiting.insert(name.into(), waiting);
                continue;
            }
            "run" | "ready" => {
                case.health.insert(id.clone(), Health { started: true, ready: state == "ready" });
                State::Running { started_ns: 6 * S }
            }
            exit => State::Exited(Exit { code: exit[4..].parse().expect("code"), ..Exit::default() }),
        };
        case.observed.containers.push(Container {
            id,
            sandbox_id: "s".into(),
            name: name.into(),
            attempt,
            hash: None,
            created_ns: i as i64,
            state,
            image: String::new(),
            image_ref: "sha256:1".into(),
            message_file: None,
            log_path: String::new(),
        });
    }
    case.observed.sort();
    case
}

impl Case {
    fn status(&self, previous: Option<&PodStatus>, now_ns: UnixNanos) -> PodStatus {
        of_pod(&Facts {
            pod: &self.pod,
            observed: &self.observed,
            waiting: &self.waiting,
            health: &self.health,
            messages: &HashMap::from([("a0".into(), "last words".into())]),
            deadline_exceeded: false,
            terminating: false,
            host_ip: "192.0.2.1",
            first_seen_ns: S,
            now_ns,
            previous,
        })
    }
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> &'a PodCondition {
    status.conditions.iter().flatten().find(|c| c.type_ == kind).expect("condition")
}

#[test]
fn phases() {
    for (policy, words, phase, ready) in [
        ("Always", "", "Pending", "False"),
        ("Always", "a=ready", "Pending", "False"),
        ("Always", "a=ready b=ready", "Running", "True"),
        ("Always", "a=ready b=run", "Running", "False"),
        ("Always", "a=ready b=exit1 b=wait", "Running", "False"),
        ("Always", "a=exit0 b=exit0", "Running", "False"),
        ("Always", "b=wait a=ready", "Pending", "False"),
        ("OnFailure", "a=exit0 b=exit0", "Succeeded", "False"),
        ("OnFailure", "a=exit0 b=exit1", "Running", "False"),
        ("Never", "a=exit0 b=exit0", "Succeeded", "False"),
        ("Never", "a=exit0 b=exit1", "Failed", "False"),
        ("Never", "a=run b=exit1", "Running", "False"),
        ("Always", "i=ready", "Pending", "False"),
        ("Always", "i=exit1", "Pending", "False"),
        ("Never", "i=exit1", "Failed", "False"),
        ("Always", "i=exit0", "Pending", "False"),
        ("Always", "i=exit0 a=ready b=ready", "Running", "True"),
    ] {
        let status = case(policy, words).status(None, 9 * S);
        assert_eq!(status.phase.as_deref(), Some(phase), "{policy} {words}");
        assert_eq!(condition(&status, "Ready").status, ready, "{policy} {words}");
    }
}

#[test]
fn a_restarting_container_shows_both_states() {
    let status = case("Always", "a=exit3 a=exit4 a=wait b=ready").status(None, 9 * S);
    let a = &status.container_statuses.as_ref().expect("containers")[0];
    assert_eq!(a.restart_count, 1);
    let waiting = a.state.as_ref().and_then(|s| s.waiting.as_ref()).expect("waiting");
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    let last = a.last_state.as_ref().and_then(|s| s.terminated.as_ref()).expect("terminated");
    assert_eq!((last.exit_code, last.reason.as_deref()), (4, Some("Error")));
    assert_eq!(
        condition(&status, "ContainersReady").message.as_deref(),
        Some("containers with unready status: [a]")
    );
}

#[test]
fn an_exit_has_its_message_and_reason() {
    let status = case("Never", "a=exit0 b=ready").status(None, 9 * S);
    let a = &status.container_statuses.as_ref().expect("containers")[0];
    let terminated = a.state.as_ref().and_then(|s| s.terminated.as_ref()).expect("terminated");
    assert_eq!(terminated.message.as_deref(), Some("last words"));
    assert_eq!(terminated.reason.as_deref(), Some("Completed"));
    assert_eq!(terminated.container_id.as_deref(), Some("cri://a0"));
}

#[test]
fn conditions_remember_when_they_changed() {
    let first = case("Always", "a=ready b=run").status(None, 10 * S);
    let same = case("Always", "a=ready b=run").status(Some(&first), 20 * S);
    assert_eq!(condition(&same, "Ready").last_transition_time, Some(time(10 * S)));
    let ready = case("Always", "a=ready b=ready").status(Some(&same), 30 * S);
    assert_eq!(condition(&ready, "Ready").last_transition_time, Some(time(30 * S)));
    assert_eq!(condition(&ready, "PodScheduled").last_transition_time, Some(time(10 * S)));
}

#[test]
fn addresses_and_start_come_from_the_runtime() {
    let status = case("Always", "a=ready b=ready").status(None, 9 * S);
    assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.2"));
    assert_eq!(status.host_ip.as_deref(), Some("192.0.2.1"));
    assert_eq!(status.start_time, Some(time(5 * S)));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
}
