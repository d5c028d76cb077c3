//! Who puts a certificate into a CertificateSigningRequest must be allowed to, for its signer.
//! Source: kubernetes `plugin/pkg/admission/certificates/signing`.

use super::certificate_approval::may;
use super::{Context, Plugin};
use crate::hooks::{Operation, Review};
use crate::status::Result;

pub const PLUGIN: Plugin = Plugin {
    name: "CertificateSigning",
    on_by_default: true,
    resources: &[("certificates.k8s.io", "certificatesigningrequests")],
    mutate: None,
    validate: Some(|context, review| Box::pin(validate(context, review))),
};

async fn validate(context: &Context, review: &mut Review) -> Result<()> {
    if review.operation != Operation::Update || review.subresource != "status" {
        return Ok(());
    }
    let (Some(new), Some(old)) = (&review.object, &review.old) else { return Ok(()) };
    let same = |field: &str| new.get(&["status", field]) == old.get(&["status", field]);
    if same("certificate") && same("conditions") {
        return Ok(());
    }
    let signer = old.text(&["spec", "signerName"]);
    if may(context, review, "sign", signer).await {
        return Ok(());
    }
    Err(review.forbid(format!("user not permitted to sign requests with signerName {signer:?}")))
}
