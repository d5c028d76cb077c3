//! A claim grows only where its StorageClass says so.
//! Source: kubernetes `plugin/pkg/admission/storage/persistentvolume/resize`.

use std::cmp::Ordering;

use corten_schema::quantity::Quantity;
use serde_json::Value;

use super::{Context, Plugin};
use crate::hooks::{Operation, Review};
use crate::object::Object;
use crate::status::Result;

pub const PLUGIN: Plugin = Plugin {
    name: "PersistentVolumeClaimResize",
    on_by_default: true,
    resources: &[("", "persistentvolumeclaims")],
    mutate: None,
    validate: Some(|context, review| Box::pin(validate(context, review))),
};

async fn validate(context: &Context, review: &mut Review) -> Result<()> {
    if review.operation != Operation::Update || !review.subresource.is_empty() {
        return Ok(());
    }
    let (Some(new), Some(old)) = (&review.object, &review.old) else { return Ok(()) };
    let size =
        |claim: &Object| Quantity::parse(claim.text(&["spec", "resources", "requests", "storage"])).ok();
    let grows = match (size(new), size(old)) {
        (Some(new), Some(old)) => new.compare(&old) == Ordering::Greater,
        (Some(_), None) => true,
        (None, _) => false,
    };
    if !grows {
        return Ok(());
    }
    if old.text(&["status", "phase"]) != "Bound" {
        return Err(review.forbid("Only bound persistent volume claims can be expanded"));
    }
    let (class, before) = (class(new), class(old));
    if !class.is_empty() && class == before {
        let object = context.lookup.get("storage.k8s.io", "storageclasses", "", class).await?;
        if object.is_some_and(|class| class.0.get("allowVolumeExpansion") == Some(&Value::Bool(true))) {
            return Ok(());
        }
    }
    Err(review.forbid(
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support \
         resize",
    ))
}

fn class(claim: &Object) -> &str {
    let old = claim.annotations().and_then(|all| all.get("volume.beta.kubernetes.io/storage-class"));
    old.and_then(Value::as_str).unwrap_or_else(|| claim.text(&["spec", "storageClassName"]))
}
