//! The rendered configuration of each attachment, `<dataDir>/<container id>@<ifname>`.
//!
//! Upstream's name is the container's id alone, so a second interface of a pod overwrites the first's record there. Our
//! file has that name too, as a second hard link, while no other interface of the container has it: so the Go plugin
//! finds what ours made. What has upstream's name and only one link is the Go plugin's.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::skel::{Attachment, ValidAttachment};
use crate::{Result, files};

/// In no container id: it divides id from interface.
const DIVIDER: char = '@';

/// A directory of records; it need not exist.
#[derive(Debug)]
pub struct Records {
    dir: PathBuf,
}

/// What is recorded of an attachment.
#[derive(Debug, PartialEq, Eq)]
pub enum Record {
    None,
    Rendered(Value),
    /// Not JSON of an object.
    Unreadable,
}

/// A record that belongs to no valid attachment.
#[derive(Debug, PartialEq, Eq)]
pub struct Stale {
    pub file: PathBuf,
    pub container_id: String,
    /// `None`: the Go plugin's.
    pub ifname: Option<String>,
    pub rendered: Value,
}

impl Records {
    pub fn open(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub fn create(dir: &Path) -> Result<Self> {
        files::create_dir(dir)?;
        Ok(Self::open(dir))
    }

    fn path(&self, attachment: &Attachment) -> PathBuf {
        self.dir.join(name(attachment))
    }

    fn upstreams(&self, attachment: &Attachment) -> PathBuf {
        self.dir.join(&attachment.container_id)
    }

    /// True: there was one before.
    pub fn write(&self, attachment: &Attachment, rendered: &Value) -> Result<bool> {
        let path = self.path(attachment);
        let existed = path.exists();
        files::write(&path, rendered.to_string().as_bytes())?;
        // Where another interface of this container has the name, or there are no hard links, we do without.
        let _ = fs::hard_link(&path, self.upstreams(attachment));
        Ok(existed)
    }

    pub fn read(&self, attachment: &Attachment) -> Result<Record> {
        match read_file(&self.path(attachment))? {
            Record::None if self.upstreams_is_foreign(attachment) => read_file(&self.upstreams(attachment)),
            record => Ok(record),
        }
    }

    /// No record is no error.
    pub fn remove(&self, attachment: &Attachment) -> Result<()> {
        if self.upstreams_is_foreign(attachment) {
            return files::remove(&self.upstreams(attachment));
        }
        self.unlink_upstreams(attachment)?;
        files::remove(&self.path(attachment))
    }

    /// Not another interface's second link.
    fn upstreams_is_foreign(&self, attachment: &Attachment) -> bool {
        let upstreams = fs::metadata(self.upstreams(attachment));
        upstreams.is_ok_and(|m| m.is_file() && m.nlink() == 1) && !self.path(attachment).exists()
    }

    /// The second link, when it is one of this attachment's record.
    fn unlink_upstreams(&self, attachment: &Attachment) -> Result<()> {
        let identity = |path: &Path| fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
        let upstreams = self.upstreams(attachment);
        let ours = identity(&self.path(attachment));
        if ours.is_some() && ours == identity(&upstreams) { files::remove(&upstreams) } else { Ok(()) }
    }

    /// Records of `network` (the directory is every network's) that none of `valid` has.
    pub fn stale(&self, network: &str, valid: &[ValidAttachment]) -> Result<Vec<Stale>> {
        let mut all = Vec::new();
        for (name, entry) in files::list(&self.dir)? {
            let (container_id, ifname) = match name.split_once(DIVIDER) {
                Some((id, ifname)) => (id, Some(ifname)),
                None => (name.as_str(), None),
            };
            let is_valid = |v: &ValidAttachment| {
                v.container_id == container_id && ifname.is_none_or(|ifname| v.ifname == ifname)
            };
            if valid.iter().any(is_valid) {
                continue;
            }
            let Record::Rendered(rendered) = read_file(&entry.path())? else { continue };
            if rendered.get("name").and_then(Value::as_str) == Some(network) {
                let (container_id, ifname) = (container_id.to_owned(), ifname.map(str::to_owned));
                all.push(Stale { file: entry.path(), container_id, ifname, rendered });
            }
        }
        Ok(all)
    }
}

fn name(attachment: &Attachment) -> String {
    format!("{}{DIVIDER}{}", attachment.container_id, attachment.ifname)
}

fn read_file(path: &Path) -> Result<Record> {
    Ok(match files::read(path)?.map(|bytes| serde_json::from_slice(&bytes)) {
        None => Record::None,
        Some(Ok(value @ Value::Object(_))) => Record::Rendered(value),
        Some(_) => Record::Unreadable,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skel::Args;
    use serde_json::json;

    fn attachment(id: &str, ifname: &str) -> Attachment {
        Attachment {
            container_id: id.into(),
            ifname: ifname.into(),
            netns: String::new(),
            args: Args::default(),
            netns_doomed: false,
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("listed");
        let mut names: Vec<String> =
            entries.map(|e| e.expect("an entry").file_name().into_string().expect("text")).collect();
        names.sort();
        names
    }

    /// Upstream's defect: its file is named by the container alone.
    #[test]
    fn a_second_interface_does_not_overwrite_the_firsts_record() {
        let dir = tempfile::tempdir().expect("a directory");
        let records = Records::create(dir.path()).expect("made");
        let (first, second) = (attachment("pod", "eth0"), attachment("pod", "net1"));
        assert!(!records.write(&first, &json!({"n": 1})).expect("written"));
        assert!(!records.write(&second, &json!({"n": 2})).expect("written"));
        assert_eq!(names(dir.path()), ["pod", "pod@eth0", "pod@net1"]);
        assert_eq!(fs::read_to_string(dir.path().join("pod")).expect("upstream's name"), r#"{"n":1}"#);
        records.remove(&second).expect("removed");
        assert_eq!(records.read(&second).expect("read"), Record::None, "the other's link is not its record");
        assert!(records.write(&first, &json!({"n": 3})).expect("written"), "there was one");
        assert_eq!(records.read(&first).expect("read"), Record::Rendered(json!({"n": 3})));
        assert_eq!(fs::read_to_string(dir.path().join("pod")).expect("upstream's name"), r#"{"n":3}"#);
        records.remove(&first).expect("removed");
        records.remove(&first).expect("nothing is no error");
        assert_eq!(names(dir.path()), [] as [&str; 0]);
    }

    #[test]
    fn a_record_of_the_go_plugin_is_read_and_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let records = Records::open(dir.path());
        let pod = attachment("pod", "eth0");
        fs::write(dir.path().join("pod"), r#"{"type":"bridge"}"#).expect("written");
        assert_eq!(records.read(&pod).expect("read"), Record::Rendered(json!({"type": "bridge"})));
        fs::write(dir.path().join("pod"), r#"{"type":"#).expect("written");
        assert_eq!(records.read(&pod).expect("read"), Record::Unreadable);
        records.remove(&pod).expect("removed");
        assert_eq!(names(dir.path()), [] as [&str; 0]);
    }

    #[test]
    fn only_this_networks_records_become_stale() {
        let dir = tempfile::tempdir().expect("a directory");
        let records = Records::open(dir.path());
        for (id, network) in [("a", "net"), ("b", "net"), ("c", "other")] {
            records.write(&attachment(id, "eth0"), &json!({"name": network})).expect("written");
        }
        fs::write(dir.path().join("go"), r#"{"name":"net"}"#).expect("written");
        let valid = [ValidAttachment { container_id: "a".into(), ifname: "eth0".into() }];
        let mut stale: Vec<_> = records
            .stale("net", &valid)
            .expect("listed")
            .into_iter()
            .map(|s| (s.container_id, s.ifname))
            .collect();
        stale.sort();
        let eth0 = Some("eth0".to_owned());
        assert_eq!(stale, [("b".to_owned(), None), ("b".to_owned(), eth0), ("go".to_owned(), None)]);
        assert!(Records::open(Path::new("/nonexistent")).stale("net", &[]).expect("none").is_empty());
    }
}
