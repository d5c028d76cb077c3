//! corten-netlink
