//! `audit.k8s.io/v1 Policy`: the first rule that fits decides. Source: apiserver `pkg/audit/policy/checker.go`,
//! `pkg/apis/audit/validation`.

use serde::Deserialize;

use crate::hooks::Level;
use crate::request::Call;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Read {
    api_version: String,
    kind: String,
    #[serde(default)]
    #[expect(dead_code, reason = "a Policy has metadata, which says nothing here")]
    metadata: Option<serde_json::Value>,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<String>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: String,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<Resources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    paths: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "as a policy file has them")]
struct Resources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("{0}")]
    Read(serde_yaml_ng::Error),
    #[error("{0} is not a Policy of audit.k8s.io/v1")]
    Kind(String),
    #[error("rules[{rule}].level: {level:?} is none of None, Metadata, Request, RequestResponse")]
    Level { rule: usize, level: String },
    #[error("{field}: {stage:?} is none of RequestReceived, ResponseStarted, ResponseComplete, Panic")]
    Stage { field: String, stage: String },
    #[error("rules[{0}].nonResourceURLs: a rule is of paths or of resources, not both")]
    Both(usize),
    #[error("there is no rule")]
    Empty,
    #[error("omitManagedFields is not served: what is recorded is what was sent")]
    ManagedFields,
}

pub struct Policy {
    rules: Vec<(Level, Rule)>,
}

/// What rules look at.
pub struct Attributes<'a> {
    pub user: &'a str,
    pub groups: &'a [String],
    pub verb: &'a str,
    pub is_resource: bool,
    pub path: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
}

impl<'a> Attributes<'a> {
    pub fn of(call: &'a Call) -> Self {
        let info = &call.info;
        // Who is impersonated is not who asks.
        let user = call.impersonator.as_ref().unwrap_or(&call.user);
        Self {
            user: &user.name,
            groups: &user.groups,
            verb: info.verb,
            is_resource: info.is_resource,
            path: &info.path,
            group: &info.group,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
        }
    }
}

impl Policy {
    /// Everything, without bodies; once, when it is answered.
    pub fn metadata() -> Self {
        let omit_stages = vec!["RequestReceived".to_owned()];
        Self { rules: vec![(Level::Metadata, Rule { omit_stages, ..Rule::default() })] }
    }

    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let read: Read = serde_yaml_ng::from_str(text).map_err(PolicyError::Read)?;
        if read.kind != "Policy" || read.api_version != "audit.k8s.io/v1" {
            return Err(PolicyError::Kind(format!("{} {}", read.api_version, read.kind)));
        }
        if read.omit_managed_fields {
            return Err(PolicyError::ManagedFields);
        }
        if read.rules.is_empty() {
            return Err(PolicyError::Empty);
        }
        stages("omitStages", &read.omit_stages)?;
        let mut rules = Vec::new();
        for (at, mut rule) in read.rules.into_iter().enumerate() {
            let level = match &*rule.level {
                "None" => Level::None,
                "Metadata" => Level::Metadata,
                "Request" => Level::Request,
                "RequestResponse" => Level::RequestResponse,
                level => return Err(PolicyError::Level { rule: at, level: level.to_owned() }),
            };
            if !rule.paths.is_empty() && (!rule.resources.is_empty() || !rule.namespaces.is_empty()) {
                return Err(PolicyError::Both(at));
            }
            stages(&format!("rules[{at}].omitStages"), &rule.omit_stages)?;
            rule.omit_stages.extend(read.omit_stages.iter().cloned());
            rules.push((level, rule));
        }
        Ok(Self { rules })
    }

    /// How much is recorded, and at which stages nothing is.
    pub fn decide(&self, asked: &Attributes<'_>) -> (Level, Vec<&str>) {
        let found = self.rules.iter().find(|(_, rule)| rule.fits(asked));
        found.map_or((Level::None, Vec::new()), |(level, rule)| {
            (*level, rule.omit_stages.iter().map(String::as_str).collect())
        })
    }
}

fn stages(field: &str, list: &[String]) -> Result<(), PolicyError> {
    const STAGES: [&str; 4] = ["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"];
    match list.iter().find(|stage| !STAGES.contains(&stage.as_str())) {
        Some(stage) => Err(PolicyError::Stage { field: field.to_owned(), stage: stage.clone() }),
        None => Ok(()),
    }
}

