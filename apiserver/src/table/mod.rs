//! Tables: the columns of a resource and the cells of its objects, as upstream prints them.
//!
//! Columns are facts of the schema table. What a cell shows is a row of [`simple`] (a path and how it is written), a
//! function of a kind that has more to say, or a custom resource's JSONPath.
//! Source: kubernetes `pkg/printers/internalversion/printers.go`, apiserver `pkg/registry/rest/table.go`.

mod cluster;
mod duration;
mod lists;
mod network;
mod path;
mod pods;
mod simple;
mod view;
mod workloads;

use serde_json::{Value, json};

use crate::object::Object;
use crate::registry::Served;
use view::View;

/// What a row shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub cells: Vec<Value>,
    /// Of a pod that has ended; kubectl leaves such rows out where it is asked to.
    pub conditions: Option<Value>,
}

/// The column definitions of a resource's tables.
pub fn columns(served: &Served) -> Value {
    let columns = served.resource.columns.iter().map(|column| {
        json!({
            "name": column.name, "type": column.ty, "format": column.format, "description": column.description,
            "priority": column.priority,
        })
    });
    columns.collect()
}

/// The cells of an object in the version that is served; `now`: seconds since 1970.
pub fn row(served: &Served, object: &Object, now: i64) -> Row {
    let view = View::new(&object.0, now);
    if served.is_custom() {
        return Row { cells: custom(served, object, &view), conditions: None };
    }
    let resource = &served.resource;
    let conditions =
        (resource.group.is_empty() && resource.kind == "Pod").then(|| pods::conditions(&view)).flatten();
    let cells = match of(&resource.group, &resource.version, &resource.kind) {
        Some(cells) => cells(&view),
        None => simple::cells(&resource.group, &resource.kind, &view),
    };
    Row { cells, conditions }
}

type Cells = fn(&View<'_>) -> Vec<Value>;

/// Kinds whose cells are more than fields.
fn of(group: &str, version: &str, kind: &str) -> Option<Cells> {
    let cells: Cells = match (group, kind) {
        ("", "Pod") => pods::cells,
        ("", "Node") => cluster::node,
        ("", "PersistentVolume") => cluster::persistent_volume,
        ("", "PersistentVolumeClaim") => cluster::persistent_volume_claim,
        ("", "Event") => cluster::event,
        ("events.k8s.io", "Event") => cluster::new_event,
        ("", "ResourceQuota") => cluster::resource_quota,
        ("", "ComponentStatus") => cluster::component_status,
        ("", "Service") => network::service,
        ("", "Endpoints") => network::endpoints,
        ("discovery.k8s.io", "EndpointSlice") => network::endpoint_slice,
        ("networking.k8s.io", "Ingress") => network::ingress,
        ("networking.k8s.io", "IngressClass") => network::ingress_class,
        ("networking.k8s.io", "IPAddress") => network::ip_address,
        ("apps", "DaemonSet") => workloads::daemon_set,
        ("apps", "Deployment") => workloads::deployment,
        ("apps", "StatefulSet") => workloads::stateful_set,
        ("apps", "ReplicaSet") => workloads::replica_set,
        ("", "ReplicationController") => workloads::replication_controller,
        ("apps", "ControllerRevision") => workloads::controller_revision,
        ("batch", "Job") => workloads::job,
        ("batch", "CronJob") => workloads::cron_job,
        ("autoscaling", "HorizontalPodAutoscaler") if version == "v1" => workloads::autoscaler_v1,
        ("autoscaling", "HorizontalPodAutoscaler") => workloads::autoscaler,
        ("certificates.k8s.io", "CertificateSigningRequest") => cluster::signing_request,
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => cluster::role_binding,
        ("storage.k8s.io", "StorageClass") => cluster::storage_class,
        ("storage.k8s.io", "CSIDriver") => cluster::csi_driver,
        ("apiregistration.k8s.io", "APIService") => cluster::api_service,
        ("resource.k8s.io", "ResourceClaim") => cluster::resource_claim,
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => cluster::flow_schema,
        (
            "admissionregistration.k8s.io",
            "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding",
        ) => cluster::policy_binding,
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => {
            |view| cluster::policy(view, "validations")
        }
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicy") => {
            |view| cluster::policy(view, "mutations")
        }
        _ => return None,
    };
    Some(cells)
}

/// Source: apiextensions-apiserver `pkg/registry/customresource/tableconvertor/tableconvertor.go`.
fn custom(served: &Served, object: &Object, view: &View<'_>) -> Vec<Value> {
    let whole = Value::Object(object.0.clone());
    let cell = |column: &corten_schema::Column| {
        let Some(found) = path::first(&column.path, &whole) else { return Value::Null };
        match (column.ty.as_ref(), found) {
            (_, Value::Null) => Value::Null,
            ("string", Value::String(_)) | ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => {
                found.clone()
            }
            ("string", other) => Value::from(other.to_string()),
            ("integer", Value::Number(number)) => number
                .as_i64()
                .or_else(|| number.as_f64().map(|number| number as i64))
                .map_or(Value::Null, Value::from),
            ("date", Value::String(text)) => match corten_schema::time::seconds(text) {
                Some(seconds) => duration::human(view.now - seconds).into(),
                None => "<invalid>".into(),
            },
            _ => Value::Null,
        }
    };
    served.resource.columns.iter().map(cell).collect()
}

#[cfg(test)]
mod tests;
