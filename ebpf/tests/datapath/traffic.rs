//! Real traffic between nodes.
