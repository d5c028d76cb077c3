//! What ADD answered. Only addresses are read; the whole is kept for `prevResult`.

use std::net::IpAddr;

use serde_json::Value;

use super::INTERFACE;

/// More addresses than this are not a pod's.
const LIMIT: usize = 16;

/// The pod's addresses, IPv4 before IPv6 as they come; of the interface the pod has, where the result says which.
pub fn addresses(result: &Value) -> Vec<String> {
    let from_list =
        result.get("ips").and_then(Value::as_array).into_iter().flatten().filter(|ip| is_pods(result, ip));
    let listed = from_list.filter_map(|ip| ip.get("address"));
    // Specification 0.2 and before.
    let old = ["ip4", "ip6"].into_iter().filter_map(|family| result.get(family)?.get("ip"));
    let mut found: Vec<String> = listed.chain(old).filter_map(address).collect();
    found.dedup();
    found.truncate(LIMIT);
    found
}

fn is_pods(result: &Value, ip: &Value) -> bool {
    let Some(index) = ip.get("interface").and_then(Value::as_u64) else { return true };
    let Some(interface) = result.get("interfaces").and_then(|list| list.get(index as usize)) else {
        return false;
    };
    interface.get("name").and_then(Value::as_str) == Some(INTERFACE)
}

fn address(cidr: &Value) -> Option<String> {
    let text = cidr.as_str()?;
    let address: IpAddr = text.split('/').next()?.parse().ok()?;
    Some(address.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_of_every_version_and_of_hostile_results() {
        for (result, expected) in [
            (json!({"ips":[{"address":"10.88.0.2/16"}]}), vec!["10.88.0.2"]),
            (
                json!({"interfaces":[{"name":"cni0"},{"name":"eth0","sandbox":"/x"}],
                    "ips":[{"address":"10.0.0.1/8","interface":0},{"address":"10.0.0.2/8","interface":1},
                    {"address":"fd00::2/64","interface":1},{"address":"10.0.0.3/8","interface":9}]}),
                vec!["10.0.0.2", "fd00::2"],
            ),
            (json!({"ip4":{"ip":"10.1.0.2/16"},"ip6":{"ip":"fd00::1/64"}}), vec!["10.1.0.2", "fd00::1"]),
            (json!({"ips":"x"}), vec![]),
            (json!({"ips":[{"address":"junk"},{"address":5},7]}), vec![]),
            (json!({}), vec![]),
        ] {
            assert_eq!(addresses(&result), expected, "{result}");
        }
    }
}
