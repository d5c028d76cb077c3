//! What a write cannot change: the status through the main path, the spec through `status`.

use crate::fields::{Element, Node, Set};

#[derive(Debug, Clone, Default)]
pub enum Ignored {
    #[default]
    Nothing,
    /// These fields and what is below them.
    Below(Set),
    /// All but what these lead to; `*` is any step.
    AllBut(&'static [&'static [&'static str]]),
}

impl Ignored {
    /// `main_has_status`: the kind has a `status` subresource. Source: GetResetFields of upstream's strategies.
    pub fn of(group: &str, kind: &str, subresource: &str, main_has_status: bool, is_custom: bool) -> Self {
        let whole_metadata = is_custom
            || matches!(
                (group, kind),
                (
                    "admissionregistration.k8s.io"
                        | "flowcontrol.apiserver.k8s.io"
                        | "internal.apiserver.k8s.io"
                        | "resource.k8s.io"
                        | "storagemigration.k8s.io",
                    _
                ) | ("networking.k8s.io", "ServiceCIDR")
                    | ("scheduling.k8s.io", "PodGroup")
                    | ("storage.k8s.io", "VolumeAttachment")
            );
        match (group, kind, subresource) {
            ("certificates.k8s.io", "CertificateSigningRequest", "") => Self::below(&["spec", "status"]),
            ("certificates.k8s.io", "CertificateSigningRequest", "status") => {
                Self::below(&["spec", "status.conditions"])
            }
            ("certificates.k8s.io", "CertificateSigningRequest", "approval") => {
                Self::below(&["spec", "status.certificate"])
            }
            ("", "Namespace", "finalize") => Self::below(&["status"]),
            ("", "Pod", "status") => {
                Self::below(&["spec", "metadata.deletionTimestamp", "metadata.ownerReferences"])
            }
            ("", "Pod", "ephemeralcontainers") => Self::AllBut(&[&["spec", "ephemeralContainers"]]),
            ("", "Pod", "resize") => Self::AllBut(&[
                &["spec", "containers", "*", "resources"],
                &["spec", "containers", "*", "resizePolicy"],
                &["spec", "initContainers", "*", "resources"],
                &["spec", "initContainers", "*", "resizePolicy"],
            ]),
            ("apps", "Deployment", "status") => Self::below(&["spec", "metadata.labels"]),
            (_, _, "status") if whole_metadata => Self::below(&["metadata", "spec"]),
            (_, _, "status") => Self::below(&["spec"]),
            (_, _, "") if main_has_status => Self::below(&["status"]),
            _ => Self::Nothing,
        }
    }

    fn below(paths: &[&str]) -> Self {
        let mut set = Set::default();
        for path in paths {
            set.insert(&path.split('.').map(Element::field).collect::<Vec<_>>());
        }
        Self::Below(set)
    }

    pub(crate) fn filter(&self, set: &mut Set) {
        match self {
            Self::Nothing => {}
            Self::Below(ignored) => set.subtract_trees(ignored),
            Self::AllBut(patterns) => *set = include(set, patterns),
        }
    }
}

fn include(set: &Set, patterns: &[&[&str]]) -> Set {
    let nodes = set.nodes().iter().filter_map(|node| {
        let matches =
            |step: &str| step == "*" || matches!(&node.element, Element::Field(name) if name == step);
        let rest: Vec<&[&str]> =
            patterns.iter().filter(|pattern| matches(pattern[0])).map(|pattern| &pattern[1..]).collect();
        if rest.is_empty() {
            return None;
        }
        let below = if rest.iter().any(|pattern| pattern.is_empty()) {
            node.below.clone()
        } else {
            include(&node.below, &rest)
        };
        Some(Node { element: node.element.clone(), member: node.member, below })
    });
    Set::of(nodes.collect())
}
