//! Who approves a CertificateSigningRequest must be allowed to, for its signer.
//! Source: kubernetes `plugin/pkg/admission/certificates/approval`, `pkg/certauthorization`.

use super::{Context, Plugin};
use crate::auth::{Attributes, Decision};
use crate::hooks::{Operation, Review};
use crate::status::Result;

pub const PLUGIN: Plugin = Plugin {
    name: "CertificateApproval",
    on_by_default: true,
    resources: &[("certificates.k8s.io", "certificatesigningrequests")],
    mutate: None,
    validate: Some(|context, review| Box::pin(validate(context, review))),
};

async fn validate(context: &Context, review: &mut Review) -> Result<()> {
    if review.operation != Operation::Update || review.subresource != "approval" {
        return Ok(());
    }
    // Of what is there: the signer cannot be changed on the way.
    let signer = review.old.as_ref().map_or("", |old| old.text(&["spec", "signerName"]));
    if may(context, review, "approve", signer).await {
        return Ok(());
    }
    Err(review.forbid(format!("user not permitted to approve requests with signerName {signer:?}")))
}

/// On this signer, or on all of its domain.
pub async fn may(context: &Context, review: &Review, verb: &str, signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or_default();
    for name in [signer.to_owned(), format!("{domain}/*")] {
        let asked = Attributes {
            verb: verb.to_owned(),
            group: "certificates.k8s.io".to_owned(),
            version: "*".to_owned(),
            resource: "signers".to_owned(),
            name,
            ..Attributes::default()
        };
        if context.authorizer.decide_settled(&review.user, &asked).await == Decision::Allow {
            return true;
        }
    }
    false
}
