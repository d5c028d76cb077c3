//! Where the list of nodes comes from: a file, an apiserver, etcd.
