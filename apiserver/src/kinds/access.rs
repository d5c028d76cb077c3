//! Roles, bindings, certificate requests.

use serde_json::{Value, json};

use super::fill::{Fill, With, fill, items, made, text};
use super::validate::{At, Causes, Check, Rule, labels, names, same};
use super::{Kind, Preparing, common};
use crate::object::Object;
use crate::status::Cause;

const GROUP: &str = "rbac.authorization.k8s.io";

pub static ROLE: Kind = Kind {
    name: names::path_segment,
    validate: |object| rules(object, true),
    validate_update: |new, _| rules(new, true),
    ..Kind::PLAIN
};

pub static CLUSTER_ROLE: Kind = Kind {
    name: names::path_segment,
    validate: |object| rules(object, false),
    validate_update: |new, _| rules(new, false),
    ..Kind::PLAIN
};

fn rules(object: &Object, namespaced: bool) -> Vec<Cause> {
    let mut out = Causes::new();
    let root = At::root(object);
    for rule in root.field("rules").items() {
        let field = |name| rule.field(name);
        if field("verbs").is_empty() {
            field("verbs").required("verbs must contain at least one value", &mut out);
        }
        let paths = field("nonResourceURLs");
        let resources = ["apiGroups", "resources", "resourceNames"].map(field);
        if !paths.is_empty() {
            if namespaced {
                paths.invalid("namespaced rules cannot apply to non-resource URLs", &mut out);
            }
            if resources.iter().any(|list| !list.is_empty()) {
                let detail = "rules cannot apply to both regular resources and non-resource URLs";
                paths.invalid(detail, &mut out);
            }
            continue;
        }
        if resources[0].is_empty() {
            resources[0].required("resource rules must supply at least one api group", &mut out);
        }
        if resources[1].is_empty() {
            resources[1].required("resource rules must supply at least one resource", &mut out);
        }
    }
    let aggregation = root.field("aggregationRule");
    if aggregation.is_set() && !namespaced {
        let selectors = aggregation.field("clusterRoleSelectors");
        if selectors.is_empty() {
            let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
            selectors.required(detail, &mut out);
        }
        selectors.items().for_each(|selector| labels::selector(&selector, &mut out));
    }
    out
}

pub static ROLE_BINDING: Kind = Kind {
    name: names::path_segment,
    default: binding_defaults,
    validate: |object| binding(object, true),
    validate_update: |new, old| binding_update(new, old, true),
    ..Kind::PLAIN
};

pub static CLUSTER_ROLE_BINDING: Kind = Kind {
    name: names::path_segment,
    default: binding_defaults,
    validate: |object| binding(object, false),
    validate_update: |new, old| binding_update(new, old, false),
    ..Kind::PLAIN
};

fn binding_defaults(object: &mut Object) {
    fill(made(&mut object.0, "roleRef"), &[Fill("apiGroup", With::Text(GROUP))]);
    for subject in items(&mut object.0, "subjects") {
        if matches!(text(subject, "kind"), "User" | "Group") {
            fill(subject, &[Fill("apiGroup", With::Text(GROUP))]);
        }
    }
}

fn binding(object: &Object, namespaced: bool) -> Vec<Cause> {
    let mut out = Causes::new();
    let root = At::root(object);
    let role = root.field("roleRef");
    if role.field("apiGroup").text() != GROUP {
        role.field("apiGroup").unsupported(&[GROUP], &mut out);
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&role.field("kind").text()) {
        role.field("kind").unsupported(kinds, &mut out);
    }
    role.check(&[Rule("name", Check::RequiredText(names::path_segment))], &mut out);
    for subject in root.field("subjects").items() {
        let field = |name| subject.field(name);
        if field("name").is_empty() {
            field("name").required("", &mut out);
        }
        match field("kind").text() {
            "ServiceAccount" => {
                if !field("name").is_empty() {
                    field("name").names(names::dns_subdomain, &mut out);
                }
                if !field("apiGroup").is_empty() {
                    field("apiGroup").unsupported(&[""], &mut out);
                }
                if !namespaced && field("namespace").is_empty() {
                    field("namespace").required("", &mut out);
                }
            }
            "User" | "Group" => {
                if field("apiGroup").text() != GROUP {
                    field("apiGroup").unsupported(&[GROUP], &mut out);
                }
            }
            _ => field("kind").unsupported(&["ServiceAccount", "User", "Group"], &mut out),
        }
    }
    out
}

