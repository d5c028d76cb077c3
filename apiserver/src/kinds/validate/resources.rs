//! Resource names and amounts. Source: kubernetes `pkg/apis/core/validation`, `pkg/apis/core/helper`.

use super::{At, Causes, names};
use crate::kinds::quantity::Quantity;

const HUGE_PAGES: &str = "hugepages-";
const REQUESTS: &str = "requests.";

const CONTAINER: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const QUOTA: [&str; 19] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
/// Counts of objects: whole numbers.
const COUNTS: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

pub fn is_huge_pages(name: &str) -> bool {
    name.starts_with(HUGE_PAGES)
}

/// Kubernetes' own, not some vendor's.
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

pub fn is_overcommit_allowed(name: &str) -> bool {
    is_native(name) && !is_huge_pages(name)
}

fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with(REQUESTS)
        && names::qualified(&format!("{REQUESTS}{name}")).is_empty()
}

pub fn is_quota_standard(name: &str) -> bool {
    QUOTA.contains(&name) || is_huge_pages(name) || name.starts_with("requests.hugepages-")
}

/// A resource's name; false: there was something to say.
pub fn name(name: &str, at: &At<'_>, out: &mut Causes) -> bool {
    let errors = names::qualified(name);
    let fine = errors.is_empty();
    for detail in errors {
        at.invalid_value(&name.into(), detail, out);
    }
    if fine && !name.contains('/') && name != "storage" && !is_quota_standard(name) {
        at.invalid_value(&name.into(), "must be a standard resource type or fully qualified", out);
        return false;
    }
    fine
}

pub fn container_name(text: &str, at: &At<'_>, out: &mut Causes) {
    name(text, at, out);
    if !text.contains('/') {
        if !CONTAINER.contains(&text) && !is_huge_pages(text) {
            at.invalid_value(&text.into(), "must be a standard resource for containers", out);
        }
    } else if !is_native(text) && !is_extended(text) {
        at.invalid_value(&text.into(), "doesn't follow extended resource name standard", out);
    }
}

fn pod_name(text: &str, at: &At<'_>, out: &mut Causes) {
    if name(text, at, out) && !matches!(text, "cpu" | "memory") && !is_huge_pages(text) {
        let shown = crate::status::Cause::unsupported(
            at.path().to_string(),
            &text.into(),
            &["cpu", "hugepages-", "memory"],
        );
        out.push(shown);
    }
}

pub fn quota_name(text: &str, at: &At<'_>, out: &mut Causes) {
    name(text, at, out);
    if !text.contains('/') && !is_quota_standard(text) {
        at.invalid_value(&text.into(), "must be a standard resource for quota", out);
    }
}

/// Not negative; whole where things are counted.
pub fn amount(name: &str, at: &At<'_>, out: &mut Causes) {
    let Some(quantity) = Quantity::of(at.value()) else { return };
    if quantity.is_negative() {
        at.invalid_value(&quantity.to_string().into(), "must be greater than or equal to 0", out);
    }
    if (COUNTS.contains(&name) || is_extended(name)) && !quantity.is_whole() {
        at.invalid_value(&quantity.to_string().into(), "must be an integer", out);
    }
}

/// A list of resources, each with a name of some sort.
pub fn list(at: &At<'_>, name: fn(&str, &At<'_>, &mut Causes), out: &mut Causes) {
    for (key, entry) in at.entries() {
        name(key, &entry, out);
        amount(key, &entry, out);
    }
}

/// A container's `resources`.
pub fn of_container(at: &At<'_>, claims: &[&str], out: &mut Causes) {
    requirements(at, container_name, claims, out);
}

/// A pod's own `resources`.
pub fn of_pod(at: &At<'_>, claims: &[&str], out: &mut Causes) {
    if at.has("claims") {
        at.field("claims").forbidden("claims may not be set for Resources at pod-level", out);
    }
    requirements(at, pod_name, claims, out);
}

