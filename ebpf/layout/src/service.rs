//! Maps of the cgroup programs: services, backends, affinity, reverse translation.
