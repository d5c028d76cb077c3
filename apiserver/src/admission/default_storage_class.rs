//! A claim that names no StorageClass gets the default one.
//! Source: kubernetes `plugin/pkg/admission/storage/storageclass/setdefault`, `pkg/volume/util/storageclass.go`.

use super::{Context, Plugin, pods};
use crate::hooks::{Operation, Review};
use crate::object::Object;
use crate::status::Result;

pub const PLUGIN: Plugin = Plugin {
    name: "DefaultStorageClass",
    on_by_default: true,
    resources: &[("", "persistentvolumeclaims")],
    mutate: Some(|context, review| Box::pin(mutate(context, review))),
    validate: None,
};

const MARKS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

async fn mutate(context: &Context, review: &mut Review) -> Result<()> {
    let (Operation::Create, "", Some(claim)) = (review.operation, &*review.subresource, &review.object)
    else {
        return Ok(());
    };
    let by_annotation = claim.annotations().is_some_and(|annotations| annotations.contains_key(OLD_CLASS));
    if by_annotation || claim.get(&["spec", "storageClassName"]).is_some_and(|class| !class.is_null()) {
        return Ok(());
    }
    let classes = context.lookup.list("storage.k8s.io", "storageclasses", "").await?;
    if let (Some(class), Some(claim)) = (newest(classes, &MARKS), &mut review.object) {
        pods::spec_mut(claim).insert("storageClassName".to_owned(), class.name().into());
    }
    Ok(())
}

/// Of those that are marked as default the newest; of several as new the first by name.
pub fn newest(classes: Vec<Object>, marks: &[&str]) -> Option<Object> {
    let marked = |class: &Object| {
        let annotations = class.annotations();
        marks
            .iter()
            .any(|mark| annotations.and_then(|all| all.get(*mark)).is_some_and(|value| value == "true"))
    };
    let made = |class: &Object| class.text(&["metadata", "creationTimestamp"]).to_owned();
    classes
        .into_iter()
        .filter(marked)
        .max_by(|a, b| made(a).cmp(&made(b)).then_with(|| b.name().cmp(a.name())))
}
