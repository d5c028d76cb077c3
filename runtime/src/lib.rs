//! corten-runtime
