//! hugetlb: a limit for each page size, and the same on reservations where the kernel counts those (5.7).

use oci_spec::runtime::LinuxHugepageLimit;

use crate::cgroup::{CgroupError, Controller, Version, Write};

pub fn writes(limit: &LinuxHugepageLimit, version: Version) -> Result<[Write; 2], CgroupError> {
    let size = limit.page_size();
    // It becomes part of a file name.
    if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(CgroupError::invalid(
            "linux.resources.hugepageLimits.pageSize",
            format!("{size:?} is not a size such as 2MB"),
        ));
    }
    let file = match version {
        Version::V1 => "limit_in_bytes",
        Version::V2 => "max",
    };
    let value = match (limit.limit(), version) {
        (..0, Version::V2) => "max".to_owned(),
        (bytes, _) => bytes.to_string(),
    };
    Ok([
        Write::new(Controller::Hugetlb, format!("hugetlb.{size}.{file}"), &value),
        Write::new(Controller::Hugetlb, format!("hugetlb.{size}.rsvd.{file}"), &value).skip_missing(),
    ])
}

#[cfg(test)]
mod tests {
    use super::super::shown;
    use super::*;
    use oci_spec::runtime::LinuxHugepageLimitBuilder;

    #[test]
    fn both_versions_and_a_hostile_size() {
        let limit =
            |size: &str| LinuxHugepageLimitBuilder::default().page_size(size).limit(4096).build().unwrap();
        assert_eq!(
            shown(&writes(&limit("2MB"), Version::V1).unwrap()),
            ["hugetlb.2MB.limit_in_bytes=4096", "hugetlb.2MB.rsvd.limit_in_bytes=4096"]
        );
        assert_eq!(
            shown(&writes(&limit("1GB"), Version::V2).unwrap()),
            ["hugetlb.1GB.max=4096", "hugetlb.1GB.rsvd.max=4096"]
        );
        for bad in ["", "../../x", "2M.B"] {
            assert!(writes(&limit(bad), Version::V1).is_err(), "{bad}");
        }
    }
}
