//! Kinds that are stored in one version and served in two.
