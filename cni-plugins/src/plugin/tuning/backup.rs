//! What an interface had before tuning: `<dataDir>/<container id>_<ifname>.json`, in upstream's format.
//!
//! The directory is every network's and upstream's name says of none, so ours stands inside as one key more (the Go
//! plugin passes over it): GC of one network leaves the others' files, and the Go plugin's, alone.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::attributes::Attributes;
use crate::skel::{Attachment, Network, ValidAttachment};
use crate::{Result, files};

/// A directory of backups; it need not exist.
#[derive(Debug)]
pub struct Backups {
    dir: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Content {
    #[serde(flatten)]
    attributes: Attributes,
    #[serde(default)]
    network: String,
}

impl Backups {
    pub fn open(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub fn create(dir: &Path) -> Result<Self> {
        files::create_dir(dir)?;
        Ok(Self::open(dir))
    }

    fn path(&self, attachment: &Attachment) -> PathBuf {
        self.dir.join(name(&attachment.container_id, &attachment.ifname))
    }

    pub fn write(&self, network: &Network, attachment: &Attachment, before: &Attributes) -> Result<()> {
        let content = Content { attributes: *before, network: network.name.clone() };
        let text = serde_json::to_vec_pretty(&content).expect("text, numbers and flags only");
        files::write(&self.path(attachment), &text)
    }

    /// `None`: nothing was changed. A file that is none of ours tells nothing to restore, as upstream.
    pub fn read(&self, attachment: &Attachment) -> Result<Option<Attributes>> {
        Ok(read_file(&self.path(attachment))?.map(|content| content.attributes))
    }

    pub fn remove(&self, attachment: &Attachment) -> Result<()> {
        files::remove(&self.path(attachment))
    }

    /// Removes backups of `network` that belong to none of `valid`: their interfaces are gone.
    pub fn retain(&self, network: &str, valid: &[ValidAttachment]) -> Result<()> {
        let valid: Vec<String> = valid.iter().map(|v| name(&v.container_id, &v.ifname)).collect();
        for (name, entry) in files::list(&self.dir)? {
            let is_of = |content: Content| content.network == network;
            if !valid.contains(&name) && read_file(&entry.path())?.is_some_and(is_of) {
                files::remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

fn name(container_id: &str, ifname: &str) -> String {
    format!("{container_id}_{ifname}.json")
}

fn read_file(path: &Path) -> Result<Option<Content>> {
    let nothing = || Content { attributes: Attributes::default(), network: String::new() };
    Ok(files::read(path)?.map(|bytes| serde_json::from_slice(&bytes).unwrap_or_else(|_| nothing())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_netlink::route::Mac;

    #[test]
    fn upstreams_content_is_read() {
        let text = r#"{ "mac": "02:00:00:00:00:07", "promisc": false, "mtu": 1500, "allmulti": true, "txQLen": 1000 }"#;
        let content: Content = serde_json::from_str(text).expect("read");
        let wanted = Attributes {
            mac: Some(Mac([2, 0, 0, 0, 0, 7])),
            promisc: Some(false),
            mtu: Some(1500),
            allmulti: Some(true),
            tx_queue_len: Some(1000),
        };
        assert_eq!((content.attributes, content.network.as_str()), (wanted, ""));
        let again = serde_json::to_value(Content { network: "n".into(), ..content }).expect("written");
        assert_eq!((&again["mac"], &again["txQLen"]), (&"02:00:00:00:00:07".into(), &1000.into()));
    }
}
