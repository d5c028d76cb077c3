//! net_cls and net_prio: cgroup v1 alone has them.

use oci_spec::runtime::LinuxNetwork;

use crate::cgroup::{Controller, Write};

pub fn v1(network: &LinuxNetwork) -> Vec<Write> {
    let class = network.class_id().filter(|class| *class != 0);
    let class = class.map(|class| Write::new(Controller::Network, "net_cls.classid", class));
    let priorities = network.priorities().iter().flatten().map(|interface| {
        Write::new(
            Controller::NetworkPriority,
            "net_prio.ifpriomap",
            format!("{} {}", interface.name(), interface.priority()),
        )
    });
    class.into_iter().chain(priorities).collect()
}

#[cfg(test)]
mod tests {
    use super::super::shown;
    use super::*;
    use oci_spec::runtime::{LinuxInterfacePriorityBuilder, LinuxNetworkBuilder};

    #[test]
    fn class_and_priorities() {
        let eth0 = LinuxInterfacePriorityBuilder::default().name("eth0").priority(5u32).build().unwrap();
        let network =
            LinuxNetworkBuilder::default().class_id(0x10_0001u32).priorities(vec![eth0]).build().unwrap();
        assert_eq!(shown(&v1(&network)), ["net_cls.classid=1048577", "net_prio.ifpriomap=eth0 5"]);
        assert!(v1(&LinuxNetwork::default()).is_empty());
    }
}
