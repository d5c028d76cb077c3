//! A pod acts as a ServiceAccount, and finds its token in `/var/run/secrets/kubernetes.io/serviceaccount`.
//! Source: kubernetes `plugin/pkg/admission/serviceaccount`.

use std::time::Duration;

use serde_json::{Value, json};

use super::pods::{self, Environment};
use super::{Context, Plugin};
use crate::fresh;
use crate::hooks::{Operation, Review};
use crate::object::Object;
use crate::status::Result;

pub const PLUGIN: Plugin = Plugin {
    name: "ServiceAccount",
    on_by_default: true,
    resources: &[("", "pods")],
    mutate: Some(|context, review| Box::pin(mutate(context, review))),
    validate: Some(|context, review| Box::pin(validate(context, review))),
};

const DEFAULT: &str = "default";
const VOLUME: &str = "kube-api-access-";
const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
/// Upstream's WarnOnlyBoundTokenExpirationSeconds.
const TOKEN_SECONDS: u32 = 60 * 60 + 7;
/// A new namespace's own account is made by a controller, a moment after the namespace.
const ATTEMPTS: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(100);

async fn mutate(context: &Context, review: &mut Review) -> Result<()> {
    let (Operation::Create, "") = (review.operation, &*review.subresource) else { return Ok(()) };
    let Some(pod) = &mut review.object else { return Ok(()) };
    if pods::is_mirror(pod) {
        return Ok(());
    }
    if pod.text(&["spec", "serviceAccountName"]).is_empty() {
        let spec = pods::spec_mut(pod);
        spec.insert("serviceAccountName".to_owned(), DEFAULT.into());
        // Of old clients; upstream answers both.
        spec.insert("serviceAccount".to_owned(), DEFAULT.into());
    }
    let account = account(context, review).await?;
    let Some(pod) = &mut review.object else { return Ok(()) };
    let spec = pods::spec_mut(pod);
    let wish = |value: Option<&Value>| value.and_then(Value::as_bool);
    let automount = wish(spec.get("automountServiceAccountToken"))
        .or(wish(account.0.get("automountServiceAccountToken")))
        .unwrap_or(true);
    if automount {
        mount_token(spec);
    }
    let none = spec.get("imagePullSecrets").and_then(Value::as_array).is_none_or(Vec::is_empty);
    if none {
        let own = account.0.get("imagePullSecrets").and_then(Value::as_array);
        let secrets: Vec<Value> =
            own.into_iter().flatten().map(|secret| json!({ "name": secret["name"] })).collect();
        if !secrets.is_empty() {
            spec.insert("imagePullSecrets".to_owned(), secrets.into());
        }
    }
    Ok(())
}

