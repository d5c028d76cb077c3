//! corten-kubelet
