//! The delegate's configuration, rendered as upstream does: pure.

use serde_json::{Map, Value, json};

use super::config::Config;
use super::subnet::Subnet;
use crate::Result;
use crate::error::Error;
use crate::skel::Network;

/// `subnet` `None`: for removing alone, which asks neither ranges nor routes; rules of masquerade are looked for then.
pub fn delegate(network: &Network, config: &Config, subnet: Option<&Subnet>) -> Value {
    let mut rendered = config.delegate.clone();
    rendered.insert("name".into(), network.name.as_str().into());
    let kind = rendered.entry("type").or_insert_with(|| "bridge".into()).clone();
    rendered.entry("ipMasq").or_insert_with(|| subnet.is_none_or(|subnet| !subnet.ip_masq).into());
    if let Some(subnet) = subnet {
        rendered.entry("mtu").or_insert_with(|| subnet.mtu.into());
    }
    if kind == "bridge" {
        rendered.entry("isGateway").or_insert_with(|| true.into());
    }
    if let Some(version) = network.config.get("cniVersion") {
        rendered.insert("cniVersion".into(), version.clone());
    }
    if let Some(runtime) = &config.runtime {
        rendered.insert("runtimeConfig".into(), runtime.clone().into());
    }
    if let Some(args) = &config.args {
        rendered.entry("args").or_insert_with(|| args.clone().into());
    }
    rendered.insert("ipam".into(), ipam(config, subnet).into());
    rendered.into()
}

fn ipam(config: &Config, subnet: Option<&Subnet>) -> Map<String, Value> {
    let mut ipam = config.ipam.clone();
    ipam.entry("type").or_insert_with(|| "host-local".into());
    let Some(subnet) = subnet else { return ipam };
    let range = |subnet: &corten_netlink::Cidr| json!([{"subnet": subnet.to_string()}]);
    ipam.insert("ranges".into(), subnet.subnets.iter().map(range).collect());
    let mut routes = ipam.get("routes").and_then(Value::as_array).cloned().unwrap_or_default();
    routes.extend(subnet.networks.iter().map(|network| json!({"dst": network.to_string()})));
    ipam.insert("routes".into(), routes.into());
    ipam
}

/// The delegate's call.
pub fn network(network: &Network, rendered: Value) -> Network {
    Network {
        name: network.name.clone(),
        version: network.version,
        stdin: rendered.to_string().into_bytes(),
        config: rendered,
        path: network.path.clone(),
    }
}

/// DEL and CHECK of the delegate get what ours got.
pub fn with_prev_result(rendered: Value, network: &Network) -> Value {
    with_keys(rendered, network, &["prevResult"])
}

/// GC likewise; libcni also sends the second, wrong name.
pub fn with_valid(rendered: Value, network: &Network) -> Value {
    with_keys(rendered, network, &["cni.dev/valid-attachments", "cni.dev/attachments"])
}

fn with_keys(mut rendered: Value, network: &Network, keys: &[&str]) -> Value {
    for key in keys {
        if let (Value::Object(object), Some(value)) = (&mut rendered, network.config.get(key)) {
            object.insert((*key).into(), value.clone());
        }
    }
    rendered
}

/// What comes of subnet.env is in `now` as it was at ADD.
pub fn refuse_difference(recorded: &Value, now: &Value) -> Result<()> {
    for pointer in ["/ipam/ranges", "/ipam/routes", "/mtu", "/ipMasq"] {
        let (was, is) = (recorded.pointer(pointer), now.pointer(pointer));
        if was != is {
            let text = |value: Option<&Value>| value.map_or("nothing".into(), Value::to_string);
            let key = pointer.trim_start_matches('/').replace('/', ".");
            return Err(Error::internal(format!(
                "the interface was made with {key} {}, now it would be {}",
                text(was),
                text(is)
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Version;

    fn rendered(config: Value, subnet: Option<&Subnet>) -> Value {
        let network = Network {
            name: "cbr0".into(),
            version: Version::LATEST,
            config,
            stdin: Vec::new(),
            path: Vec::new(),
        };
        delegate(&network, &Config::load(&network).expect("fine"), subnet)
    }

    fn subnet() -> Subnet {
        let cidr = |text: &str| text.parse().expect("a cidr");
        Subnet {
            networks: vec![cidr("10.1.0.0/16"), cidr("fd00::/48")],
            subnets: vec![cidr("10.1.17.0/24"), cidr("fd00:0:0:1::/64")],
            mtu: 1472,
            ip_masq: true,
        }
    }

    #[test]
    fn nothing_given_is_upstreams_bridge_byte_for_byte() {
        let one = Subnet {
            networks: vec!["10.1.0.0/16".parse().unwrap()],
            subnets: vec!["10.1.17.0/24".parse().unwrap()],
            ..subnet()
        };
        let text = rendered(json!({"cniVersion": "0.3.1", "type": "flannel"}), Some(&one)).to_string();
        let wanted = r#"{"cniVersion":"0.3.1","ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.1.17.0/24"}]],"routes":[{"dst":"10.1.0.0/16"}],"type":"host-local"},"isGateway":true,"mtu":1472,"name":"cbr0","type":"bridge"}"#;
        assert_eq!(text, wanted);
    }

    #[test]
    fn the_networks_own_keys_go_first() {
        let config = json!({
            "delegate": {"type": "bridge", "mtu": 1400, "ipMasq": true, "isGateway": false, "hairpinMode": true,
                "args": {"a": 1}},
            "ipam": {"type": "other", "ranges": 5, "routes": [{"dst": "192.0.2.0/24"}], "dataDir": "/d"},
            "runtimeConfig": {"mac": "x"}, "args": {"cni": {}},
        });
        let result = rendered(config, Some(&subnet()));
        let wanted = json!({
            "name": "cbr0", "type": "bridge", "mtu": 1400, "ipMasq": true, "isGateway": false, "hairpinMode": true,
            "args": {"a": 1}, "runtimeConfig": {"mac": "x"},
            "ipam": {
                "type": "other", "dataDir": "/d",
                "ranges": [[{"subnet": "10.1.17.0/24"}], [{"subnet": "fd00:0:0:1::/64"}]],
                "routes": [{"dst": "192.0.2.0/24"}, {"dst": "10.1.0.0/16"}, {"dst": "fd00::/48"}],
            },
        });
        assert_eq!(result, wanted);
    }

    #[test]
    fn another_delegate_is_no_gateway_and_args_are_passed_on() {
        let result = rendered(json!({"delegate": {"type": "ipvlan"}, "args": {"cni": {}}}), Some(&subnet()));
        assert_eq!((result.get("isGateway"), &result["args"]), (None, &json!({"cni": {}})));
    }

    #[test]
    fn without_a_subnet_it_still_says_what_to_remove() {
        let result = rendered(json!({"ipam": {"dataDir": "/d"}}), None);
        assert_eq!((&result["ipMasq"], &result["ipam"]["dataDir"]), (&json!(true), &json!("/d")));
    }

    #[test]
    fn a_changed_subnet_is_a_difference_and_changed_arguments_are_not() {
        let was = rendered(json!({}), Some(&subnet()));
        assert!(refuse_difference(&was, &rendered(json!({"args": {}}), Some(&subnet()))).is_ok());
        let now = rendered(json!({}), Some(&Subnet { mtu: 1400, ..subnet() }));
        let error = refuse_difference(&was, &now).expect_err("mtu");
        assert!(error.msg.contains("mtu 1472") && error.msg.contains("1400"), "{error}");
    }
}
