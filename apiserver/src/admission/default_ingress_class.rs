//! An Ingress that names no class gets the default one.
//! Source: kubernetes `plugin/pkg/admission/network/defaultingressclass`.

use super::default_storage_class::newest;
use super::{Context, Plugin, pods};
use crate::hooks::{Operation, Review};
use crate::status::Result;

pub const PLUGIN: Plugin = Plugin {
    name: "DefaultIngressClass",
    on_by_default: true,
    resources: &[("networking.k8s.io", "ingresses")],
    mutate: Some(|context, review| Box::pin(mutate(context, review))),
    validate: None,
};

const MARK: &str = "ingressclass.kubernetes.io/is-default-class";
const OLD_CLASS: &str = "kubernetes.io/ingress.class";

async fn mutate(context: &Context, review: &mut Review) -> Result<()> {
    let (Operation::Create, "", Some(ingress)) = (review.operation, &*review.subresource, &review.object)
    else {
        return Ok(());
    };
    let by_annotation = ingress.annotations().is_some_and(|annotations| annotations.contains_key(OLD_CLASS));
    if by_annotation || ingress.get(&["spec", "ingressClassName"]).is_some_and(|class| !class.is_null()) {
        return Ok(());
    }
    let classes = context.lookup.list("networking.k8s.io", "ingressclasses", "").await?;
    if let (Some(class), Some(ingress)) = (newest(classes, &[MARK]), &mut review.object) {
        pods::spec_mut(ingress).insert("ingressClassName".to_owned(), class.name().into());
    }
    Ok(())
}
