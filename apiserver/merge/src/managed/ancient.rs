//! At most ten managers of updates: the oldest are put together.

use std::collections::BTreeMap;

use super::entries::{Entries, Id, Operation};

const MAX_UPDATE_MANAGERS: usize = 10;
const MANAGER: &str = "ancient-changes";

pub(super) fn cap(managers: &mut Entries) {
    let mut updaters: Vec<(Option<String>, Id)> = managers
        .iter()
        .filter(|(id, _)| id.operation == Operation::Update)
        .map(|(id, entry)| (entry.time.clone(), id.clone()))
        .collect();
    if updaters.len() <= MAX_UPDATE_MANAGERS {
        return;
    }
    updaters.sort();
    let mut left = updaters.len();
    let mut first_of_version: BTreeMap<String, Id> = BTreeMap::new();
    for (_, id) in updaters {
        if left <= MAX_UPDATE_MANAGERS {
            break;
        }
        let Some(first) = first_of_version.get(&id.api_version) else {
            first_of_version.insert(id.api_version.clone(), id);
            continue;
        };
        let bucket = Id {
            manager: MANAGER.to_owned(),
            operation: Operation::Update,
            api_version: id.api_version.clone(),
            subresource: String::new(),
        };
        if !managers.contains_key(&bucket)
            && let Some(mut entry) = managers.remove(first)
        {
            entry.written = None;
            managers.insert(bucket.clone(), entry);
        }
        if id == bucket {
            continue;
        }
        if let Some(merged) = managers.remove(&id)
            && let Some(entry) = managers.get_mut(&bucket)
        {
            entry.add(merged.set);
            // The more recent of the two.
            entry.time = merged.time;
        }
        left -= 1;
    }
}
