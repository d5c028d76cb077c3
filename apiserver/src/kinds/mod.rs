//! What is special about a few kinds. Everything else about them is a row of the schema table.
//!
//! A kind with special behaviour has a file with one [`Kind`]. Defaults that OpenAPI does not know are tables of
//! [`fill`]; rules are tables of [`validate`]; what neither can say is a function over JSON.

mod access;
mod autoscalers;
mod claims;
mod common;
mod configuration;
pub mod convert;
mod diff;
mod fill;
mod namespaces;
mod network;
mod nodes;
mod pod_spec;
mod pods;
mod policy;
mod qos;
pub mod quantity;
pub mod services;
mod small;
mod storage;
pub mod validate;
mod warnings;
mod workloads;

use std::time::Duration;

use crate::auth::User;
use crate::object::Object;
use crate::status::Cause;

/// The special behaviour of a kind. Most have none: [`Kind::PLAIN`].
pub struct Kind {
    /// What there is to say against a name (and, with a letter in the place of a `-` at its end, a generateName).
    pub name: fn(&str) -> Vec<String>,
    /// Defaults that depend on other fields; after the table's.
    pub default: fn(&mut Object),
    /// Makes a new object what it must be: clears status, sets what only the server may.
    pub prepare_create: fn(&mut Object, &Preparing<'_>),
    /// A new version of an object through its main path: keeps what it may not change.
    pub prepare_update: fn(new: &mut Object, old: &Object, &Preparing<'_>),
    /// The same through one of its subresources, by name.
    pub prepare_subresource: fn(subresource: &str, new: &mut Object, old: &Object, &Preparing<'_>),
    /// Everything but metadata that every kind has.
    pub validate: fn(&Object) -> Vec<Cause>,
    /// All there is to say of a new version: [`Self::validate`] is not asked as well.
    pub validate_update: fn(new: &Object, old: &Object) -> Vec<Cause>,
    pub validate_subresource: fn(subresource: &str, new: &Object, old: &Object) -> Vec<Cause>,
    /// `Warning:` headers for what is accepted but unwise.
    pub warn: fn(&Object) -> Vec<String>,
    /// How long a deletion waits, given what was asked for; `None`: it happens at once.
    pub grace: fn(&Object, asked: Option<u32>) -> Option<u32>,
    /// The value of a field that can be selected (beside metadata.name and metadata.namespace); `None`: no such,
    /// whatever the object.
    pub field: fn(&Object, label: &str) -> Option<String>,
    /// Lives so long only.
    pub ttl: Option<Duration>,
    /// `generation` counts changes: 1 when it is made.
    pub counts_generations: bool,
    /// Whether a new version counts, beyond changes of everything but metadata and status.
    pub also_counts: fn(new: &Object, old: &Object) -> bool,
    /// An update of an object that is not there makes it.
    pub create_on_update: bool,
    /// An update without a resourceVersion overwrites.
    pub unconditional_update: bool,
    /// Its deletion begins with this one, which a controller of ours takes away when all is done.
    pub finalizer: Option<&'static str>,
    /// Addresses and ports are given to it: [`services::Allocator`].
    pub allocates: bool,
}

/// What a preparation may know.
pub struct Preparing<'a> {
    pub user: &'a User,
    /// RFC 3339.
    pub now: &'a str,
}

impl Kind {
    pub const PLAIN: Self = Self {
        name: validate::names::dns_subdomain,
        default: |_| {},
        prepare_create: |_, _| {},
        prepare_update: |_, _, _| {},
        prepare_subresource: |_, _, _, _| {},
        validate: |_| Vec::new(),
        validate_update: |_, _| Vec::new(),
        validate_subresource: |_, _, _| Vec::new(),
        warn: |_| Vec::new(),
        grace: |_, _| None,
        field: |_, _| None,
        ttl: None,
        counts_generations: false,
        also_counts: |_, _| false,
        create_on_update: false,
        unconditional_update: true,
        finalizer: None,
        allocates: false,
    };
}

/// The behaviour of a built-in kind.
pub fn of(group: &str, kind: &str) -> &'static Kind {
    match (group, kind) {
        ("", "Pod") => &pods::KIND,
        ("", "Namespace") => &namespaces::KIND,
        ("", "Service") => &services::KIND,
        ("", "PersistentVolumeClaim") => &claims::KIND,
        ("apps", "Deployment") => &workloads::deployments::KIND,
        ("apps", "ReplicaSet") => &workloads::replica_sets::KIND,
        ("apps", "StatefulSet") => &workloads::stateful_sets::KIND,
        ("apps", "DaemonSet") => &workloads::daemon_sets::KIND,
        ("", "ReplicationController") => &workloads::replication_controllers::KIND,
        ("batch", "Job") => &workloads::jobs::KIND,
        ("batch", "CronJob") => &workloads::cron_jobs::KIND,
        ("", "ConfigMap") => &configuration::CONFIG_MAP,
        ("", "Secret") => &configuration::SECRET,
        ("apiextensions.k8s.io", "CustomResourceDefinition") => &crate::crd::definition::KIND,
        ("", "Node") => &nodes::KIND,
        ("", "ServiceAccount") => &small::SERVICE_ACCOUNT,
        ("" | "events.k8s.io", "Event") => &small::EVENT,
        ("", "PodTemplate") => &small::POD_TEMPLATE,
        ("", "PersistentVolume") => &storage::VOLUME,
        ("", "Endpoints") => &network::ENDPOINTS,
        ("", "LimitRange") => &policy::LIMIT_RANGE,
        ("", "ResourceQuota") => &policy::QUOTA,
        ("apps", "ControllerRevision") => &small::REVISION,
        ("autoscaling", "HorizontalPodAutoscaler") => &autoscalers::KIND,
        ("policy", "PodDisruptionBudget") => &policy::BUDGET,
        ("scheduling.k8s.io", "PriorityClass") => &policy::PRIORITY_CLASS,
        ("node.k8s.io", "RuntimeClass") => &policy::RUNTIME_CLASS,
        ("coordination.k8s.io", "Lease") => &small::LEASE,
        ("certificates.k8s.io", "CertificateSigningRequest") => &access::SIGNING_REQUEST,
        ("discovery.k8s.io", "EndpointSlice") => &network::ENDPOINT_SLICE,
        ("rbac.authorization.k8s.io", kind) => match kind {
            "Role" => &access::ROLE,
            "ClusterRole" => &access::CLUSTER_ROLE,
            "RoleBinding" => &access::ROLE_BINDING,
            "ClusterRoleBinding" => &access::CLUSTER_ROLE_BINDING,
            _ => &Kind::PLAIN,
        },
        ("networking.k8s.io", kind) => match kind {
            "Ingress" => &network::INGRESS,
            "IngressClass" => &network::INGRESS_CLASS,
            "NetworkPolicy" => &network::POLICY,
            "IPAddress" => &network::IP_ADDRESS,
            "ServiceCIDR" => &network::SERVICE_CIDR,
            _ => &Kind::PLAIN,
        },
        ("storage.k8s.io", kind) => match kind {
            "StorageClass" => &storage::CLASS,
            "VolumeAttributesClass" => &storage::ATTRIBUTES_CLASS,
            "CSIDriver" => &storage::DRIVER,
            "CSINode" => &storage::CSI_NODE,
            "CSIStorageCapacity" => &storage::CAPACITY,
            "VolumeAttachment" => &storage::ATTACHMENT,
            _ => &Kind::PLAIN,
        },
        ("admissionregistration.k8s.io", kind) => match kind {
            "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration" => &small::WEBHOOKS,
            _ => &small::ADMISSION_POLICY,
        },
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => &small::FLOW_SCHEMA,
        ("flowcontrol.apiserver.k8s.io", _) => &small::PRIORITY_LEVEL,
        ("apiregistration.k8s.io", _) => &small::WITH_STATUS,
        _ => &Kind::PLAIN,
    }
}
