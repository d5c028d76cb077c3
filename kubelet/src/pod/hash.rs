//! The hash of a container's spec, bit for bit upstream's, so that a stock kubelet recognises our containers and we
//! recognise its: FNV-1a 32 over how Go's spew prints the bytes of `{"image":..,"name":..}`.
//! Source: upstream `kubelet/container/helpers.go` HashContainer, since 1.31.

use k8s_openapi::api::core::v1::Container;

pub fn of_container(container: &Container) -> u64 {
    let picked = format!(
        "{{\"image\":{},\"name\":{}}}",
        go_json(container.image.as_deref().unwrap_or_default()),
        go_json(&container.name)
    );
    let bytes: Vec<String> = picked.bytes().map(|b| b.to_string()).collect();
    u64::from(fnv1a(format!("([]uint8)[{}]", bytes.join(" ")).as_bytes()))
}

/// Go's encoder also escapes what HTML could take for markup.
fn go_json(text: &str) -> String {
    let json = serde_json::to_string(text).expect("a string is JSON");
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values: made with Go's encoding/json, spew v1.1.1 and hash/fnv.
    #[test]
    fn hashes_are_upstreams() {
        let hash = |name: &str, image: &str| {
            of_container(&Container { name: name.into(), image: Some(image.into()), ..Container::default() })
        };
        assert_eq!(hash("web", "nginx:1.25"), 949_616_492);
        assert_eq!(hash("c", "a<b>&"), 2_195_321_069);
    }
}
