//! blkio on v1, io on v2: weights and throttling by device.

use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice};

use crate::cgroup::{CgroupError, Controller, Write};

fn write(file: &'static str, value: impl std::fmt::Display) -> Write {
    Write::new(Controller::BlockIo, file, value)
}

/// The four lists of throttles, with their file on v1 and their key on v2.
fn throttles(
    io: &LinuxBlockIo,
) -> impl Iterator<Item = (&'static str, &'static str, LinuxThrottleDevice)> + '_ {
    [
        ("blkio.throttle.read_bps_device", "rbps", io.throttle_read_bps_device()),
        ("blkio.throttle.write_bps_device", "wbps", io.throttle_write_bps_device()),
        ("blkio.throttle.read_iops_device", "riops", io.throttle_read_iops_device()),
        ("blkio.throttle.write_iops_device", "wiops", io.throttle_write_iops_device()),
    ]
    .into_iter()
    .flat_map(|(file, key, list)| list.iter().flatten().map(move |device| (file, key, *device)))
}

fn weight(weight: Option<u16>) -> Result<Option<u16>, CgroupError> {
    match weight.filter(|weight| *weight != 0) {
        Some(weight) if !(10..=1000).contains(&weight) => Err(CgroupError::invalid(
            "linux.resources.blockIO.weight",
            format!("{weight} is outside of 10 to 1000"),
        )),
        weight => Ok(weight),
    }
}

pub fn wanted(io: &LinuxBlockIo) -> bool {
    io.weight().is_some_and(|weight| weight != 0)
        || io.leaf_weight().is_some_and(|weight| weight != 0)
        || io.weight_device().as_ref().is_some_and(|devices| !devices.is_empty())
        || throttles(io).next().is_some()
}

pub fn v1(io: &LinuxBlockIo, bfq: bool) -> Result<Vec<Write>, CgroupError> {
    let (all, each) = if bfq {
        ("blkio.bfq.weight", "blkio.bfq.weight_device")
    } else {
        ("blkio.weight", "blkio.weight_device")
    };
    let mut writes = Vec::new();
    writes.extend(weight(io.weight())?.map(|weight| write(all, weight)));
    writes.extend(weight(io.leaf_weight())?.map(|weight| write("blkio.leaf_weight", weight)));
    for device in io.weight_device().iter().flatten() {
        let number = format!("{}:{}", device.major(), device.minor());
        writes.extend(weight(device.weight())?.map(|weight| write(each, format!("{number} {weight}"))));
        writes.extend(
            weight(device.leaf_weight())?
                .map(|weight| write("blkio.leaf_weight_device", format!("{number} {weight}"))),
        );
    }
    writes.extend(
        throttles(io).map(|(file, _, d)| write(file, format!("{}:{} {}", d.major(), d.minor(), d.rate()))),
    );
    Ok(writes)
}

pub fn v2(io: &LinuxBlockIo, bfq: bool) -> Result<Vec<Write>, CgroupError> {
    let leaf_of_device = io
        .weight_device()
        .iter()
        .flatten()
        .any(|device| weight(device.leaf_weight()).is_ok_and(|w| w.is_some()));
    if weight(io.leaf_weight())?.is_some() || leaf_of_device {
        return Err(CgroupError::invalid(
            "linux.resources.blockIO.leafWeight",
            "cgroup v2 has no leaf weight: remove it, or use cgroup v1",
        ));
    }
    let file = if bfq { "io.bfq.weight" } else { "io.weight" };
    // io.weight goes from 1 to 10000 where the spec goes from 10 to 1000.
    let scale = |weight: u16| if bfq { u64::from(weight) } else { 1 + (u64::from(weight) - 10) * 9999 / 990 };
    let mut writes = Vec::new();
    writes.extend(weight(io.weight())?.map(|weight| write(file, scale(weight))));
    for device in io.weight_device().iter().flatten() {
        let number = format!("{}:{}", device.major(), device.minor());
        writes.extend(
            weight(device.weight())?.map(|weight| write(file, format!("{number} {}", scale(weight)))),
        );
    }
    writes.extend(
        throttles(io)
            .map(|(_, key, d)| write("io.max", format!("{}:{} {key}={}", d.major(), d.minor(), d.rate()))),
    );
    Ok(writes)
}

#[cfg(test)]
mod tests {
    use super::super::shown;
    use super::*;
    use oci_spec::runtime::{LinuxBlockIoBuilder, LinuxThrottleDeviceBuilder, LinuxWeightDeviceBuilder};

    fn sample() -> LinuxBlockIo {
        let throttle = |rate: u64| {
            vec![LinuxThrottleDeviceBuilder::default().major(8).minor(0).rate(rate).build().unwrap()]
        };
        LinuxBlockIoBuilder::default()
            .weight(10u16)
            .weight_device(vec![
                LinuxWeightDeviceBuilder::default().major(8).minor(16).weight(1000u16).build().unwrap(),
            ])
            .throttle_read_bps_device(throttle(1000))
            .throttle_write_bps_device(throttle(2000))
            .throttle_read_iops_device(throttle(3))
            .throttle_write_iops_device(throttle(4))
            .build()
            .unwrap()
    }

    #[test]
    fn v1_files() {
        assert_eq!(
            shown(&v1(&sample(), true).unwrap()),
            [
                "blkio.bfq.weight=10",
                "blkio.bfq.weight_device=8:16 1000",
                "blkio.throttle.read_bps_device=8:0 1000",
                "blkio.throttle.write_bps_device=8:0 2000",
                "blkio.throttle.read_iops_device=8:0 3",
                "blkio.throttle.write_iops_device=8:0 4",
            ]
        );
        assert_eq!(v1(&sample(), false).unwrap()[0].file, "blkio.weight");
    }

    #[test]
    fn v2_files() {
        assert_eq!(
            shown(&v2(&sample(), false).unwrap()),
            [
                "io.weight=1",
                "io.weight=8:16 10000",
                "io.max=8:0 rbps=1000",
                "io.max=8:0 wbps=2000",
                "io.max=8:0 riops=3",
                "io.max=8:0 wiops=4"
            ]
        );
        assert_eq!(
            shown(&v2(&sample(), true).unwrap())[..2],
            ["io.bfq.weight=10", "io.bfq.weight=8:16 1000"]
        );
    }

    #[test]
    fn out_of_range_and_leaf_weight() {
        let bad = LinuxBlockIoBuilder::default().weight(5u16).build().unwrap();
        assert!(v1(&bad, false).unwrap_err().to_string().contains("10 to 1000"));
        let leaf = LinuxBlockIoBuilder::default().leaf_weight(50u16).build().unwrap();
        assert_eq!(shown(&v1(&leaf, false).unwrap()), ["blkio.leaf_weight=50"]);
        assert!(v2(&leaf, false).is_err());
    }
}
