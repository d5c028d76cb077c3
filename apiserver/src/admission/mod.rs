//! What is done to a change before it is made, and what refuses it: upstream's plugins, one file each, in upstream's
//! order. Those that change objects go first, then who grants roles is judged, then those that only look.
//! Source: kubernetes `pkg/kubeapiserver/options/plugins.go`, `plugin/pkg/admission`.

mod certificate_approval;
mod certificate_signing;
mod certificate_subject_restriction;
mod default_ingress_class;
mod default_storage_class;
mod default_toleration_seconds;
mod escalation;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod persistent_volume_claim_resize;
mod pods;
mod priority;
mod runtime_class;
mod service_account;
mod storage_object_in_use_protection;
mod taint_nodes_by_condition;

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::api::Api;
use crate::auth::authz::Authorizer;
use crate::auth::lookup::Lookup;
use crate::hooks::{self, Operation, Review};
use crate::status::{Result, Status};

/// One plugin.
pub struct Plugin {
    pub name: &'static str,
    /// Without being asked for.
    pub on_by_default: bool,
    /// (group, plural) of what it looks at; empty: everything.
    resources: &'static [(&'static str, &'static str)],
    mutate: Option<Step>,
    validate: Option<Step>,
}

type Step = for<'a> fn(&'a Context, &'a mut Review) -> BoxFuture<'a, Result<()>>;

/// In upstream's order.
pub const PLUGINS: &[&Plugin] = &[
    &namespace_lifecycle::PLUGIN,
    &limit_ranger::PLUGIN,
    &service_account::PLUGIN,
    &node_restriction::PLUGIN,
    &taint_nodes_by_condition::PLUGIN,
    &priority::PLUGIN,
    &default_toleration_seconds::PLUGIN,
    &default_storage_class::PLUGIN,
    &storage_object_in_use_protection::PLUGIN,
    &persistent_volume_claim_resize::PLUGIN,
    &runtime_class::PLUGIN,
    &certificate_approval::PLUGIN,
    &certificate_signing::PLUGIN,
    &certificate_subject_restriction::PLUGIN,
    &default_ingress_class::PLUGIN,
];

/// Upstream's others: refused when they are asked for by name, left out where upstream has them by default.
pub const NOT_HERE: &[&str] = &[
    "AlwaysAdmit",
    "AlwaysDeny",
    "AlwaysPullImages",
    "ClusterTrustBundleAttest",
    "DenyServiceExternalIPs",
    "EventRateLimit",
    "ExtendedResourceToleration",
    "ImagePolicyWebhook",
    "JobValidation",
    "LimitPodHardAntiAffinityTopology",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook",
    "NamespaceAutoProvision",
    "NamespaceExists",
    "NodeDeclaredFeatureValidator",
    "OwnerReferencesPermissionEnforcement",
    "PodGroupProtection",
    "PodGroupWorkloadExists",
    "PodNodeSelector",
    "PodResizeValidator",
    "PodSecurity",
    "PodTolerationRestriction",
    "PodTopologyLabels",
    "ResourceQuota",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
];

/// What plugins may ask.
pub struct Context {
    pub lookup: Lookup,
    pub authorizer: Arc<Authorizer>,
    pub settings: Settings,
}

/// Flags of plugins.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `--default-not-ready-toleration-seconds`.
    pub not_ready_toleration: i64,
    /// `--default-unreachable-toleration-seconds`.
    pub unreachable_toleration: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { not_ready_toleration: 300, unreachable_toleration: 300 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    #[error("enable-admission-plugins plugin {0:?} is unknown")]
    Unknown(String),
    #[error("disable-admission-plugins plugin {0:?} is unknown")]
    UnknownDisabled(String),
    #[error("admission plugin {0} is not part of this server")]
    NotHere(String),
    #[error("{0} in enable-admission-plugins and disable-admission-plugins overlapped")]
    Both(String),
}

/// The plugins that are on.
pub struct Chain {
    plugins: Vec<&'static Plugin>,
    context: Context,
}

impl Chain {
    /// `--enable-admission-plugins` and `--disable-admission-plugins`.
    ///
    /// # Errors
    /// A name is unknown, or of a plugin that is not here.
    pub fn new(context: Context, enable: &[String], disable: &[String]) -> Result<Self, ChainError> {
        let here = |name: &String| PLUGINS.iter().any(|plugin| plugin.name == name);
        let upstream = |name: &String| NOT_HERE.contains(&&**name);
        for name in enable {
            match (here(name), upstream(name), disable.contains(name)) {
                (true, _, false) => {}
                (true, _, true) => return Err(ChainError::Both(name.clone())),
                (false, true, _) => return Err(ChainError::NotHere(name.clone())),
                (false, false, _) => return Err(ChainError::Unknown(name.clone())),
            }
        }
        if let Some(name) = disable.iter().find(|name| !here(name) && !upstream(name)) {
            return Err(ChainError::UnknownDisabled(name.clone()));
        }
        let named = |list: &[String], plugin: &Plugin| list.iter().any(|name| name == plugin.name);
        let on = |plugin: &&&'static Plugin| {
            (plugin.on_by_default || named(enable, plugin)) && !named(disable, plugin)
        };
        Ok(Self { plugins: PLUGINS.iter().filter(on).copied().collect(), context })
    }

    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.plugins.iter().map(|plugin| plugin.name)
    }

    /// # Errors
    /// The first that refuses.
    pub async fn admit(&self, review: &mut Review) -> Result<()> {
        // Nothing here looks at connections to pods and nodes.
        if review.operation == Operation::Connect {
            return Ok(());
        }
        let (group, plural) =
            (review.served.resource.group.to_string(), review.served.resource.plural.to_string());
        let looks = |plugin: &&&'static Plugin| {
            plugin.resources.is_empty() || plugin.resources.iter().any(|(g, p)| *g == group && *p == plural)
        };
        for step in self.plugins.iter().filter(looks).filter_map(|plugin| plugin.mutate) {
            step(&self.context, review).await?;
        }
        escalation::check(&self.context, review).await?;
        for step in self.plugins.iter().filter(looks).filter_map(|plugin| plugin.validate) {
            step(&self.context, review).await?;
        }
        Ok(())
    }
}

impl hooks::Admission for Chain {
    fn admit<'a>(&'a self, _: &'a Api, review: &'a mut Review) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.admit(review))
    }
}

impl Review {
    fn is_of(&self, group: &str, plural: &str) -> bool {
        self.served.resource.group == group && self.served.resource.plural == plural
    }

    /// As messages name the object: also before its name is made.
    fn shown_name(&self) -> &str {
        if !self.name.is_empty() {
            return &self.name;
        }
        match &self.object {
            Some(object) if !object.name().is_empty() => object.name(),
            Some(object) if !object.generate_name().is_empty() => object.generate_name(),
            _ => "Unknown!",
        }
    }

    /// 403 about this object.
    fn forbid(&self, why: impl std::fmt::Display) -> Status {
        Status::forbidden(&self.served.resource, self.shown_name(), why)
    }
}

#[cfg(test)]
mod tests;
