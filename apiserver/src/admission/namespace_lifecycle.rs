//! Nothing is made where there is no namespace, or where one is going away; some namespaces stay.
//! Source: apiserver `pkg/admission/plugin/namespace/lifecycle`.

use super::{Context, Plugin};
use crate::hooks::{Operation, Review};
use crate::status::{Cause, Details, Result, Status};

pub const PLUGIN: Plugin = Plugin {
    name: "NamespaceLifecycle",
    on_by_default: true,
    resources: &[],
    mutate: Some(|context, review| Box::pin(admit(context, review))),
    validate: None,
};

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

async fn admit(context: &Context, review: &mut Review) -> Result<()> {
    if review.is_of("", "namespaces") {
        if review.operation == Operation::Delete && IMMORTAL.contains(&&*review.name) {
            return Err(review.forbid("this namespace may not be deleted"));
        }
        return Ok(());
    }
    let of_a_review = review.is_of("authorization.k8s.io", "localsubjectaccessreviews");
    if review.namespace.is_empty() || review.operation == Operation::Delete || of_a_review {
        return Ok(());
    }
    let namespace = &review.namespace;
    let Some(object) = context.lookup.get("", "namespaces", "", namespace).await? else {
        return Err(Status::not_found(&context.lookup.row("", "namespaces")?.resource, namespace));
    };
    if review.operation == Operation::Create && object.text(&["status", "phase"]) == "Terminating" {
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        let status = review.forbid(why);
        let cause = Cause {
            reason: "NamespaceTerminating",
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".to_owned(),
        };
        let details = Details { causes: vec![cause], ..status.details().clone() };
        return Err(status.with(details));
    }
    Ok(())
}
