//! Who owns whom. Pure: events in, objects to judge out.

use std::collections::{HashMap, HashSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

pub type Uid = String;

/// Which kind of object: as owner references name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Kind {
    pub api_version: String,
    pub kind: String,
}

#[derive(Debug, Clone)]
pub struct Node {
    pub kind: Kind,
    pub namespace: Option<String>,
    pub name: String,
    pub owners: Vec<OwnerReference>,
    /// It is being deleted, and waits for its dependents.
    pub waits_for_dependents: bool,
    /// It is being deleted, and its dependents are to stay.
    pub orphans: bool,
    pub deleting: bool,
}

#[derive(Debug, Default)]
pub struct Graph {
    nodes: HashMap<Uid, Node>,
    dependents: HashMap<Uid, HashSet<Uid>>,
}

pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";

impl Node {
    /// `None`: it has no uid or no name, as no stored object has.
    pub fn of(kind: Kind, meta: &ObjectMeta) -> Option<(Uid, Self)> {
        let deleting = meta.deletion_timestamp.is_some();
        let has = |finalizer: &str| deleting && meta.finalizers.iter().flatten().any(|one| one == finalizer);
        let node = Self {
            kind,
            namespace: meta.namespace.clone(),
            name: meta.name.clone()?,
            owners: meta.owner_references.clone().unwrap_or_default(),
            waits_for_dependents: has(FOREGROUND),
            orphans: has(ORPHAN),
            deleting,
        };
        Some((meta.uid.clone()?, node))
    }

    pub fn blocks(&self, owner: &Uid) -> bool {
        self.owners.iter().any(|one| one.uid == *owner && one.block_owner_deletion == Some(true))
    }
}

impl Graph {
    /// An object is there, or has changed; whom to judge.
    pub fn put(&mut self, uid: Uid, node: Node) -> Vec<Uid> {
        let mut judge = Vec::new();
        let old = self.nodes.get(&uid);
        let had: HashSet<_> =
            old.into_iter().flat_map(|old| &old.owners).map(|owner| owner.uid.clone()).collect();
        let has: HashSet<_> = node.owners.iter().map(|owner| owner.uid.clone()).collect();
        let blocked_less = old.is_some_and(|old| {
            old.owners.iter().any(|owner| old.blocks(&owner.uid) && !node.blocks(&owner.uid))
        });
        for gone in had.difference(&has) {
            self.disown(gone, &uid);
        }
        for owner in &has {
            self.dependents.entry(owner.clone()).or_default().insert(uid.clone());
        }
        // An owner that waits may be free now.
        let left = had.difference(&has).chain(had.iter().filter(|_| blocked_less));
        judge.extend(left.filter(|owner| self.waits(owner)).cloned());
        if !has.is_empty() || node.waits_for_dependents || node.orphans {
            judge.push(uid.clone());
        }
        // Dependents of one that begins to wait are judged with it.
        self.nodes.insert(uid, node);
        judge
    }

    /// An object is gone; whom to judge.
    pub fn remove(&mut self, uid: &Uid) -> Vec<Uid> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        let mut judge: Vec<Uid> = Vec::new();
        for owner in &node.owners {
            self.disown(&owner.uid, uid);
            if self.waits(&owner.uid) {
                judge.push(owner.uid.clone());
            }
        }
        judge.extend(self.dependents.get(uid).into_iter().flatten().cloned());
        judge
    }

    fn disown(&mut self, owner: &Uid, dependent: &Uid) {
        if let Some(all) = self.dependents.get_mut(owner) {
            all.remove(dependent);
            if all.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }

    fn waits(&self, uid: &Uid) -> bool {
        self.nodes.get(uid).is_some_and(|node| node.waits_for_dependents)
    }

    pub fn get(&self, uid: &Uid) -> Option<&Node> {
        self.nodes.get(uid)
    }

    pub fn dependents(&self, uid: &Uid) -> impl Iterator<Item = (&Uid, &Node)> {
        let all = self.dependents.get(uid).into_iter().flatten();
        all.filter_map(|uid| Some((uid, self.nodes.get(uid)?)))
    }

    /// All of a kind: what a list no longer has is gone.
    pub fn of_kind(&self, kind: &Kind) -> Vec<Uid> {
        self.nodes.iter().filter(|(_, node)| node.kind == *kind).map(|(uid, _)| uid.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, owners: &[(&str, bool)]) -> Node {
        let owner = |(uid, blocks): &(&str, bool)| OwnerReference {
            uid: (*uid).to_owned(),
            block_owner_deletion: Some(*blocks),
            ..OwnerReference::default()
        };
        Node {
            kind: Kind { api_version: "v1".into(), kind: "ConfigMap".into() },
            namespace: Some("default".into()),
            name: name.into(),
            owners: owners.iter().map(owner).collect(),
            waits_for_dependents: false,
            orphans: false,
            deleting: false,
        }
    }

    #[test]
    fn dependents_are_judged_when_their_owner_goes() {
        let mut graph = Graph::default();
        assert!(graph.put("o".into(), node("o", &[])).is_empty());
        assert_eq!(graph.put("d".into(), node("d", &[("o", true)])), ["d"]);
        assert_eq!(graph.dependents(&"o".into()).count(), 1);
        assert_eq!(graph.remove(&"o".into()), ["d"]);
    }

    #[test]
    fn an_owner_that_waits_is_judged_when_a_dependent_goes_or_blocks_no_more() {
        let mut graph = Graph::default();
        let waiting = Node { waits_for_dependents: true, deleting: true, ..node("o", &[]) };
        assert_eq!(graph.put("o".into(), waiting), ["o"]);
        graph.put("d".into(), node("d", &[("o", true)]));
        let mut judged = graph.put("d".into(), node("d", &[("o", false)]));
        judged.sort();
        assert_eq!(judged, ["d", "o"]);
        assert_eq!(graph.put("d".into(), node("d", &[])), ["o"]);
        graph.put("e".into(), node("e", &[("o", true)]));
        assert_eq!(graph.remove(&"e".into()), ["o"]);
    }
}
