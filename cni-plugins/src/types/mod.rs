//! Results of every CNI version, and the conversions between them.
//!
//! Plugins work with [`CniResult`], the newest shape. A file per older shape converts from and to it:
//! [`v1_0`] (1.0.0, 1.1.0), [`v0_3`] (0.3.0 to 0.4.0), [`v0_1`] (0.1.0, 0.2.0).

mod text;
mod v0_1;
mod v0_3;
mod v1_0;
mod version;

use serde_json::Value;

use crate::Result;
use crate::error::{Code, Error};

pub use v1_0::{CniResult, Dns, Interface, IpConfig, Route};
pub use version::Version;

/// Reads a result of whatever version it says; without one, of the configuration's.
pub fn parse(value: &Value, of_config: Version) -> Result<CniResult> {
    let version = match value.get("cniVersion").and_then(Value::as_str) {
        Some(text) if !text.is_empty() => Version::parse(text)?,
        _ => of_config,
    };
    let parsed = match version {
        Version::V0_1_0 | Version::V0_2_0 => v0_1::parse(value),
        Version::V0_3_0 | Version::V0_3_1 | Version::V0_4_0 => v0_3::parse(value),
        Version::V1_0_0 | Version::V1_1_0 => v1_0::parse(value),
    };
    parsed.map_err(|e| Error::new(Code::Decoding, format!("result of CNI version {}: {e}", version.text())))
}

/// Writes a result in the shape of `version`.
pub fn render(result: &CniResult, version: Version) -> Result<Value> {
    let rendered = match version {
        Version::V0_1_0 | Version::V0_2_0 => v0_1::render(result)?,
        Version::V0_3_0 | Version::V0_3_1 | Version::V0_4_0 => v0_3::render(result),
        Version::V1_0_0 | Version::V1_1_0 => v1_0::render(result),
    };
    Ok(with_version(rendered, version))
}

/// prevResult as a chained plugin passes it on: every field it has, also those unknown to us. Only a prevResult of
/// another version than the configuration's is converted, and then loses what the other version has no place for.
pub fn echo(prev_result: &Value, of_config: Version) -> Result<Value> {
    let same = |version: Version| Ok(with_version(prev_result.clone(), version));
    match prev_result.get("cniVersion").and_then(Value::as_str) {
        None | Some("") => same(of_config),
        Some(text) if Version::parse(text)?.same_shape(of_config) => same(of_config),
        Some(_) => render(&parse(prev_result, of_config)?, of_config),
    }
}

fn with_version(mut result: Value, version: Version) -> Value {
    if let Value::Object(object) = &mut result {
        object.insert("cniVersion".into(), version.text().into());
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn full() -> Value {
        json!({
            "cniVersion": "1.1.0",
            "interfaces": [
                {"name": "cni0", "mac": "02:00:00:00:00:01", "mtu": 1500},
                {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/a", "socketPath": "/s", "pciID": "1"}
            ],
            "ips": [
                {"address": "10.1.0.2/16", "gateway": "10.1.0.1", "interface": 1},
                {"address": "fd00::2/64", "gateway": "fd00::1", "interface": 1}
            ],
            "routes": [
                {"dst": "0.0.0.0/0", "gw": "10.1.0.1", "mtu": 1400, "advmss": 1300, "priority": 5, "table": 9, "scope": 0},
                {"dst": "::/0"}
            ],
            "dns": {"nameservers": ["10.1.0.1"], "domain": "d", "search": ["s"], "options": ["o"]}
        })
    }

    #[test]
    fn the_newest_shape_loses_nothing() {
        let result = parse(&full(), Version::V0_1_0).expect("a result");
        assert_eq!(render(&result, Version::V1_1_0).expect("rendered"), full());
    }

    #[test]
    fn zero_point_four_has_address_versions_and_neither_mtu_nor_table() {
        let result = parse(&full(), Version::V1_1_0).expect("a result");
        let rendered = render(&result, Version::V0_4_0).expect("rendered");
        let wanted = json!({
            "cniVersion": "0.4.0",
            "interfaces": [
                {"name": "cni0", "mac": "02:00:00:00:00:01"},
                {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/a"}
            ],
            "ips": [
                {"version": "4", "address": "10.1.0.2/16", "gateway": "10.1.0.1", "interface": 1},
                {"version": "6", "address": "fd00::2/64", "gateway": "fd00::1", "interface": 1}
            ],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}, {"dst": "::/0"}],
            "dns": {"nameservers": ["10.1.0.1"], "domain": "d", "search": ["s"], "options": ["o"]}
        });
        assert_eq!(rendered, wanted);
        let again = parse(&rendered, Version::V1_1_0).expect("read again");
        assert_eq!(render(&again, Version::V0_4_0).expect("rendered"), wanted);
    }

    #[test]
    fn zero_point_two_has_one_address_a_family() {
        let result = parse(&full(), Version::V1_1_0).expect("a result");
        let rendered = render(&result, Version::V0_2_0).expect("rendered");
        let wanted = json!({
            "cniVersion": "0.2.0",
            "ip4": {"ip": "10.1.0.2/16", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}]},
            "ip6": {"ip": "fd00::2/64", "gateway": "fd00::1", "routes": [{"dst": "::/0"}]},
            "dns": {"nameservers": ["10.1.0.1"], "domain": "d", "search": ["s"], "options": ["o"]}
        });
        assert_eq!(rendered, wanted);
        let again = parse(&rendered, Version::V1_1_0).expect("read again");
        assert_eq!((again.ips.len(), again.routes.len(), again.interfaces.len()), (2, 2, 0));
        let none = CniResult::default();
        assert!(render(&none, Version::V0_2_0).is_err(), "no address at all cannot be said");
    }

    #[test]
    fn every_pair_of_versions_converts() {
        for from in Version::ALL {
            for to in Version::ALL {
                let result = parse(&full(), Version::V1_1_0).expect("a result");
                let value = render(&result, from).expect("rendered");
                let value = render(&parse(&value, Version::V0_1_0).expect("read"), to).expect("rendered");
                assert_eq!(value["cniVersion"], to.text());
            }
        }
    }

    #[test]
    fn a_chained_plugin_echoes_fields_it_does_not_know() {
        let prev = json!({"ips": [{"address": "10.1.0.2/16", "x": 1}], "vendor": {"a": [1]}});
        let echoed = echo(&prev, Version::V1_0_0).expect("echoed");
        assert_eq!(echoed["vendor"], prev["vendor"]);
        assert_eq!(echoed["ips"], prev["ips"]);
        assert_eq!(echoed["cniVersion"], "1.0.0");
        let mut other = prev.clone();
        other["cniVersion"] = "1.1.0".into();
        assert_eq!(echo(&other, Version::V1_0_0).expect("echoed")["vendor"], prev["vendor"]);
        let old = echo(&other, Version::V0_4_0).expect("converted");
        assert_eq!((&old["cniVersion"], &old["ips"][0]["version"]), (&json!("0.4.0"), &json!("4")));
    }

    #[test]
    fn a_result_that_is_none_is_code_6() {
        for bad in [json!({"ips": [{"address": "10.1.0.2"}]}), json!({"ips": 1}), json!({"interfaces": [{}]})]
        {
            let error = parse(&bad, Version::V1_0_0).expect_err("no result");
            assert_eq!(error.code, Code::Decoding, "{bad}");
        }
    }
}
