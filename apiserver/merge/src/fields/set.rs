//! A set of paths, as a tree whose branches are sorted.

use std::cmp::Ordering;

use super::{Element, Path};

/// Owning a field does not mean to own what is in it, nor the other way round: `.spec` and `.spec.replicas` are two
/// members.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    /// Sorted by element; each is a member or has some below.
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub element: Element,
    pub member: bool,
    pub below: Set,
}

impl Set {
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(crate) fn nodes_mut(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    /// Of nodes in any order; no element twice.
    pub(crate) fn of(mut nodes: Vec<Node>) -> Self {
        nodes.retain(|node| node.member || !node.below.is_empty());
        if !nodes.is_sorted_by(|a, b| a.element < b.element) {
            nodes.sort_by(|a, b| a.element.cmp(&b.element));
        }
        Self { nodes }
    }

    pub fn insert(&mut self, path: &[Element]) {
        let Some((first, rest)) = path.split_first() else { return };
        let place = match self.nodes.binary_search_by(|node| node.element.cmp(first)) {
            Ok(place) => place,
            Err(place) => {
                self.nodes
                    .insert(place, Node { element: first.clone(), member: false, below: Self::default() });
                place
            }
        };
        match rest {
            [] => self.nodes[place].member = true,
            rest => self.nodes[place].below.insert(rest),
        }
    }

    pub(crate) fn node(&self, element: &Element) -> Option<&Node> {
        let place = self.nodes.binary_search_by(|node| node.element.cmp(element)).ok()?;
        Some(&self.nodes[place])
    }

    /// The named field.
    pub(crate) fn field(&self, name: &str) -> Option<&Node> {
        let place = self
            .nodes
            .binary_search_by(|node| match &node.element {
                Element::Field(field) => field.as_str().cmp(name),
                _ => Ordering::Greater,
            })
            .ok()?;
        Some(&self.nodes[place])
    }

    pub fn contains(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [last] => self.node(last).is_some_and(|node| node.member),
            [first, rest @ ..] => self.node(first).is_some_and(|node| node.below.contains(rest)),
        }
    }

    pub fn is_subset(&self, other: &Self) -> bool {
        self.nodes.iter().all(|node| {
            other
                .node(&node.element)
                .is_some_and(|theirs| (!node.member || theirs.member) && node.below.is_subset(&theirs.below))
        })
    }

    #[must_use]
    pub fn union(mut self, other: Self) -> Self {
        if other.is_empty() {
            return self;
        }
        if self.is_empty() {
            return other;
        }
        let mut nodes = Vec::with_capacity(self.nodes.len().max(other.nodes.len()));
        let mut ours = self.nodes.drain(..).peekable();
        for theirs in other.nodes {
            while let Some(node) = ours.next_if(|node| node.element < theirs.element) {
                nodes.push(node);
            }
            match ours.next_if(|node| node.element == theirs.element) {
                None => nodes.push(theirs),
                Some(node) => nodes.push(Node {
                    member: node.member || theirs.member,
                    below: node.below.union(theirs.below),
                    element: node.element,
                }),
            }
        }
        nodes.extend(ours);
        Self { nodes }
    }

    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let nodes = self.nodes.iter().filter_map(|node| {
            let theirs = other.node(&node.element)?;
            let member = node.member && theirs.member;
            let below = node.below.intersection(&theirs.below);
            (member || !below.is_empty()).then(|| Node { element: node.element.clone(), member, below })
        });
        Self { nodes: nodes.collect() }
    }

    /// Takes out the members of `other`, not what is below them.
    pub fn subtract(&mut self, other: &Self) {
        if other.is_empty() {
            return;
        }
        self.nodes.retain_mut(|node| {
            if let Some(theirs) = other.node(&node.element) {
                node.member &= !theirs.member;
                node.below.subtract(&theirs.below);
            }
            node.member || !node.below.is_empty()
        });
    }

    /// Takes out the members of `other` with all that is below them.
    pub fn subtract_trees(&mut self, other: &Self) {
        if other.is_empty() {
            return;
        }
        self.nodes.retain_mut(|node| match other.node(&node.element) {
            None => true,
            Some(theirs) if theirs.member => false,
            Some(theirs) => {
                node.below.subtract_trees(&theirs.below);
                node.member || !node.below.is_empty()
            }
        });
    }

    /// The members, those of a level before what is below them.
    pub fn paths(&self) -> Vec<Path> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect(&self, prefix: &mut Vec<Element>, paths: &mut Vec<Path>) {
        for node in self.nodes.iter().filter(|node| node.member) {
            prefix.push(node.element.clone());
            paths.push(Path(prefix.clone()));
            prefix.pop();
        }
        for node in self.nodes.iter().filter(|node| !node.below.is_empty()) {
            prefix.push(node.element.clone());
            node.below.collect(prefix, paths);
            prefix.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(paths: &[&str]) -> Set {
        let mut set = Set::default();
        for path in paths {
            set.insert(&path.split('.').map(Element::field).collect::<Vec<_>>());
        }
        set
    }

    fn print(set: &Set) -> Vec<String> {
        set.paths().iter().map(|path| path.to_string()[1..].to_owned()).collect()
    }

    #[test]
    fn a_parent_and_its_child_are_two_members() {
        let mut both = set(&["a", "a.b", "a.c.d"]);
        assert_eq!(print(&both), ["a", "a.b", "a.c.d"]);
        both.subtract(&set(&["a"]));
        assert_eq!(print(&both), ["a.b", "a.c.d"]);
        both.subtract_trees(&set(&["a.c"]));
        assert_eq!(print(&both), ["a.b"]);
        both.subtract_trees(&set(&["a"]));
        assert!(both.is_empty());
    }

    #[test]
    fn the_algebra_of_sets() {
        let (a, b) = (set(&["a", "b.c", "b.d", "e"]), set(&["b", "b.d", "e", "f"]));
        assert_eq!(print(&a.clone().union(b.clone())), ["a", "b", "e", "f", "b.c", "b.d"]);
        assert_eq!(print(&a.intersection(&b)), ["e", "b.d"]);
        let mut difference = a.clone();
        difference.subtract(&b);
        assert_eq!(print(&difference), ["a", "b.c"]);
        assert!(a.intersection(&b).is_subset(&a) && !a.is_subset(&b));
        assert!(
            a.contains(&[Element::field("b"), Element::field("c")]) && !a.contains(&[Element::field("b")])
        );
    }
}
