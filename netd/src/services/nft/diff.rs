//! What must change for the table to hold what it should: pure, and one transaction.

use std::collections::BTreeMap;

use corten_netlink::nft::{Batch, Chain as NewChain, Element, Rule};

use super::{Chain, Content, TABLE};

/// A difference that can be made without taking the table away.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Difference {
    pub new_chains: Vec<String>,
    pub new_sets: Vec<String>,
    /// Chains whose rules are written anew, new ones included.
    pub rules: Vec<String>,
    /// Set, elements to delete, elements to add.
    pub elements: Vec<(String, Vec<Element>, Vec<Element>)>,
    pub gone_chains: Vec<String>,
    pub gone_sets: Vec<String>,
}

/// How to get from what is to what should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// `None`: there is no table. Else what is there cannot become what should be: hooks and the shape of sets are fixed
    /// when they are made. `exists`: there is a table to delete.
    Rebuild {
        exists: bool,
    },
    Update(Difference),
}

impl Change {
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Update(difference) if *difference == Difference::default())
    }

    /// Elements deleted and added.
    pub fn elements(&self, desired: &Content) -> usize {
        match self {
            Self::Rebuild { .. } => desired.sets.values().map(|set| set.elements.len()).sum(),
            Self::Update(difference) => {
                difference.elements.iter().map(|(_, gone, new)| gone.len() + new.len()).sum()
            }
        }
    }
}

pub fn diff(desired: &Content, actual: &Content) -> Change {
    let hooks_differ = desired.chains.iter().any(|(name, chain)| match actual.chains.get(name) {
        Some(found) => found.base != chain.base,
        None => false,
    });
    let shapes_differ = desired
        .sets
        .iter()
        .any(|(name, set)| actual.sets.get(name).is_some_and(|found| found.shape != set.shape));
    if hooks_differ || shapes_differ {
        return Change::Rebuild { exists: true };
    }
    let names = |of: Vec<&String>| of.into_iter().cloned().collect::<Vec<_>>();
    let rules = desired.chains.iter().filter(|(name, chain)| {
        let found = actual.chains.get(*name);
        found.is_none_or(|found| found.rules != chain.rules)
    });
    let elements = desired.sets.iter().filter_map(|(name, set)| {
        let found = actual.sets.get(name).map_or(&[][..], |found| &found.elements);
        let (gone, new) = compare(&set.elements, found);
        (!gone.is_empty() || !new.is_empty()).then(|| (name.clone(), gone, new))
    });
    Change::Update(Difference {
        new_chains: names(missing(&desired.chains, &actual.chains)),
        new_sets: names(missing(&desired.sets, &actual.sets)),
        rules: rules.map(|(name, _)| name.clone()).collect(),
        elements: elements.collect(),
        gone_chains: names(missing(&actual.chains, &desired.chains)),
        gone_sets: names(missing(&actual.sets, &desired.sets)),
    })
}

/// The names in `of` that `from` lacks.
fn missing<'a, A, B>(of: &'a BTreeMap<String, A>, from: &BTreeMap<String, B>) -> Vec<&'a String> {
    of.keys().filter(|name| !from.contains_key(*name)).collect()
}

/// (to delete, to add); both slices are sorted.
fn compare(desired: &[Element], actual: &[Element]) -> (Vec<Element>, Vec<Element>) {
    let (mut gone, mut new) = (Vec::new(), Vec::new());
    let (mut desired, mut actual) = (desired.iter().peekable(), actual.iter().peekable());
    loop {
        match (desired.peek(), actual.peek()) {
            (Some(wanted), Some(found)) if wanted == found => {
                desired.next();
                actual.next();
            }
            (Some(wanted), Some(found)) if wanted > found => gone.extend(actual.next().cloned()),
            (Some(_), _) => new.extend(desired.next().cloned()),
            (None, Some(_)) => gone.extend(actual.next().cloned()),
            (None, None) => return (gone, new),
        }
    }
}

/// The transaction. What refers comes after what it refers to, and goes before it.
pub fn batch(change: &Change, desired: &Content) -> Batch {
    let mut batch = Batch::new();
    let difference = match change {
        Change::Update(difference) => difference.clone(),
        Change::Rebuild { exists } => {
            if *exists {
                batch.delete_table(TABLE);
            }
            batch.add_table(
                TABLE,
                Some("Services of this node; made by corten-netd, which removes what is not its own"),
            );
            match diff(desired, &Content::default()) {
                Change::Update(difference) => difference,
                Change::Rebuild { .. } => unreachable!("nothing in an empty table can differ"),
            }
        }
    };
    for name in &difference.new_chains {
        let base = desired.chains[name].base;
        batch.add_chain(TABLE, &NewChain { name, base, comment: None });
    }
    for name in &difference.new_sets {
        batch.add_set(TABLE, &desired.sets[name].shape.set(name));
    }
    for (set, gone, _) in &difference.elements {
        batch.delete_elements(TABLE, set, gone);
    }
    for name in &difference.rules {
        if !difference.new_chains.contains(name) {
            batch.flush_chain(TABLE, name);
        }
        let Chain { rules, .. } = &desired.chains[name];
        for expressions in rules {
            let rule = Rule { expressions: expressions.clone(), comment: None, tag: None };
            batch.add_rule(TABLE, name, &rule);
        }
    }
    for (set, _, new) in &difference.elements {
        batch.add_elements(TABLE, set, new);
    }
    for name in &difference.gone_chains {
        batch.flush_chain(TABLE, name);
    }
    for name in &difference.gone_sets {
        batch.delete_set(TABLE, name);
    }
    for name in &difference.gone_chains {
        batch.delete_chain(TABLE, name);
    }
    batch
}
