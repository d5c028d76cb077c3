//! Roles and bindings. Source: kubernetes `plugin/pkg/auth/authorizer/rbac`, `pkg/registry/rbac/validation/rule.go`.

use std::fmt;
use std::sync::Arc;

use corten_store::Store;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::rule::{self, Rule};
use crate::auth::views::{Decoded, View};
use crate::auth::{Attributes, Decision, User, names};
use crate::object::Object;
use crate::registry::Registry;

pub const GROUP: &str = "rbac.authorization.k8s.io";

/// What a Role or ClusterRole allows.
#[derive(Debug, Clone, Default)]
pub struct Role {
    pub rules: Vec<Rule>,
    pub labels: Map<String, Value>,
    /// A ClusterRole whose rules are those of all that one of these selects; empty: its rules are its own.
    pub selectors: Vec<Value>,
}

/// A RoleBinding or ClusterRoleBinding.
#[derive(Debug, Clone, Default)]
pub struct Binding {
    pub role: RoleRef,
    pub subjects: Vec<Subject>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RoleRef {
    pub api_group: String,
    pub kind: String,
    pub name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Subject {
    pub kind: String,
    pub name: String,
    pub namespace: String,
}

fn field<T: for<'a> Deserialize<'a> + Default>(object: &Object, name: &str) -> T {
    let value = object.0.get(name).cloned().unwrap_or(Value::Null);
    if value.is_null() { T::default() } else { serde_json::from_value(value).unwrap_or_default() }
}

/// Sees one rule after the other, or why a binding has none; says whether it wants more.
type Look<'a> = dyn FnMut(Result<(Source<'_>, &Rule), String>) -> bool + 'a;

impl From<Object> for Role {
    fn from(object: Object) -> Self {
        let selectors = object.get(&["aggregationRule", "clusterRoleSelectors"]).and_then(Value::as_array);
        Self {
            rules: field(&object, "rules"),
            labels: object.labels().cloned().unwrap_or_default(),
            selectors: selectors.cloned().unwrap_or_default(),
        }
    }
}

impl From<Object> for Binding {
    fn from(object: Object) -> Self {
        Self { role: field(&object, "roleRef"), subjects: field(&object, "subjects") }
    }
}

impl Subject {
    /// `namespace`: the binding's, empty of a ClusterRoleBinding.
    fn is(&self, user: &User, namespace: &str) -> bool {
        match &*self.kind {
            "User" => self.name == user.name,
            "Group" => user.is_in(&self.name),
            "ServiceAccount" => {
                let namespace = if self.namespace.is_empty() { namespace } else { &self.namespace };
                !namespace.is_empty() && is_service_account(&user.name, namespace, &self.name)
            }
            _ => false,
        }
    }
}

/// Compared without making the name: this is asked for every subject of every binding.
fn is_service_account(user: &str, namespace: &str, name: &str) -> bool {
    let rest = user.strip_prefix(names::SERVICE_ACCOUNT_PREFIX).and_then(|rest| rest.strip_prefix(namespace));
    rest.and_then(|rest| rest.strip_prefix(':')) == Some(name)
}

/// What allowed something.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// `NAME` or `NAME/NAMESPACE`.
    name: &'a str,
    namespace: &'a str,
    binding: &'a Binding,
    subject: &'a Subject,
}

impl fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, namespace, binding, subject } = self;
        let (kind, of) = if namespace.is_empty() {
            ("ClusterRoleBinding", (*name).to_owned())
        } else {
            ("RoleBinding", format!("{name}/{namespace}"))
        };
        let who = match (&*subject.kind, &*subject.namespace) {
            ("ServiceAccount", "") => format!("{}/{namespace}", subject.name),
            ("ServiceAccount", own) => format!("{}/{own}", subject.name),
            _ => subject.name.clone(),
        };
        let RoleRef { kind: role_kind, name: role, .. } = &binding.role;
        write!(f, "{kind} {of:?} of {role_kind} {role:?} to {} {who:?}", subject.kind)
    }
}

/// What is bound, in memory.
pub struct Rbac {
    roles: View<Decoded<Role>>,
    cluster_roles: View<Decoded<Role>>,
    role_bindings: View<Decoded<Binding>>,
    cluster_role_bindings: View<Decoded<Binding>>,
}

impl Rbac {
    /// `None`: the registry does not have its resources.
    pub fn start(store: &Arc<dyn Store>, registry: &Registry) -> Option<Self> {
        let prefix = |plural: &str| Some(registry.find(GROUP, "v1", plural)?.prefix(""));
        Some(Self {
            roles: View::start(Arc::clone(store), prefix("roles")?),
            cluster_roles: View::start(Arc::clone(store), prefix("clusterroles")?),
            role_bindings: View::start(Arc::clone(store), prefix("rolebindings")?),
            cluster_role_bindings: View::start(Arc::clone(store), prefix("clusterrolebindings")?),
        })
    }