fn binding_update(new: &Object, old: &Object, namespaced: bool) -> Vec<Cause> {
    let mut out = binding(new, namespaced);
    let role = At::root(new).field("roleRef");
    if !same(role.value(), At::root(old).field("roleRef").value()) {
        let field = |name| role.field(name).value();
        let shape = [("APIGroup", field("apiGroup")), ("Kind", field("kind")), ("Name", field("name"))];
        role.invalid_shape(&shape, "cannot change roleRef", &mut out);
    }
    out
}

pub static SIGNING_REQUEST: Kind = Kind {
    name: names::anything,
    default: |object| {
        made(&mut object.0, "status");
    },
    prepare_create: |object, preparing| {
        let user = preparing.user;
        let spec = made(&mut object.0, "spec");
        for field in ["username", "uid", "groups", "extra"] {
            spec.remove(field);
        }
        let mut set = |field: &str, value: Value| {
            if !super::validate::is_empty(&value) {
                spec.insert(field.to_owned(), value);
            }
        };
        set("username", json!(user.name));
        set("uid", json!(user.uid));
        set("groups", json!(user.groups));
        set("extra", json!(user.extra));
        object.0.insert("status".to_owned(), json!({}));
    },
    prepare_update: |new, old, _| {
        common::keep(new, old, "spec");
        common::keep(new, old, "status");
    },
    prepare_subresource: signing_subresource,
    validate: |object| {
        let mut out = Causes::new();
        signing_request(object, &mut out);
        out
    },
    validate_update: |new, _| {
        let mut out = Causes::new();
        signing_request(new, &mut out);
        out
    },
    validate_subresource: signing_update,
    field: |object, label| match label {
        "spec.signerName" => common::selected(object, &["spec", "signerName"]),
        _ => None,
    },
    ..Kind::PLAIN
};

const DECIDING: [&str; 2] = ["Approved", "Denied"];

fn signing_subresource(subresource: &str, new: &mut Object, old: &Object, preparing: &Preparing<'_>) {
    let conditions = new.get(&["status", "conditions"]).cloned();
    let before = old.get(&["status", "conditions"]).cloned().unwrap_or_default();
    let before = before.as_array().cloned().unwrap_or_default();
    let mut conditions = conditions.and_then(|list| list.as_array().cloned()).unwrap_or_default();
    common::keep(new, old, "spec");
    if subresource == "approval" {
        common::keep(new, old, "status");
    } else if subresource == "status" {
        // Only the other path decides.
        for kind in DECIDING {
            let was = before.iter().find(|one| one["type"] == kind);
            conditions.retain(|one| one["type"] != kind || was.is_some());
            conditions.iter_mut().filter(|one| one["type"] == kind).for_each(|one| {
                if let Some(was) = was {
                    one.clone_from(was);
                }
            });
        }
    }
    for condition in &mut conditions {
        if condition["lastUpdateTime"].is_null() {
            condition["lastUpdateTime"] = preparing.now.into();
        }
        if condition["lastTransitionTime"].is_null() {
            let was = before
                .iter()
                .find(|one| one["type"] == condition["type"] && one["status"] == condition["status"]);
            let time = was.map(|one| one["lastTransitionTime"].clone()).filter(|time| !time.is_null());
            condition["lastTransitionTime"] = time.unwrap_or_else(|| preparing.now.into());
        }
    }
    let status = made(&mut new.0, "status");
    if conditions.is_empty() {
        status.remove("conditions");
    } else {
        status.insert("conditions".to_owned(), conditions.into());
    }
}

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

fn signing_request(object: &Object, out: &mut Causes) {
    let root = At::root(object);
    let spec = root.field("spec");
    let request = spec.field("request");
    if let Err(why) = certificate_request(request.text()) {
        request.invalid(why, out);
    }
    let usages = spec.field("usages");
    if usages.is_empty() {
        usages.required("", out);
    }
    for usage in usages.items().filter(|usage| !USAGES.contains(&usage.text())) {
        usage.unsupported(USAGES, out);
    }
    let mut seen = Vec::new();
    for usage in usages.items() {
        if seen.contains(&usage.text()) {
            usage.duplicate(out);
        }
        seen.push(usage.text());
    }
    let signer = spec.field("signerName");
    if signer.text() == "kubernetes.io/legacy-unknown" {
        signer.invalid("the legacy signerName is not allowed via this API version", out);
    } else {
        signer_name(&signer, out);
    }
    let seconds = spec.field("expirationSeconds");
    if seconds.is_set() && seconds.int() < 600 {
        seconds.invalid("may not specify a duration less than 600 seconds (10 minutes)", out);
    }
    conditions(&root.down(&["status", "conditions"]), out);
}