impl Rule {
    fn fits(&self, asked: &Attributes<'_>) -> bool {
        let has = |list: &[String], one: &str| list.iter().any(|other| other == one);
        if !self.users.is_empty() && !has(&self.users, asked.user) {
            return false;
        }
        if !self.user_groups.is_empty() && !asked.groups.iter().any(|group| has(&self.user_groups, group)) {
            return false;
        }
        if !self.verbs.is_empty() && !has(&self.verbs, asked.verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return asked.is_resource && self.fits_resource(asked);
        }
        self.paths.is_empty()
            || (!asked.is_resource && self.paths.iter().any(|path| fits_path(asked.path, path)))
    }

    fn fits_resource(&self, asked: &Attributes<'_>) -> bool {
        if !self.namespaces.is_empty() && !self.namespaces.iter().any(|one| one == asked.namespace) {
            return false;
        }
        self.resources.is_empty() || self.resources.iter().any(|one| one.fit(asked))
    }
}

impl Resources {
    fn fit(&self, asked: &Attributes<'_>) -> bool {
        if self.group != asked.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.resource_names.is_empty() && !self.resource_names.iter().any(|name| name == asked.name) {
            return false;
        }
        let whole = match asked.subresource {
            "" => asked.resource.to_owned(),
            subresource => format!("{}/{subresource}", asked.resource),
        };
        self.resources.iter().any(|one| {
            *one == whole
                || one == "*"
                || one.strip_prefix("*/").is_some_and(|subresource| subresource == asked.subresource)
                || one.strip_suffix("/*").is_some_and(|resource| resource == asked.resource)
        })
    }
}

fn fits_path(path: &str, pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => path.starts_with(start),
        None => path == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: [system:kube-proxy]
  verbs: [watch]
  resources: [{group: '', resources: [endpoints, services, services/status]}]
- level: None
  nonResourceURLs: ['/healthz*', /version]
- level: Request
  resources: [{group: '', resources: [configmaps], resourceNames: [a]}]
  namespaces: [kube-system]
- level: RequestResponse
  resources: [{group: apps}]
  omitStages: [ResponseStarted]
- level: Metadata
  userGroups: [system:authenticated]
";

    #[test]
    fn the_first_rule_that_fits_decides() {
        let policy = Policy::parse(POLICY).expect("a policy");
        let groups = ["system:authenticated".to_owned()];
        let base = Attributes {
            user: "a",
            groups: &groups,
            verb: "get",
            is_resource: true,
            path: "",
            group: "",
            resource: "pods",
            subresource: "",
            namespace: "kube-system",
            name: "a",
        };
        let level = |asked: &Attributes<'_>| policy.decide(asked).0;
        assert_eq!(level(&base), Level::Metadata);
        let proxy = Attributes { user: "system:kube-proxy", verb: "watch", resource: "services", ..base };
        assert_eq!(level(&proxy), Level::None);
        assert_eq!(level(&Attributes { subresource: "status", ..proxy }), Level::None);
        assert_eq!(level(&Attributes { subresource: "scale", ..proxy }), Level::Metadata);
        let path = Attributes { is_resource: false, path: "/healthz/ping", resource: "", ..base };
        assert_eq!(level(&path), Level::None);
        assert_eq!(level(&Attributes { path: "/versions", ..path }), Level::Metadata);
        let map = Attributes { resource: "configmaps", ..base };
        assert_eq!(level(&map), Level::Request);
        assert_eq!(level(&Attributes { name: "b", ..map }), Level::Metadata);
        assert_eq!(level(&Attributes { namespace: "default", ..map }), Level::Metadata);
        let (apps, omitted) = policy.decide(&Attributes { group: "apps", resource: "deployments", ..base });
        assert_eq!((apps, omitted), (Level::RequestResponse, vec!["ResponseStarted", "RequestReceived"]));
        assert_eq!(level(&Attributes { groups: &[], ..base }), Level::None);
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        #[rustfmt::skip]
        let table = [
            ("kind: Policy\napiVersion: audit.k8s.io/v1\nrules: []", "there is no rule"),
            ("kind: Policy\napiVersion: audit.k8s.io/v1beta1\nrules: [{level: None}]", "is not a Policy of audit.k8s.io/v1"),
            ("kind: Policy\napiVersion: audit.k8s.io/v1\nrules: [{level: All}]", "rules[0].level"),
            ("kind: Policy\napiVersion: audit.k8s.io/v1\nrules: [{level: None, omitStages: [X]}]", "rules[0].omitStages"),
            ("kind: Policy\napiVersion: audit.k8s.io/v1\nrules: [{level: None, nope: 1}]", "nope"),
            ("kind: Policy\napiVersion: audit.k8s.io/v1\nomitManagedFields: true\nrules: [{level: None}]", "omitManagedFields"),
        ];
        for (text, expected) in table {
            let error = Policy::parse(text).err().expect("refused").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
