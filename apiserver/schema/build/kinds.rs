//! The kinds that are served: a new kind is a row here (and a run of `cargo xtask schema record`).

use k8s_openapi::{ListableResource, Resource, api, apiextensions_apiserver, apimachinery, kube_aggregator};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

/// A kind and its type's name.
#[expect(clippy::struct_field_names, reason = "as the API calls them")]
pub struct Kind {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub name: String,
}

pub struct Roots {
    pub kinds: Vec<Kind>,
    /// Schemas by their OpenAPI names; they refer to each other by `#/$defs/NAME`.
    pub definitions: Map<String, Value>,
}

macro_rules! kinds {
    ($read:expr, $how:ident: $($($module:ident)::+ { $($kind:ident)+ })+) => {
        $({
            use $($module)::+ as module;
            $( $read.$how::<module::$kind>(); )+
        })+
    };
}

pub fn roots() -> Roots {
    let mut read = Reader { generator: SchemaSettings::draft2020_12().into_generator(), kinds: Vec::new() };
    // Kinds that come with a list of themselves.
    kinds! { read, listed:
        api::core::v1 {
            ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume PersistentVolumeClaim
            Pod PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount
        }
        api::admissionregistration::v1 {
            MutatingAdmissionPolicy MutatingAdmissionPolicyBinding MutatingWebhookConfiguration
            ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration
        }
        apiextensions_apiserver::pkg::apis::apiextensions::v1 { CustomResourceDefinition }
        kube_aggregator::pkg::apis::apiregistration::v1 { APIService }
        api::apps::v1 { ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet }
        api::autoscaling::v1 { HorizontalPodAutoscaler }
        api::autoscaling::v2 { HorizontalPodAutoscaler }
        api::batch::v1 { CronJob Job }
        api::certificates::v1 { CertificateSigningRequest }
        api::coordination::v1 { Lease }
        api::discovery::v1 { EndpointSlice }
        api::events::v1 { Event }
        api::flowcontrol::v1 { FlowSchema PriorityLevelConfiguration }
        api::networking::v1 { IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR }
        api::node::v1 { RuntimeClass }
        api::policy::v1 { PodDisruptionBudget }
        api::rbac::v1 { ClusterRole ClusterRoleBinding Role RoleBinding }
        api::resource::v1 { DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice }
        api::scheduling::v1 { PriorityClass }
        api::storage::v1 {
            CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment VolumeAttributesClass
        }
    }
    // Kinds that are sent and answered, never listed.
    kinds! { read, single:
        api::core::v1 { Binding }
        api::authentication::v1 { SelfSubjectReview TokenRequest TokenReview }
        api::authorization::v1 {
            LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview
        }
        api::autoscaling::v1 { Scale }
        api::policy::v1 { Eviction }
        apimachinery::pkg::apis::meta::v1 { APIGroup APIGroupList APIResourceList APIVersions Status }
    }
    read.type_of::<apimachinery::pkg::apis::meta::v1::DeleteOptions>("DeleteOptions");
    let mut definitions = read.generator.take_definitions(false);
    let mut kinds = read.kinds;
    own(&mut kinds, &mut definitions);
    kinds.sort_by(|a, b| (&a.group, &a.version, &a.kind).cmp(&(&b.group, &b.version, &b.kind)));
    Roots { kinds, definitions }
}

struct Reader {
    generator: SchemaGenerator,
    kinds: Vec<Kind>,
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

impl Reader {
    fn single<T: JsonSchema + Resource>(&mut self) {
        self.generator.subschema_for::<T>();
        self.push(T::GROUP, T::VERSION, T::KIND, T::schema_name().into_owned());
    }

    fn listed<T: JsonSchema + ListableResource>(&mut self) {
        self.single::<T>();
        let item = T::schema_name().into_owned();
        let name = format!("{item}List");
        let list = list(T::KIND, &item, T::GROUP, T::VERSION, T::LIST_KIND);
        self.generator.definitions_mut().insert(name.clone(), list);
        self.push(T::GROUP, T::VERSION, T::LIST_KIND, name);
    }

    fn type_of<T: JsonSchema>(&mut self, kind: &str) {
        self.generator.subschema_for::<T>();
        self.push("meta.k8s.io", "v1", kind, T::schema_name().into_owned());
    }

