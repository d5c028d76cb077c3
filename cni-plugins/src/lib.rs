//! corten-cni
