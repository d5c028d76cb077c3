//! The tc programs `from_pod` and `from_nic`: loading, attaching by tcx or clsact, pinned links.