    fn push(&mut self, group: &str, version: &str, kind: &str, name: String) {
        let (group, version, kind) = (group.to_owned(), version.to_owned(), kind.to_owned());
        self.kinds.push(Kind { group, version, kind, name });
    }
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

/// The crate has one generic list; upstream has a type for each.
fn list(kind: &str, item: &str, group: &str, version: &str, list_kind: &str) -> Value {
    json!({
        "description": format!("{list_kind} is a list of {kind}."),
        "type": "object",
        "properties": {
            "apiVersion": {
                "description": "The version of this representation of the list.", "type": "string"
            },
            "items": { "description": format!("The {kind} objects."), "type": "array", "items": reference(item) },
            "kind": { "description": "The kind of the list.", "type": "string" },
            "metadata": reference(&format!("{META}.ListMeta")),
        },
        "required": ["items"],
        "x-kubernetes-group-version-kind": [{ "group": group, "kind": list_kind, "version": version }],
    })
}

/// Types of meta/v1 that are in no OpenAPI document of upstream and so not in the crate.
fn own(kinds: &mut Vec<Kind>, definitions: &mut Map<String, Value>) {
    let text = || json!({ "type": "string" });
    let texts = || json!({ "type": "array", "items": { "type": "string" } });
    let flag = || json!({ "type": "boolean" });
    let integer = || json!({ "type": "integer", "format": "int64" });
    let width = || json!({ "type": "integer", "format": "int32" });
    let meta = |name: &str| reference(&format!("{META}.{name}"));
    let rows = [
        (
            "CreateOptions",
            true,
            json!({ "dryRun": texts(), "fieldManager": text(), "fieldValidation": text() }),
        ),
        (
            "PatchOptions",
            true,
            json!({ "dryRun": texts(), "force": flag(), "fieldManager": text(), "fieldValidation": text() }),
        ),
        (
            "UpdateOptions",
            true,
            json!({ "dryRun": texts(), "fieldManager": text(), "fieldValidation": text() }),
        ),
        ("GetOptions", true, json!({ "resourceVersion": text() })),
        (
            "ListOptions",
            true,
            json!({
                "labelSelector": text(), "fieldSelector": text(), "watch": flag(), "allowWatchBookmarks": flag(),
                "resourceVersion": text(), "resourceVersionMatch": text(), "timeoutSeconds": integer(),
                "limit": integer(), "continue": text(), "sendInitialEvents": flag(), "shardSelector": text(),
            }),
        ),
        ("PartialObjectMetadata", true, json!({ "metadata": meta("ObjectMeta") })),
        (
            "PartialObjectMetadataList",
            true,
            json!({
                "metadata": meta("ListMeta"), "items": { "type": "array", "items": meta("PartialObjectMetadata") },
            }),
        ),
        (
            "Table",
            true,
            json!({
                "metadata": meta("ListMeta"),
                "columnDefinitions": { "type": "array", "items": meta("TableColumnDefinition") },
                "rows": { "type": "array", "items": meta("TableRow") },
            }),
        ),
        (
            "TableColumnDefinition",
            false,
            json!({
                "name": text(), "type": text(), "format": text(), "description": text(), "priority": width(),
            }),
        ),
        (
            "TableRow",
            false,
            json!({
                "cells": { "type": "array", "items": reference("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON") },
                "conditions": { "type": "array", "items": meta("TableRowCondition") },
                "object": reference("io.k8s.apimachinery.pkg.runtime.RawExtension"),
            }),
        ),
        (
            "TableRowCondition",
            false,
            json!({ "type": text(), "status": text(), "reason": text(), "message": text() }),
        ),
        (
            "WatchEvent",
            false,
            json!({
                "type": text(), "object": reference("io.k8s.apimachinery.pkg.runtime.RawExtension"),
            }),
        ),
    ];
    for (kind, typed, mut properties) in rows {
        if typed {
            properties["apiVersion"] = text();
            properties["kind"] = text();
        }
        let name = format!("{META}.{kind}");
        definitions.insert(name.clone(), json!({ "type": "object", "properties": properties }));
        let (group, version, kind) = ("meta.k8s.io".to_owned(), "v1".to_owned(), kind.to_owned());
        kinds.push(Kind { group, version, kind, name });
    }
}
