//! rdma: handles and objects of each host channel adapter, the same file in both versions.

use std::collections::HashMap;

use oci_spec::runtime::LinuxRdma;

use crate::cgroup::{Controller, Write};

pub fn writes(limits: &HashMap<String, LinuxRdma>) -> Vec<Write> {
    let mut devices: Vec<_> = limits.iter().collect();
    devices.sort_by_key(|(name, _)| *name);
    let line = |(name, limit): (&String, &LinuxRdma)| {
        let handles = limit.hca_handles().map(|count| format!(" hca_handle={count}"));
        let objects = limit.hca_objects().map(|count| format!(" hca_object={count}"));
        format!("{name}{}{}", handles.unwrap_or_default(), objects.unwrap_or_default())
    };
    devices.into_iter().map(|device| Write::new(Controller::Rdma, "rdma.max", line(device))).collect()
}

#[test]
fn one_line_a_device() {
    let mut limit = oci_spec::runtime::LinuxRdmaBuilder::default();
    limit = limit.hca_handles(2u32).hca_objects(2000u32);
    let limits = HashMap::from([("mlx5_1".to_owned(), limit.build().unwrap())]);
    assert_eq!(super::shown(&writes(&limits)), ["rdma.max=mlx5_1 hca_handle=2 hca_object=2000"]);
}
