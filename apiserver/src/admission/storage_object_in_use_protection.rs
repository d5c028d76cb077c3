//! What a pod or a claim uses is not deleted under it.
//! Source: kubernetes `plugin/pkg/admission/storage/storageobjectinuseprotection`.

use std::future::ready;

use serde_json::Value;

use super::{Plugin, pods};
use crate::hooks::{Operation, Review};

pub const PLUGIN: Plugin = Plugin {
    name: "StorageObjectInUseProtection",
    on_by_default: true,
    resources: &[
        ("", "persistentvolumes"),
        ("", "persistentvolumeclaims"),
        ("storage.k8s.io", "volumeattributesclasses"),
    ],
    mutate: Some(|_, review| {
        mutate(review);
        Box::pin(ready(Ok(())))
    }),
    validate: None,
};

fn mutate(review: &mut Review) {
    let (Operation::Create, "") = (review.operation, &*review.subresource) else { return };
    let finalizer = match &*review.served.resource.plural {
        "persistentvolumes" => "kubernetes.io/pv-protection",
        "persistentvolumeclaims" => "kubernetes.io/pvc-protection",
        _ => "kubernetes.io/vac-protection",
    };
    let Some(object) = &mut review.object else { return };
    if object.finalizers().all(|one| one != finalizer) {
        pods::push(object.meta_mut(), "finalizers", Value::from(finalizer));
    }
}
