//! A client of etcd's v3 API: ranges, transactions, leases, watches. Used by corten-netd and corten-apiserver.
#![forbid(unsafe_code)]
