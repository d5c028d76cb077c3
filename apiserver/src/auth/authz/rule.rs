//! A rule of a role: what it allows, and whether rules cover others. Pure.
//! Source: kubernetes `pkg/apis/rbac/v1/evaluation_helpers.go`, component-helpers `auth/rbac/validation`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::auth::Attributes;

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Rule {
    pub verbs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", rename = "nonResourceURLs")]
    pub non_resource_urls: Vec<String>,
}

fn has(list: &[String], one: &str) -> bool {
    list.iter().any(|item| item == one)
}

fn has_or_star(list: &[String], one: &str) -> bool {
    list.iter().any(|item| item == "*" || item == one)
}

fn has_all(list: &[String], all: &[String]) -> bool {
    all.iter().all(|one| has(list, one))
}

/// `/healthz/*` covers `/healthz/ping`.
fn url_covers(pattern: &str, url: &str) -> bool {
    pattern == url || (pattern.ends_with('*') && url.starts_with(pattern.trim_end_matches('*')))
}

impl Rule {
    pub fn allows(&self, attributes: &Attributes) -> bool {
        if !has_or_star(&self.verbs, &attributes.verb) {
            return false;
        }
        if attributes.resource.is_empty() {
            return self.non_resource_urls.iter().any(|pattern| url_covers(pattern, &attributes.path));
        }
        has_or_star(&self.api_groups, &attributes.group)
            && self.allows_resource(&attributes.resource, &attributes.subresource)
            && (self.resource_names.is_empty() || has(&self.resource_names, &attributes.name))
    }

    fn allows_resource(&self, resource: &str, subresource: &str) -> bool {
        self.resources.iter().any(|rule| {
            rule == "*"
                || match (subresource, rule.split_once('/')) {
                    // A resource whose name has a slash is asked for in a review only.
                    ("", _) => rule == resource,
                    (_, None) => false,
                    (_, Some((of, sub))) => sub == subresource && (of == "*" || of == resource),
                }
        })
    }

    /// Rules of one verb and one thing each that are this one together.
    fn parts(&self) -> Vec<Self> {
        let one = |text: &String| vec![text.clone()];
        let mut parts = Vec::new();
        for group in &self.api_groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    let part = Self {
                        verbs: one(verb),
                        api_groups: one(group),
                        resources: one(resource),
                        ..Self::default()
                    };
                    if self.resource_names.is_empty() {
                        parts.push(part);
                        continue;
                    }
                    let names = self.resource_names.iter();
                    parts.extend(names.map(|name| Self { resource_names: one(name), ..part.clone() }));
                }
            }
        }
        for url in &self.non_resource_urls {
            for verb in &self.verbs {
                parts.push(Self { verbs: one(verb), non_resource_urls: one(url), ..Self::default() });
            }
        }
        parts
    }

    /// `part` is one of [`Rule::parts`].
    fn covers(&self, part: &Self) -> bool {
        let verbs = has(&self.verbs, "*") || has_all(&self.verbs, &part.verbs);
        let groups = has(&self.api_groups, "*") || has_all(&self.api_groups, &part.api_groups);
        let resources = has(&self.resources, "*")
            || part.resources.iter().all(|resource| {
                has(&self.resources, resource)
                    || resource
                        .split_once('/')
                        .is_some_and(|(_, subresource)| has(&self.resources, &format!("*/{subresource}")))
            });
        let names = self.resource_names.is_empty()
            || (!part.resource_names.is_empty() && has_all(&self.resource_names, &part.resource_names));
        let covered = |url: &String| self.non_resource_urls.iter().any(|pattern| url_covers(pattern, url));
        verbs && groups && resources && names && part.non_resource_urls.iter().all(covered)
    }

    /// As messages of denied escalations have it.
    fn shown(&self) -> String {
        let mut parts = Vec::new();
        for (name, list) in [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ] {
            if !list.is_empty() {
                parts.push(format!("{name}:{}", go_list(list)));
            }
        }
        format!("{{{}}}", parts.join(", "))
    }
}

/// As Go's `%q` of a list of strings.
pub fn go_list(list: &[String]) -> String {
    let quoted: Vec<String> =
        list.iter().map(|one| serde_json::Value::from(one.as_str()).to_string()).collect();
    format!("[{}]", quoted.join(" "))
}

/// The parts of `wanted` that `held` does not cover.
pub fn missing(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let parts = wanted.iter().flat_map(Rule::parts);
    parts.filter(|part| !held.iter().any(|rule| rule.covers(part))).collect()
}

/// One line a thing, with all its verbs; sorted.
pub fn shown_compactly(rules: &[Rule]) -> String {
    let mut compact: Vec<Rule> = Vec::new();
    for rule in rules {
        let simple = rule.non_resource_urls.is_empty();
        let same = |other: &&mut Rule| {
            other.api_groups == rule.api_groups
                && other.resources == rule.resources
                && other.resource_names == rule.resource_names
                && other.non_resource_urls.is_empty()
        };
        match compact.iter_mut().find(same).filter(|_| simple) {
            Some(other) => other.verbs.extend(rule.verbs.iter().cloned()),
            None => compact.push(rule.clone()),
        }
    }
    let lines: BTreeSet<String> = compact.iter().map(Rule::shown).collect();
    lines.into_iter().collect::<Vec<_>>().join("\n")
}
