//! `corten-apiserver`: the Kubernetes API over a [`corten_store::Store`], one implementation of each verb for all kinds.
//!
//! What is known of kinds lies in the table of [`corten_schema`]; what is special about a few of them in [`kinds`].
//! Objects at rest are JSON bytes without a resourceVersion, which is put in on the way out ([`object`]).
#![forbid(unsafe_code)]

pub mod admission;
pub mod api;
pub mod audit;
pub mod auth;
pub mod connect;
pub mod controllers;
pub mod crd;
pub mod decode;
pub mod deletion;
pub mod export;
pub mod fresh;
pub mod hooks;
pub mod http;
pub mod kinds;
pub mod kubeconfig;
pub mod leases;
pub mod managed;
pub mod meta;
pub mod names;
pub mod object;
pub mod options;
pub mod pages;
pub mod pki;
pub mod registry;
pub mod request;
pub mod select;
pub mod server;
pub mod snapshot;
pub mod status;
pub mod stored;
pub mod subresources;
pub mod table;
pub mod verbs;
pub mod watch;
pub mod write;