/// What a pod costs beyond its containers, told without a field of its own.
pub fn overhead(at: &At<'_>, out: &mut Causes) {
    let limits = at.shown_at(at.path().field("limits"));
    let huge = limit_list(&limits, container_name, out);
    if huge && !at.has("cpu") && !at.has("memory") {
        at.forbidden("HugePages require cpu or memory", out);
    }
}

/// True: there are huge pages among them.
fn limit_list(limits: &At<'_>, name: fn(&str, &At<'_>, &mut Causes), out: &mut Causes) -> bool {
    let mut huge = false;
    for (key, entry) in limits.entries() {
        name(key, &entry, out);
        amount(key, &entry, out);
        huge |= huge_pages(key, &entry, out);
    }
    huge
}

fn requirements(at: &At<'_>, name: fn(&str, &At<'_>, &mut Causes), claims: &[&str], out: &mut Causes) {
    let (limits, requests) = (at.field("limits"), at.field("requests"));
    let mut huge = limit_list(&limits, name, out);
    for (key, entry) in requests.entries() {
        name(key, &entry, out);
        amount(key, &entry, out);
        request(key, &entry, &limits, &requests, out);
        huge |= huge_pages(key, &entry, out);
    }
    let computes = |list: &At<'_>| list.has("cpu") || list.has("memory");
    if huge && !computes(&limits) && !computes(&requests) {
        at.forbidden("HugePages require cpu or memory", out);
    }
    claim_names(&at.field("claims"), claims, out);
}

fn request(key: &str, entry: &At<'_>, limits: &At<'_>, requests: &At<'_>, out: &mut Causes) {
    let limit = limits.key(key);
    let (Some(quantity), limit) = (Quantity::of(entry.value()), Quantity::of(limit.value())) else { return };
    let Some(limit) = limit else {
        if !is_overcommit_allowed(key) {
            limits.required("Limit must be set for non overcommitable resources", out);
        }
        return;
    };
    let shown = quantity.to_string().into();
    if quantity != limit && !is_overcommit_allowed(key) {
        requests.invalid_value(&shown, format_args!("must be equal to {key} limit of {limit}"), out);
    } else if quantity > limit {
        requests.invalid_value(
            &shown,
            format_args!("must be less than or equal to {key} limit of {limit}"),
            out,
        );
    }
}

fn huge_pages(key: &str, entry: &At<'_>, out: &mut Causes) -> bool {
    let Some(page) = key.strip_prefix(HUGE_PAGES) else { return false };
    let Some(quantity) = Quantity::of(entry.value()) else { return true };
    let page = Quantity::parse(page).filter(|page| page.is_positive() && page.is_whole());
    if page.is_none_or(|page| quantity.value() % page.value() != 0) {
        let detail = format_args!("{quantity} is not positive integer multiple of {key}").to_string();
        entry.invalid_value(&quantity.to_string().into(), detail, out);
    }
    true
}

fn claim_names(at: &At<'_>, claims: &[&str], out: &mut Causes) {
    let mut seen: Vec<String> = Vec::new();
    for item in at.items() {
        let (name, request) = (item.field("name").text(), item.field("request").text());
        if name.is_empty() {
            item.required("", out);
            continue;
        }
        if !request.is_empty() {
            item.field("request").names(names::dns_label, out);
        }
        let key = if request.is_empty() { name.to_owned() } else { format!("{name}/{request}") };
        if seen.iter().any(|one| {
            *one == name || *one == key || request.is_empty() && one.starts_with(&format!("{name}/"))
        }) {
            let shown = if seen.iter().any(|one| one == name) { name.to_owned() } else { key.clone() };
            item.duplicate_value(&shown.into(), out);
        }
        seen.push(key);
        if !claims.contains(&name) {
            let mut cause = crate::status::Cause::not_found(item.path().to_string(), &name.into());
            cause.message += ": must be one of the names in pod.spec.resourceClaims";
            if claims.is_empty() {
                cause.message += " which is empty";
            } else {
                let mut sorted = claims.to_vec();
                sorted.sort_unstable();
                cause.message += &format!(": {}", sorted.join(", "));
            }
            out.push(cause);
        }
    }
}
