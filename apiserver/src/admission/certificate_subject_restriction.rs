//! No certificate for `system:masters` by request. Source: kubernetes
//! `plugin/pkg/admission/certificates/subjectrestriction`.

use std::future::ready;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::Plugin;
use crate::auth::groups;
use crate::hooks::{Operation, Review};
use crate::object::Object;
use crate::status::Result;

pub const PLUGIN: Plugin = Plugin {
    name: "CertificateSubjectRestriction",
    on_by_default: true,
    resources: &[("certificates.k8s.io", "certificatesigningrequests")],
    mutate: None,
    validate: Some(|_, review| Box::pin(ready(validate(review)))),
};

const SIGNER: &str = "kubernetes.io/kube-apiserver-client";

fn validate(review: &Review) -> Result<()> {
    let (Operation::Create, "", Some(request)) = (review.operation, &*review.subresource, &review.object)
    else {
        return Ok(());
    };
    if request.text(&["spec", "signerName"]) != SIGNER {
        return Ok(());
    }
    let subject = subject(request).map_err(|why| review.forbid(format!("failed to parse CSR: {why}")))?;
    if subject.organizations.iter().any(|group| group == groups::MASTERS) {
        let why = format!("use of {SIGNER} signer with system:masters group is not allowed");
        return Err(review.forbid(why));
    }
    Ok(())
}

pub struct Subject {
    pub common_name: String,
    pub organizations: Vec<String>,
}

/// Whom a CertificateSigningRequest asks for.
pub fn subject(request: &Object) -> Result<Subject, String> {
    const NOT_PEM: &str = "PEM block type must be CERTIFICATE REQUEST";
    let pem = BASE64_STANDARD.decode(request.text(&["spec", "request"])).map_err(|_| NOT_PEM)?;
    let der = CertificateSigningRequestDer::from_pem_slice(&pem).map_err(|_| NOT_PEM)?;
    let (_, parsed) = X509CertificationRequest::from_der(&der).map_err(|error| error.to_string())?;
    let subject = &parsed.certification_request_info.subject;
    let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        value.as_str().map(str::to_owned).map_err(|error| error.to_string())
    };
    Ok(Subject {
        common_name: subject.iter_common_name().last().map(text).transpose()?.unwrap_or_default(),
        organizations: subject.iter_organization().map(text).collect::<Result<_, _>>()?,
    })
}