    pub fn cluster_roles(&self) -> &View<Decoded<Role>> {
        &self.cluster_roles
    }

    pub async fn wait_ready(&self) {
        self.roles.wait_ready().await;
        self.cluster_roles.wait_ready().await;
        self.role_bindings.wait_ready().await;
        self.cluster_role_bindings.wait_ready().await;
    }

    /// Waits until what is in the store now is seen.
    pub async fn settle(&self) {
        futures::future::join4(
            self.roles.settle(),
            self.cluster_roles.settle(),
            self.role_bindings.settle(),
            self.cluster_role_bindings.settle(),
        )
        .await;
    }

    pub fn authorize(&self, user: &User, attributes: &Attributes) -> Decision {
        let mut allowed = false;
        let mut errors = Vec::<String>::new();
        self.visit(user, &attributes.namespace, &mut |found| {
            match found {
                Ok((_, rule)) => allowed = rule.allows(attributes),
                Err(error) => errors.push(error),
            }
            !allowed
        });
        if allowed {
            return Decision::Allow;
        }
        errors.dedup();
        Decision::NoOpinion(match &*errors {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        })
    }

    /// What allows it, as SubjectAccessReviews say it.
    pub fn allowed_by(&self, user: &User, attributes: &Attributes) -> Option<String> {
        let mut by = None;
        self.visit(user, &attributes.namespace, &mut |found| {
            if let Ok((source, rule)) = found
                && rule.allows(attributes)
            {
                by = Some(format!("RBAC: allowed by {source}"));
            }
            by.is_none()
        });
        by
    }

    /// All rules of a user in a namespace (and everywhere), and what could not be found.
    pub fn rules(&self, user: &User, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        self.visit(user, namespace, &mut |found| {
            match found {
                Ok((_, rule)) => rules.push(rule.clone()),
                Err(error) => errors.push(error),
            }
            true
        });
        (rules, errors)
    }

    /// The rules of a role that is referred to.
    ///
    /// # Errors
    /// The role's name in messages, when it is not there.
    pub fn role_rules(&self, role: &RoleRef, namespace: &str) -> Result<Vec<Rule>, String> {
        let mut rules = Vec::new();
        self.with_rules(role, namespace, &mut |rule| {
            rules.push(rule.clone());
            true
        })?;
        Ok(rules)
    }

    /// Until `look` says that it has seen enough.
    fn visit(&self, user: &User, namespace: &str, look: &mut Look<'_>) {
        let mut each = |name: &str, namespace: &str, binding: &Binding| {
            let Some(subject) = binding.subjects.iter().find(|subject| subject.is(user, namespace)) else {
                return true;
            };
            let source = Source { name, namespace, binding, subject };
            let mut go_on = true;
            let found = self.with_rules(&binding.role, namespace, &mut |rule| {
                go_on = look(Ok((source, rule)));
                go_on
            });
            match found {
                Ok(()) => go_on,
                Err(error) => look(Err(error)),
            }
        };
        let go_on = self
            .cluster_role_bindings
            .read(|bindings| bindings.0.iter().all(|(name, binding)| each(name, "", binding)));
        if !go_on || namespace.is_empty() {
            return;
        }
        let prefix = format!("{namespace}/");
        self.role_bindings.read(|bindings| {
            bindings
                .0
                .range(prefix.clone()..)
                .map_while(|(key, binding)| Some((key.strip_prefix(&prefix)?, binding)))
                .all(|(name, binding)| each(name, namespace, binding))
        });
    }

    fn with_rules(
        &self,
        role: &RoleRef,
        namespace: &str,
        look: &mut dyn FnMut(&Rule) -> bool,
    ) -> Result<(), String> {
        let mut in_view = |view: &View<Decoded<Role>>, key: &str, kind: &str| {
            view.read(|roles| match roles.0.get(key) {
                Some(role) => {
                    role.rules.iter().all(&mut *look);
                    Ok(())
                }
                None => Err(format!("{kind}.{GROUP} {:?} not found", role.name)),
            })
        };
        match &*role.kind {
            "ClusterRole" => in_view(&self.cluster_roles, &role.name, "clusterrole"),
            "Role" => in_view(&self.roles, &format!("{namespace}/{}", role.name), "role"),
            other => Err(format!("unsupported role reference kind: {other:?}")),
        }
    }

    /// May this user give these rules away?
    ///
    /// # Errors
    /// What is missing, in upstream's words.
    pub fn confirm_no_escalation(&self, user: &User, namespace: &str, wanted: &[Rule]) -> Result<(), String> {
        let (held, errors) = self.rules(user, namespace);
        let missing = rule::missing(&held, wanted);
        if missing.is_empty() {
            return Ok(());
        }
        let mut message = format!(
            "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            rule::go_list(&user.groups),
            rule::shown_compactly(&missing)
        );
        if !errors.is_empty() {
            use fmt::Write;
            write!(message, "; resolution errors: [{}]", errors.join(", ")).expect("text takes text");
        }
        Err(message)
    }
}