/// Every container that has nothing there gets the token; the volume is made if one does.
fn mount_token(spec: &mut serde_json::Map<String, Value>) {
    let named = spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
    let existing = named
        .filter_map(|volume| volume["name"].as_str())
        .find(|name| name.starts_with(VOLUME))
        .map(str::to_owned);
    let name = existing.clone().unwrap_or_else(|| fresh::name(VOLUME));
    let mut needed = false;
    for list in ["initContainers", "containers"] {
        for container in pods::items_mut(spec, list).filter_map(Value::as_object_mut) {
            let mounts = container.get("volumeMounts").and_then(Value::as_array);
            if mounts.into_iter().flatten().all(|mount| mount["mountPath"] != MOUNT) {
                let mount = json!({ "name": name, "readOnly": true, "mountPath": MOUNT });
                pods::push(container, "volumeMounts", mount);
                needed = true;
            }
        }
    }
    if needed && existing.is_none() {
        let field = json!({ "apiVersion": "v1", "fieldPath": "metadata.namespace" });
        let sources = json!([
            { "serviceAccountToken": { "path": "token", "expirationSeconds": TOKEN_SECONDS } },
            { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
            { "downwardAPI": { "items": [{ "path": "namespace", "fieldRef": field }] } },
        ]);
        let volume = json!({ "name": name, "projected": { "defaultMode": 0o644, "sources": sources } });
        pods::push(spec, "volumes", volume);
    }
}

async fn validate(context: &Context, review: &mut Review) -> Result<()> {
    let ephemeral = review.operation == Operation::Update && review.subresource == "ephemeralcontainers";
    if !ephemeral && (review.operation != Operation::Create || !review.subresource.is_empty()) {
        return Ok(());
    }
    let Some(pod) = &review.object else { return Ok(()) };
    let spec = pod.0.get("spec").unwrap_or(&Value::Null);
    let name = pod.text(&["spec", "serviceAccountName"]);
    if !ephemeral && pods::is_mirror(pod) {
        let token = pods::items(spec, "volumes")
            .flat_map(|volume| pods::items(&volume["projected"], "sources"))
            .any(|source| pods::has(source, "serviceAccountToken"));
        return match (name.is_empty(), pods::names_secrets(spec), token) {
            (false, ..) => Err(review.forbid("a mirror pod may not reference service accounts")),
            (_, true, _) => Err(review.forbid("a mirror pod may not reference secrets")),
            (.., true) => {
                Err(review.forbid("a mirror pod may not use ServiceAccountToken volume projections"))
            }
            _ => Ok(()),
        };
    }
    if name.is_empty() {
        let why = format!("no service account specified for pod {}/{}", review.namespace, pod.name());
        return Err(review.forbid(why));
    }
    let account = account(context, review).await?;
    let enforced = account.annotations().and_then(|annotations| annotations.get(ENFORCE));
    if enforced.and_then(Value::as_str).is_some_and(is_true) {
        let lists: &[(&str, &str)] = if ephemeral {
            &[("ephemeralContainers", "ephemeral container")]
        } else {
            &[("initContainers", "init container"), ("containers", "container")]
        };
        if let Some(why) = not_mountable(&account, spec, lists, !ephemeral) {
            return Err(review.forbid(why));
        }
    }
    Ok(())
}

/// As Go's `strconv.ParseBool`.
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// The first Secret of a pod that its account does not list.
fn not_mountable(
    account: &Object,
    spec: &Value,
    lists: &[(&'static str, &str)],
    whole: bool,
) -> Option<String> {
    let listed = |list: &str, name: &str| {
        let all = account.0.get(list).and_then(Value::as_array).into_iter().flatten();
        all.filter_map(|item| item["name"].as_str()).any(|one| one == name)
    };
    let of = account.name();
    if whole {
        let mut secrets =
            pods::items(spec, "volumes").filter_map(|volume| volume["secret"]["secretName"].as_str());
        if let Some(name) = secrets.find(|name| !listed("secrets", name)) {
            return Some(format!(
                "volume with secret.secretName=\"{name}\" is not allowed because service account {of} does not \
                 reference that secret"
            ));
        }
    }
    for (list, shown) in lists {
        for (container, env) in pods::environment(spec, list) {
            let Some(name) = env.secret().filter(|name| !listed("secrets", name)) else { continue };
            let what = match env {
                Environment::Variable(env) => {
                    format!("with envVar {}", env["name"].as_str().unwrap_or_default())
                }
                Environment::From(_) => "with envFrom".to_owned(),
            };
            let container = container["name"].as_str().unwrap_or_default();
            return Some(format!(
                "{shown} {container} {what} referencing secret.secretName=\"{name}\" is not allowed because service \
                 account {of} does not reference that secret"
            ));
        }
    }
    if whole {
        for (at, secret) in pods::items(spec, "imagePullSecrets").enumerate() {
            let name = secret["name"].as_str().unwrap_or_default();
            if !listed("imagePullSecrets", name) {
                return Some(format!(
                    "imagePullSecrets[{at}].name=\"{name}\" is not allowed because service account {of} does not \
                     reference that imagePullSecret"
                ));
            }
        }
    }
    None
}

async fn account(context: &Context, review: &Review) -> Result<Object> {
    let name = review.object.as_ref().map_or("", |pod| pod.text(&["spec", "serviceAccountName"]));
    let namespace = &review.namespace;
    let attempts = if name == DEFAULT { ATTEMPTS } else { 1 };
    for attempt in 0..attempts {
        if attempt > 0 {
            tokio::time::sleep(BETWEEN).await;
        }
        if let Some(account) = context.lookup.get("", "serviceaccounts", namespace, name).await? {
            return Ok(account);
        }
    }
    let why =
        format!("error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found");
    Err(review.forbid(why))
}
