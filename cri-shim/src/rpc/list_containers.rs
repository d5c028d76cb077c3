//! ListContainers. One that is still being made is not listed.

use std::collections::HashMap;
use std::sync::Arc;

use corten_cri_api::v1;

use super::images::image_ref;
use crate::container::record::ContainerRecord;
use crate::container::state::State;
use crate::daemon::Daemon;
use crate::error::Error;

pub async fn list_containers(
    daemon: Arc<Daemon>,
    request: v1::ListContainersRequest,
) -> Result<v1::ListContainersResponse, Error> {
    let filter = request.filter.unwrap_or_default();
    let containers = daemon.store.containers();
    let records = containers.iter().map(|c| c.record());
    let made = records.filter(|r| r.facts.state() != State::Creating && fits(r, &filter));
    Ok(v1::ListContainersResponse { containers: made.map(|r| item(&daemon, r)).collect() })
}

fn fits(record: &ContainerRecord, filter: &v1::ContainerFilter) -> bool {
    record.id.starts_with(&filter.id)
        && record.sandbox_id.starts_with(&filter.pod_sandbox_id)
        && filter.state.is_none_or(|wanted| wanted.state == i32::from(record.facts.reported()))
        && labels_fit(&record.config.labels, &filter.label_selector)
}

/// Every pair of the selector is there.
pub fn labels_fit(labels: &HashMap<String, String>, selector: &HashMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn item(daemon: &Daemon, record: ContainerRecord) -> v1::Container {
    v1::Container {
        state: record.facts.reported().into(),
        id: record.id,
        pod_sandbox_id: record.sandbox_id,
        image_ref: image_ref(daemon, &record.image_id),
        image_id: record.image_id,
        created_at: record.created_at_ns,
        metadata: record.config.metadata,
        image: record.config.image,
        labels: record.config.labels,
        annotations: record.config.annotations,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_asks_for_all_its_pairs() {
        let map =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let labels: HashMap<String, String> = map(&[("a", "1"), ("b", "2")]);
        for (selector, fits) in [
            (vec![], true),
            (vec![("a", "1")], true),
            (vec![("a", "2")], false),
            (vec![("a", "1"), ("c", "3")], false),
        ] {
            assert_eq!(labels_fit(&labels, &map(&selector)), fits, "{selector:?}");
        }
    }
}
