//! May they? The modes that are switched on are asked in their order; the first that allows or denies decides.

mod graph;
mod node;
mod rbac;
mod rule;

use std::str::FromStr;
use std::sync::Arc;

use corten_store::Store;
use futures::future::BoxFuture;

pub use graph::Graph;
pub use rbac::{Binding, GROUP as RBAC_GROUP, Rbac, Role, RoleRef, Subject};
pub use rule::{Rule, missing as missing_rules};

use super::{Attributes, Decision, User, groups};
use crate::hooks;
use crate::registry::Registry;

/// `--authorization-mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Node,
    Rbac,
    AlwaysAllow,
    AlwaysDeny,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "Node" => Ok(Self::Node),
            "RBAC" => Ok(Self::Rbac),
            "AlwaysAllow" => Ok(Self::AlwaysAllow),
            "AlwaysDeny" => Ok(Self::AlwaysDeny),
            "ABAC" | "Webhook" => Err(format!("authorization mode {name} is not part of this server")),
            _ => Err(format!("authorization-mode {name:?} is not a valid mode")),
        }
    }
}

/// What a user may do in a namespace. Source: apiserver `pkg/authorization/authorizer/rule.go`.
#[derive(Debug, Default)]
pub struct Rules {
    pub rules: Vec<Rule>,
    /// Not all are in `rules`.
    pub incomplete: bool,
    pub errors: Vec<String>,
}

pub struct Authorizer {
    modes: Vec<Mode>,
    /// Also kept without the mode: escalations are judged by it.
    rbac: Rbac,
    graph: Graph,
}

impl Authorizer {
    /// Begins to follow roles, bindings and (for nodes) pods. Must be called within a tokio runtime. `None`: the
    /// registry does not have their resources.
    pub fn start(modes: Vec<Mode>, store: &Arc<dyn Store>, registry: &Registry) -> Option<Self> {
        let follow_pods = modes.contains(&Mode::Node);
        Some(Self {
            modes,
            rbac: Rbac::start(store, registry)?,
            graph: if follow_pods { Graph::start(store, registry) } else { Graph::default() },
        })
    }

    /// Nothing is decided before what decides is known.
    pub async fn wait_ready(&self) {
        self.rbac.wait_ready().await;
        self.graph.wait_ready().await;
    }

    pub fn rbac(&self) -> &Rbac {
        &self.rbac
    }

    /// By what is in memory.
    pub fn decide(&self, user: &User, attributes: &Attributes) -> Decision {
        if user.is_in(groups::MASTERS) {
            return Decision::Allow;
        }
        let mut reasons = Vec::new();
        for mode in &self.modes {
            let decision = match mode {
                Mode::Node => node::authorize(&self.graph, user, attributes),
                Mode::Rbac => self.rbac.authorize(user, attributes),
                Mode::AlwaysAllow => Decision::Allow,
                Mode::AlwaysDeny => Decision::NoOpinion("Everything is forbidden.".to_owned()),
            };
            match decision {
                Decision::NoOpinion(reason) => reasons.push(reason),
                decided => return decided,
            }
        }
        reasons.retain(|reason| !reason.is_empty());
        Decision::NoOpinion(reasons.join("\n"))
    }

    /// As [`Authorizer::decide`], but nothing is refused that a role written a moment ago allows.
    pub async fn decide_settled(&self, user: &User, attributes: &Attributes) -> Decision {
        let decision = self.decide(user, attributes);
        if decision == Decision::Allow {
            return decision;
        }
        futures::future::join(self.rbac.settle(), self.graph.settle_for(user)).await;
        self.decide(user, attributes)
    }

    /// Why [`Authorizer::decide`] allows it; empty where there is nothing to say.
    pub fn why(&self, user: &User, attributes: &Attributes) -> String {
        if user.is_in(groups::MASTERS) || !self.modes.contains(&Mode::Rbac) {
            return String::new();
        }
        if self.modes.contains(&Mode::Node)
            && node::authorize(&self.graph, user, attributes) == Decision::Allow
        {
            return String::new();
        }
        self.rbac.allowed_by(user, attributes).unwrap_or_default()
    }

    pub fn rules(&self, user: &User, namespace: &str) -> Rules {
        let mut all = Rules::default();
        for mode in &self.modes {
            match mode {
                Mode::Node if user.node().is_some() => {
                    all.incomplete = true;
                    all.errors.push("node authorizer does not support user rule resolution".to_owned());
                }
                Mode::Node | Mode::AlwaysDeny => {}
                Mode::Rbac => {
                    let (rules, errors) = self.rbac.rules(user, namespace);
                    all.rules.extend(rules);
                    all.errors.extend(errors);
                }
                Mode::AlwaysAllow => {
                    let star = || vec!["*".to_owned()];
                    all.rules.push(Rule {
                        verbs: star(),
                        api_groups: star(),
                        resources: star(),
                        non_resource_urls: star(),
                        ..Rule::default()
                    });
                }
            }
        }
        all
    }
}

impl hooks::Authorizer for Arc<Authorizer> {
    fn authorize<'a>(&'a self, user: &'a User, attributes: &'a Attributes) -> BoxFuture<'a, Decision> {
        Box::pin(self.decide_settled(user, attributes))
    }
}

#[cfg(test)]
mod tests;
