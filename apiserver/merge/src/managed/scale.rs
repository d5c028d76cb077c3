//! Who manages the replicas of a Scale are those who manage the replicas of what it scales.

use serde_json::Value;

use super::EntriesError;
use super::entries::{self, Entry};
use crate::fields::{Element, Set};

const SCALE_VERSION: &str = "autoscaling/v1";

/// A path of fields in the scaled object: `.spec.replicas`.
fn path(replicas: &str) -> Vec<Element> {
    replicas.split('.').filter(|part| !part.is_empty()).map(Element::field).collect()
}

fn in_scale() -> Set {
    let mut set = Set::default();
    set.insert(&path("spec.replicas"));
    set
}

/// The managedFields of a Scale, of the scaled object's. `replicas(apiVersion)`: where the object has its replicas in
/// that version; `None`: it is not served.
pub fn replicas_to_scale<'a>(
    parent: Option<&Value>,
    replicas: impl Fn(&str) -> Option<&'a str>,
) -> Result<Option<Value>, EntriesError> {
    let managers = entries::decode(parent.cloned())?;
    let of_scale = managers.into_iter().filter_map(|(mut id, entry)| {
        let at = path(replicas(&entry.api_version)?);
        if !entry.set.contains(&at) {
            return None;
        }
        if !id.api_version.is_empty() {
            SCALE_VERSION.clone_into(&mut id.api_version);
        }
        Some((id, Entry::new(SCALE_VERSION, in_scale(), entry.time)))
    });
    Ok(entries::encode(of_scale.collect()))
}

/// The scaled object's managedFields after a write of its Scale. `api_version`: that new managers get.
pub fn replicas_from_scale<'a>(
    parent: Option<&Value>,
    scale: Option<&Value>,
    api_version: &str,
    replicas: impl Fn(&str) -> Option<&'a str>,
) -> Result<Option<Value>, EntriesError> {
    let mut of_scale = entries::decode(scale.cloned())?;
    let mut managers = entries::decode(parent.cloned())?;
    managers.retain(|id, entry| {
        let Some(at) = replicas(&entry.api_version).map(path) else { return false };
        if !entry.set.contains(&at) {
            return true;
        }
        let mut in_scale = id.clone();
        if !in_scale.api_version.is_empty() {
            SCALE_VERSION.clone_into(&mut in_scale.api_version);
        }
        if of_scale.remove(&in_scale).is_none() {
            let mut stolen = Set::default();
            stolen.insert(&at);
            entry.subtract(&stolen);
        }
        !entry.set.is_empty()
    });
    for (mut id, entry) in of_scale {
        let Some(at) = replicas(api_version).map(path) else { continue };
        if !entry.set.contains(&path("spec.replicas")) {
            continue;
        }
        if !id.api_version.is_empty() {
            api_version.clone_into(&mut id.api_version);
        }
        let mut set = Set::default();
        set.insert(&at);
        // As upstream: who first wrote the replicas through the Scale has no time.
        let entry = Entry::new(api_version, set, None);
        managers.entry(id).and_modify(|there| there.add(entry.set.clone())).or_insert(entry);
    }
    Ok(entries::encode(managers))
}
