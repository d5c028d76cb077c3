//! Which sysctls a Pod may set: those known to be namespaced and to harm nobody outside of the Pod.
//! Source: upstream `sysctl/safe_sysctls.go`.

const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Both `a.b` and `a/b` name the same sysctl.
pub fn is_safe(name: &str) -> bool {
    SAFE.contains(&name.replace('/', ".").as_str())
}
pub fn needs_own_network(name: &str) -> bool {
    name.replace('/', ".").starts_with("net.")
}
pub fn needs_own_ipc(name: &str) -> bool {
    name.replace('/', ".").starts_with("kernel.shm")
}
