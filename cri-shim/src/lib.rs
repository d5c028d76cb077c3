//! corten-cri
