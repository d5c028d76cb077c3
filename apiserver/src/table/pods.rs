//! Pods: what their containers' states add up to.

use serde_json::{Value, json};

use super::view::{View, field};

/// A pod that has ended says so.
pub fn conditions(view: &View<'_>) -> Option<Value> {
    let message = match view.text("status.phase") {
        "Succeeded" => "The pod has completed successfully.",
        "Failed" => "The pod failed.",
        _ => return None,
    };
    let reason = view.text("status.phase");
    Some(json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]))
}

pub fn cells(view: &View<'_>) -> Vec<Value> {
    let mut count = Count::of(view);
    if view.deleted() {
        let ended = matches!(view.text("status.phase"), "Succeeded" | "Failed");
        if view.text("status.reason") == "NodeLost" {
            "Unknown".clone_into(&mut count.reason);
        } else if !ended {
            "Terminating".clone_into(&mut count.reason);
        }
    }
    let restarts = match count.last_restart {
        Some(last) if count.restarts != 0 => format!("{} ({} ago)", count.restarts, view.since(last)),
        _ => count.restarts.to_string(),
    };
    let ip = view.list("status.podIPs").first().map(|ip| field(ip, "ip")).filter(|ip| !ip.is_empty());
    vec![
        view.name(),
        format!("{}/{}", count.ready, count.total).into(),
        count.reason.into(),
        restarts.into(),
        view.age(),
        ip.unwrap_or("<none>").into(),
        view.or("spec.nodeName", "<none>").into(),
        view.or("status.nominatedNodeName", "<none>").into(),
        readiness_gates(view).into(),
    ]
}

struct Count<'a> {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i64,
    /// RFC 3339 in UTC: the later one sorts behind.
    last_restart: Option<&'a str>,
}

fn restarted(status: &Value) -> Option<&str> {
    status["lastState"]["terminated"]["finishedAt"].as_str()
}

impl<'a> Count<'a> {
    fn of(view: &View<'a>) -> Self {
        let statuses = |name: &str| view.list(&format!("status.{name}"));
        let init = view.list("spec.initContainers");
        let sidecar = |name: &str| {
            init.iter().any(|container| {
                field(container, "name") == name && field(container, "restartPolicy") == "Always"
            })
        };
        let sidecars = init.iter().filter(|container| field(container, "restartPolicy") == "Always").count();
        let mut reason = view.or("status.reason", view.text("status.phase")).to_owned();
        let conditions = view.list("status.conditions");
        let gated = |condition: &Value| {
            field(condition, "type") == "PodScheduled" && field(condition, "reason") == "SchedulingGated"
        };
        if conditions.iter().any(gated) {
            "SchedulingGated".clone_into(&mut reason);
        }
        let total = view.list("spec.containers").len() + sidecars;
        let mut count = Self { ready: 0, total, reason, restarts: 0, last_restart: None };
        let (mut sidecar_restarts, mut sidecar_restart) = (0, None);
        let mut initializing = false;
        for (at, status) in statuses("initContainerStatuses").iter().enumerate() {
            let restarts = status["restartCount"].as_i64().unwrap_or_default();
            count.restarts += restarts;
            count.last_restart = count.last_restart.max(restarted(status));
            let sidecar = sidecar(field(status, "name"));
            if sidecar {
                sidecar_restarts += restarts;
                sidecar_restart = sidecar_restart.max(restarted(status));
            }
            let (terminated, waiting) = (&status["state"]["terminated"], &status["state"]["waiting"]);
            if terminated.is_object() && terminated["exitCode"].as_i64().unwrap_or_default() == 0 {
                continue;
            }
            if sidecar && status["started"] == true {
                count.ready += usize::from(status["ready"] == true);
                continue;
            }
            let waits = field(waiting, "reason");
            count.reason = if terminated.is_object() {
                format!("Init:{}", ended(terminated))
            } else if !waits.is_empty() && waits != "PodInitializing" {
                format!("Init:{waits}")
            } else {
                format!("Init:{at}/{}", init.len())
            };
            initializing = true;
            break;
        }
        if !initializing || is_true(conditions, "Initialized") {
            count.restarts = sidecar_restarts;
            count.last_restart = sidecar_restart;
            count.containers(statuses("containerStatuses"), conditions);
        }
        count
    }

    fn containers(&mut self, statuses: &'a [Value], conditions: &[Value]) {
        let (mut running, mut failed) = (false, None);
        for status in statuses.iter().rev() {
            self.restarts += status["restartCount"].as_i64().unwrap_or_default();
            self.last_restart = self.last_restart.max(restarted(status));
            let (terminated, waiting) = (&status["state"]["terminated"], &status["state"]["waiting"]);
            let waits = field(waiting, "reason");
            if !waits.is_empty() {
                waits.clone_into(&mut self.reason);
            } else if terminated.is_object() {
                self.reason = ended(terminated);
                if terminated["exitCode"].as_i64().unwrap_or_default() != 0 {
                    failed = Some(self.reason.clone());
                }
            } else if status["ready"] == true && status["state"]["running"].is_object() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" {
            if running && is_true(conditions, "Ready") {
                "Running".clone_into(&mut self.reason);
            } else if let Some(failed) = failed {
                self.reason = failed;
            } else if running {
                "NotReady".clone_into(&mut self.reason);
            }
        }
    }
}

fn ended(terminated: &Value) -> String {
    let number = |name: &str| terminated[name].as_i64().unwrap_or_default();
    match (field(terminated, "reason"), number("signal")) {
        ("", 0) => format!("ExitCode:{}", number("exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn is_true(conditions: &[Value], ty: &str) -> bool {
    conditions.iter().any(|condition| field(condition, "type") == ty && field(condition, "status") == "True")
}

fn readiness_gates(view: &View<'_>) -> String {
    let gates = view.list("spec.readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let conditions = view.list("status.conditions");
    let open = gates.iter().filter(|gate| is_true(conditions, field(gate, "conditionType"))).count();
    format!("{open}/{}", gates.len())
}
