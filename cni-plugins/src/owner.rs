//! Whose rules: upstream's hash of network, interface and container, by which rules are found again, also when the
//! namespace is gone.

use sha2::{Digest, Sha512};

use crate::skel::{Attachment, Network, ValidAttachment};

#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    pub network: &'a str,
    pub ifname: &'a str,
    pub container_id: &'a str,
}

impl<'a> Owner<'a> {
    pub fn new(network: &'a Network, attachment: &'a Attachment) -> Self {
        Self { network: &network.name, ifname: &attachment.ifname, container_id: &attachment.container_id }
    }

    pub fn hash(&self) -> String {
        let instance = format!("{}:{}", self.ifname, self.container_id);
        format!("{}-{}", short_hash(self.network), short_hash(&instance))
    }
}

/// The first 16 hex digits of SHA-512.
pub fn short_hash(text: &str) -> String {
    let digest = Sha512::digest(text);
    let head = digest.first_chunk().expect("SHA-512 has 64 bytes");
    format!("{:016x}", u64::from_be_bytes(*head))
}

/// Is `text`, which begins with a hash, of `network` and of none of the attachments?
pub fn is_stale(network: &str, valid: &[ValidAttachment]) -> impl Fn(&str) -> bool + use<> {
    let of_network = format!("{}-", short_hash(network));
    let hash =
        |v: &ValidAttachment| Owner { network, ifname: &v.ifname, container_id: &v.container_id }.hash();
    let valid: Vec<String> = valid.iter().map(hash).collect();
    move |text| text.starts_with(&of_network) && !valid.iter().any(|hash| text.starts_with(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_the_head_of_sha512() {
        // FIPS 180-4, the example "abc".
        assert_eq!(short_hash("abc"), "ddaf35a193617aba");
    }

    #[test]
    fn only_this_networks_owners_become_stale() {
        let owner = |network, container_id| Owner { network, ifname: "eth0", container_id }.hash();
        let valid = [ValidAttachment { container_id: "a".into(), ifname: "eth0".into() }];
        let stale = is_stale("net", &valid);
        assert!(!stale(&owner("net", "a")) && stale(&owner("net", "b")) && !stale(&owner("other", "b")));
    }
}
