//! Kubernetes' protobuf to and from JSON, by the field numbers of the schema table.
#![forbid(unsafe_code)]
