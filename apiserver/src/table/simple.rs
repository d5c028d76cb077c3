//! Kinds whose cells are fields: where each lies and how it is written.

use serde_json::Value;

use super::lists;
use super::view::{View, shown};

enum Cell {
    Name,
    Age,
    /// Text; the second where it is absent or empty.
    Text(&'static str, &'static str),
    Number(&'static str),
    Flag(&'static str),
    /// How many items or entries there are.
    Count(&'static [&'static str]),
    /// Number or text, as it is; `<unset>`'s kin where it is absent.
    Any(&'static str, &'static str),
    Joined(&'static str),
    Labels(&'static str),
    Selector(&'static str),
    Containers(&'static str),
}

use Cell::{Age, Any, Containers, Count, Flag, Joined, Labels, Name, Number, Selector, Text};

/// What is not here has upstream's cells of kinds without a printer.
fn of(group: &str, kind: &str) -> Option<&'static [Cell]> {
    Some(match (group, kind) {
        ("", "ConfigMap") => &[Name, Count(&["data", "binaryData"]), Age],
        ("", "Namespace") => &[Name, Text("status.phase", ""), Age],
        ("", "PodTemplate") => {
            &[Name, Containers("template.spec.containers"), Labels("template.metadata.labels")]
        }
        ("", "Secret") => &[Name, Text("type", ""), Count(&["data"]), Age],
        ("", "ServiceAccount") | ("resource.k8s.io", "DeviceClass" | "ResourceClaimTemplate") => &[Name, Age],
        (
            "admissionregistration.k8s.io",
            "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration",
        ) => &[Name, Count(&["webhooks"]), Age],
        ("coordination.k8s.io", "Lease") => &[Name, Text("spec.holderIdentity", ""), Age],
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => &[
            Name,
            Text("spec.type", ""),
            Any("spec.limited.nominalConcurrencyShares", "<none>"),
            Any("spec.limited.limitResponse.queuing.queues", "<none>"),
            Any("spec.limited.limitResponse.queuing.handSize", "<none>"),
            Any("spec.limited.limitResponse.queuing.queueLengthLimit", "<none>"),
            Age,
        ],
        ("networking.k8s.io", "NetworkPolicy") => &[Name, Selector("spec.podSelector"), Age],
        ("networking.k8s.io", "ServiceCIDR") => &[Name, Joined("spec.cidrs"), Age],
        ("node.k8s.io", "RuntimeClass") => &[Name, Text("handler", ""), Age],
        ("policy", "PodDisruptionBudget") => &[
            Name,
            Text("spec.minAvailable", "N/A"),
            Text("spec.maxUnavailable", "N/A"),
            Number("status.disruptionsAllowed"),
            Age,
        ],
        ("resource.k8s.io", "ResourceSlice") => {
            &[Name, Text("spec.nodeName", ""), Text("spec.driver", ""), Text("spec.pool.name", ""), Age]
        }
        ("scheduling.k8s.io", "PriorityClass") => {
            &[Name, Number("value"), Flag("globalDefault"), Age, Text("preemptionPolicy", "")]
        }
        ("storage.k8s.io", "CSINode") => &[Name, Count(&["spec.drivers"]), Age],
        ("storage.k8s.io", "VolumeAttachment") => &[
            Name,
            Text("spec.attacher", ""),
            Text("spec.source.persistentVolumeName", ""),
            Text("spec.nodeName", ""),
            Flag("status.attached"),
            Age,
        ],
        ("storage.k8s.io", "VolumeAttributesClass") => &[Name, Text("driverName", ""), Age],
        _ => return None,
    })
}

pub fn cells(group: &str, kind: &str, view: &View<'_>) -> Vec<Value> {
    let Some(cells) = of(group, kind) else {
        return vec![view.name(), view.text("metadata.creationTimestamp").into()];
    };
    let mut row = Vec::with_capacity(cells.len() + 1);
    for cell in cells {
        row.push(match cell {
            Name => view.name(),
            Age => view.age(),
            Text(path, otherwise) => match view.get(path).map(shown) {
                Some(text) if !text.is_empty() => text.into(),
                _ => (*otherwise).into(),
            },
            Number(path) => view.int(path).into(),
            Flag(path) => view.flag(path).into(),
            Count(paths) => paths.iter().map(|path| view.count(path)).sum::<i64>().into(),
            Any(path, otherwise) => view.get(path).cloned().unwrap_or_else(|| (*otherwise).into()),
            Joined(path) => lists::join(view.list(path).iter().filter_map(Value::as_str), ",").into(),
            Labels(path) => lists::labels(view.map(path)).into(),
            Selector(path) => lists::selector_or_none(view.get(path)).into(),
            Containers(path) => {
                row.extend(lists::containers(view.list(path)));
                continue;
            }
        });
    }
    row
}
