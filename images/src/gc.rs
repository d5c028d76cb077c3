//! What nothing refers to any more. Pure: sets in, sets out.

use std::collections::BTreeSet;

use crate::digest::Digest;

/// What keeps layers (by chain id) and blobs (by digest) alive.
#[derive(Debug, Default)]
pub struct Roots {
    /// Of image records, of container snapshots, and of pulls in flight.
    pub layers: BTreeSet<Digest>,
    pub blobs: BTreeSet<Digest>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Garbage {
    pub layers: Vec<Digest>,
    pub blobs: Vec<Digest>,
}

pub fn garbage(
    roots: &Roots,
    layers: impl IntoIterator<Item = Digest>,
    blobs: impl IntoIterator<Item = Digest>,
) -> Garbage {
    Garbage {
        layers: layers.into_iter().filter(|layer| !roots.layers.contains(layer)).collect(),
        blobs: blobs.into_iter().filter(|blob| !roots.blobs.contains(blob)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_root_stays() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|text| Digest::of(text));
        let roots = Roots { layers: [a].into(), blobs: [b].into() };
        let found = garbage(&roots, [a, b], [b, c]);
        assert_eq!(found, Garbage { layers: vec![b], blobs: vec![c] });
        assert_eq!(garbage(&roots, [a], [b]), Garbage::default());
    }
}