fn certificate_request(text: &str) -> Result<(), String> {
    use base64::Engine;
    let none = || "PEM block type must be CERTIFICATE REQUEST".to_owned();
    let pem = base64::engine::general_purpose::STANDARD.decode(text).map_err(|_| none())?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).map_err(|_| none())?;
    if pem.label != "CERTIFICATE REQUEST" {
        return Err(none());
    }
    use x509_parser::prelude::FromDer;
    x509_parser::certification_request::X509CertificationRequest::from_der(&pem.contents)
        .map(|_| ())
        .map_err(|_| "asn1: structure error: malformed certificate request".to_owned())
}

fn signer_name(at: &At<'_>, out: &mut Causes) {
    let text = at.text();
    if text.is_empty() {
        return at.required("", out);
    }
    let Some((domain, path)) = text.split_once('/').filter(|(_, path)| !path.contains('/')) else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return at.invalid(detail, out);
    };
    let mut tell = |part: &str, of: fn(&str) -> Vec<String>| {
        let wrong = part.split('.').find(|label| !of(label).is_empty());
        for detail in wrong.iter().flat_map(|label| of(label)) {
            let label = wrong.unwrap_or_default();
            at.invalid_value(&part.into(), format_args!("validating label \"{label}\": {detail}"), out);
        }
    };
    tell(domain, names::dns_label);
    if !domain.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        at.invalid_value(&domain.into(), detail, out);
    }
    let mut tell = |part: &str, of: fn(&str) -> Vec<String>| {
        let wrong = part.split('.').find(|label| !of(label).is_empty());
        for detail in wrong.iter().flat_map(|label| of(label)) {
            let label = wrong.unwrap_or_default();
            at.invalid_value(&part.into(), format_args!("validating label \"{label}\": {detail}"), out);
        }
    };
    tell(path, names::dns_subdomain);
}

fn conditions(list: &At<'_>, out: &mut Causes) {
    let (mut seen, mut decided) = (Vec::new(), Vec::new());
    for condition in list.items() {
        let (kind, status) = (condition.field("type"), condition.field("status"));
        if kind.is_empty() {
            kind.required("", out);
        }
        let only_true = DECIDING.contains(&kind.text()) || kind.text() == "Failed";
        status.one_of(if only_true { &["True"] } else { &["False", "True", "Unknown"] }, out);
        if DECIDING.contains(&kind.text()) {
            decided.push(kind.text());
            if decided.contains(&DECIDING[0]) && decided.contains(&DECIDING[1]) {
                let detail = "Approved and Denied conditions are mutually exclusive";
                list.invalid_value(kind.value(), detail, out);
            }
        }
        if seen.contains(&kind.text()) {
            kind.duplicate(out);
        }
        seen.push(kind.text());
    }
}

fn signing_update(subresource: &str, new: &Object, old: &Object) -> Vec<Cause> {
    let mut out = Causes::new();
    signing_request(new, &mut out);
    let (root, before) = (At::root(new), At::root(old));
    let (list, had) = (root.down(&["status", "conditions"]), before.down(&["status", "conditions"]));
    for kind in ["Approved", "Denied", "Failed"] {
        let of = |list: &At<'_>| list.items().filter(|one| one.field("type").text() == kind).count();
        if of(&list) < of(&had) {
            list.forbidden(format_args!("updates may not remove a condition of type \"{kind}\""), &mut out);
        } else if of(&list) > of(&had) && subresource != "approval" && DECIDING.contains(&kind) {
            list.forbidden(format_args!("updates may not add a condition of type \"{kind}\""), &mut out);
        }
    }
    let (certificate, was) = (root.down(&["status", "certificate"]), before.down(&["status", "certificate"]));
    if !same(certificate.value(), was.value()) {
        if subresource != "status" {
            certificate.forbidden("updates may not set certificate content", &mut out);
        } else if !was.is_empty() {
            certificate.forbidden("updates may not modify existing certificate content", &mut out);
        }
    }
    out
}
