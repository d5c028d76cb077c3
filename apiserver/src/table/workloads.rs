//! Workloads and what scales them.

use corten_schema::time;
use serde_json::Value;

use super::duration;
use super::lists::{containers, labels, selector, selector_or_none};
use super::view::{View, field, shown};

const CONTAINERS: &str = "spec.template.spec.containers";

fn row<const N: usize>(cells: [Value; N], more: impl IntoIterator<Item = Value>) -> Vec<Value> {
    cells.into_iter().chain(more).collect()
}

fn ready(view: &View<'_>) -> Value {
    format!("{}/{}", view.int("status.readyReplicas"), view.int("spec.replicas")).into()
}

pub fn deployment(view: &View<'_>) -> Vec<Value> {
    let updated = view.int("status.updatedReplicas").into();
    let cells = [view.name(), ready(view), updated, view.int("status.availableReplicas").into(), view.age()];
    row(
        cells,
        containers(view.list(CONTAINERS)).into_iter().chain([selector(view.get("spec.selector")).into()]),
    )
}

pub fn stateful_set(view: &View<'_>) -> Vec<Value> {
    row([view.name(), ready(view), view.age()], containers(view.list(CONTAINERS)))
}

fn replicas(view: &View<'_>) -> [Value; 5] {
    let number = |path: &str| Value::from(view.int(path));
    [
        view.name(),
        number("spec.replicas"),
        number("status.replicas"),
        number("status.readyReplicas"),
        view.age(),
    ]
}

pub fn replica_set(view: &View<'_>) -> Vec<Value> {
    let chosen = selector_or_none(view.get("spec.selector")).into();
    row(replicas(view), containers(view.list(CONTAINERS)).into_iter().chain([chosen]))
}

pub fn replication_controller(view: &View<'_>) -> Vec<Value> {
    let chosen = labels(view.map("spec.selector")).into();
    row(replicas(view), containers(view.list(CONTAINERS)).into_iter().chain([chosen]))
}

pub fn daemon_set(view: &View<'_>) -> Vec<Value> {
    let number = |name: &str| Value::from(view.int(&format!("status.{name}")));
    let cells = [
        view.name(),
        number("desiredNumberScheduled"),
        number("currentNumberScheduled"),
        number("numberReady"),
        number("updatedNumberScheduled"),
        number("numberAvailable"),
        labels(view.map("spec.template.spec.nodeSelector")).into(),
        view.age(),
    ];
    let chosen = selector_or_none(view.get("spec.selector")).into();
    row(cells, containers(view.list(CONTAINERS)).into_iter().chain([chosen]))
}

pub fn controller_revision(view: &View<'_>) -> Vec<Value> {
    let owner = view.list("metadata.ownerReferences").iter().find(|owner| owner["controller"] == true);
    let owner = owner.map_or_else(
        || "<none>".to_owned(),
        |owner| {
            let group = field(owner, "apiVersion").split_once('/').map_or("", |(group, _)| group);
            let dot = if group.is_empty() { "" } else { "." };
            format!("{}{dot}{group}/{}", field(owner, "kind").to_lowercase(), field(owner, "name"))
        },
    );
    vec![view.name(), owner.into(), view.int("revision").into(), view.age()]
}

