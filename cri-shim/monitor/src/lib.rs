//! corten-monitor
