//! The attributes of an interface that tuning sets; `None` leaves as it is. Also what was there before: the content
//! of a backup, in upstream's keys.

use corten_netlink::Socket;
use corten_netlink::route::{Link, LinkChange, Mac, encode};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::error::{Error, all};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Attributes {
    #[serde(with = "mac_text", skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promisc: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allmulti: Option<bool>,
    #[serde(rename = "txQLen", skip_serializing_if = "Option::is_none")]
    pub tx_queue_len: Option<u32>,
}

impl Attributes {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Of `link`, what `self` is going to change.
    pub fn before(&self, link: &Link) -> Self {
        Self {
            mac: self.mac.and(link.mac),
            promisc: self.promisc.map(|_| link.promiscuity != 0),
            mtu: self.mtu.map(|_| link.mtu),
            allmulti: self.allmulti.map(|_| link.all_multicast),
            tx_queue_len: self.tx_queue_len.map(|_| link.tx_queue_len),
        }
    }

    pub fn check(&self, link: &Link) -> Result<()> {
        for ((what, wanted), (_, is)) in self.texts().into_iter().zip(self.before(link).texts()) {
            if wanted != is {
                let text = |value: Option<String>| value.unwrap_or_else(|| "unknown".into());
                let (name, wanted, is) = (&link.name, text(wanted), text(is));
                return Err(Error::internal(format!(
                    "{what} of {name:?} is configured as {wanted}, it is {is}"
                )));
            }
        }
        Ok(())
    }

    fn texts(&self) -> [(&'static str, Option<String>); 5] {
        [
            ("mac", self.mac.map(|v| v.to_string())),
            ("promisc", self.promisc.map(|v| v.to_string())),
            ("mtu", self.mtu.map(|v| v.to_string())),
            ("allmulti", self.allmulti.map(|v| v.to_string())),
            ("txQLen", self.tx_queue_len.map(|v| v.to_string())),
        ]
    }
}

/// Each on its own, so that one that is refused is named and does not keep the others from being restored.
pub fn apply(socket: &mut Socket, link: &Link, wanted: &Attributes) -> Result<()> {
    let none = LinkChange::default;
    let changes = [
        wanted.mac.map(|mac| LinkChange { mac: Some(mac), ..none() }),
        wanted.promisc.map(|on| LinkChange { promiscuous: Some(on), ..none() }),
        wanted.mtu.map(|mtu| LinkChange { mtu: Some(mtu), ..none() }),
        wanted.allmulti.map(|on| LinkChange { all_multicast: Some(on), ..none() }),
        wanted.tx_queue_len.map(|length| LinkChange { tx_queue_len: Some(length), ..none() }),
    ];
    all(changes.into_iter().zip(wanted.texts()).filter_map(|(change, (what, value))| {
        let done = socket.transact(vec![encode::set_link(link.index, &change?)]);
        let value = value.unwrap_or_default();
        Some(done.map_err(|e| Error::internal(format!("set {what} of {:?} to {value}: {e}", link.name))))
    }))
}

mod mac_text {
    use corten_netlink::route::Mac;
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
    pub fn serialize<S: Serializer>(mac: &Option<Mac>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&mac.map(|mac| mac.to_string()).unwrap_or_default())
    }

    /// Empty is none.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Mac>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(serde::de::Error::custom)
    }
}