pub fn job(view: &View<'_>) -> Vec<Value> {
    let (succeeded, parallelism) = (view.int("status.succeeded"), view.int("spec.parallelism"));
    let completions = match view.get("spec.completions").and_then(Value::as_i64) {
        Some(completions) => format!("{succeeded}/{completions}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    };
    let took = time::seconds(view.text("status.startTime")).map(|start| {
        duration::human(time::seconds(view.text("status.completionTime")).unwrap_or(view.now) - start)
    });
    // The first of a type counts.
    let is = |ty: &str| {
        let condition =
            view.list("status.conditions").iter().find(|condition| field(condition, "type") == ty);
        condition.is_some_and(|condition| field(condition, "status") == "True")
    };
    let status = if is("Complete") {
        "Complete"
    } else if is("Failed") {
        "Failed"
    } else if view.deleted() {
        "Terminating"
    } else {
        let of = [
            ("Suspended", "Suspended"),
            ("FailureTarget", "FailureTarget"),
            ("SuccessCriteriaMet", "SuccessCriteriaMet"),
        ];
        of.into_iter().find(|(ty, _)| is(ty)).map_or("Running", |(_, shown)| shown)
    };
    let cells = [view.name(), status.into(), completions.into(), took.unwrap_or_default().into(), view.age()];
    let chosen = selector_or_none(view.get("spec.selector")).into();
    row(cells, containers(view.list(CONTAINERS)).into_iter().chain([chosen]))
}

pub fn cron_job(view: &View<'_>) -> Vec<Value> {
    let last = view.get("status.lastScheduleTime").and_then(Value::as_str);
    let suspend = match view.get("spec.suspend") {
        Some(Value::Bool(true)) => "True",
        Some(_) => "False",
        None => "<unset>",
    };
    let cells = [
        view.name(),
        view.text("spec.schedule").into(),
        view.or("spec.timeZone", "<none>").into(),
        suspend.into(),
        view.count("status.active").into(),
        last.map_or_else(|| "<none>".to_owned(), |last| view.since(last)).into(),
        view.age(),
    ];
    let chosen = selector_or_none(view.get("spec.jobTemplate.spec.selector")).into();
    let of_pods = view.list("spec.jobTemplate.spec.template.spec.containers");
    row(cells, containers(of_pods).into_iter().chain([chosen]))
}

pub fn autoscaler(view: &View<'_>) -> Vec<Value> {
    let metrics = metrics(view.list("spec.metrics"), view.list("status.currentMetrics"));
    scaler(view, metrics)
}

/// The first version has one metric in fields of its own.
pub fn autoscaler_v1(view: &View<'_>) -> Vec<Value> {
    let percent = |path: &str| view.get(path).and_then(Value::as_i64).map(|percent| format!("{percent}%"));
    let unknown = || "<unknown>".to_owned();
    let metrics = percent("spec.targetCPUUtilizationPercentage").map_or_else(
        || "<none>".to_owned(),
        |target| {
            format!(
                "cpu: {}/{target}",
                percent("status.currentCPUUtilizationPercentage").unwrap_or_else(unknown)
            )
        },
    );
    scaler(view, metrics)
}

fn scaler(view: &View<'_>, metrics: String) -> Vec<Value> {
    let target =
        format!("{}/{}", view.text("spec.scaleTargetRef.kind"), view.text("spec.scaleTargetRef.name"));
    let least = view.get("spec.minReplicas").map_or_else(|| "<unset>".to_owned(), shown);
    vec![
        view.name(),
        target.into(),
        metrics.into(),
        least.into(),
        view.int("spec.maxReplicas").into(),
        view.int("status.currentReplicas").into(),
        view.age(),
    ]
}

fn metrics(specs: &[Value], statuses: &[Value]) -> String {
    const MOST: usize = 2;
    if specs.is_empty() {
        return "<none>".to_owned();
    }
    let all: Vec<String> = specs
        .iter()
        .enumerate()
        .map(|(at, spec)| metric(spec, statuses.get(at).unwrap_or(&Value::Null)))
        .collect();
    let shown = all[..all.len().min(MOST)].join(", ");
    if all.len() > MOST { format!("{shown} + {} more...", all.len() - MOST) } else { shown }
}

fn metric(spec: &Value, status: &Value) -> String {
    let value = |value: &Value| if value.is_null() { None } else { Some(shown(value)) };
    let unknown = || "<unknown>".to_owned();
    let ty = field(spec, "type");
    let key = match ty {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".to_owned(),
    };
    let (target, current) = (&spec[key]["target"], &status[key]["current"]);
    let average = value(&target["averageValue"]);
    let current_average = || value(&current["averageValue"]).unwrap_or_else(unknown);
    match (ty, average) {
        ("Pods", average) => format!("{}/{}", current_average(), average.unwrap_or_else(|| "0".to_owned())),
        ("External" | "Object", Some(average)) => format!("{}/{average} (avg)", current_average()),
        ("External" | "Object", None) => {
            let now = value(&current["value"]).unwrap_or_else(unknown);
            format!("{now}/{}", value(&target["value"]).unwrap_or_else(|| "<nil>".to_owned()))
        }
        (_, Some(average)) => format!("{}: {}/{average}", field(&spec[key], "name"), current_average()),
        (_, None) => {
            let percent = |of: &Value| of["averageUtilization"].as_i64().map(|percent| format!("{percent}%"));
            let now = percent(current).unwrap_or_else(unknown);
            let target = percent(target).unwrap_or_else(|| "<auto>".to_owned());
            format!("{}: {now}/{target}", field(&spec[key], "name"))
        }
    }
}
