//! DELETE of one object. Source: apiserver `pkg/endpoints/handlers/delete.go`, `pkg/registry/generic/registry/store.go`
//! (Delete); kubernetes `pkg/registry/core/namespace/storage/storage.go`.

use std::sync::Arc;

use corten_store::{Put, Swap};
use http::StatusCode;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::Api;
use crate::decode::{self, Expected};
use crate::deletion::{self, Asked, Decision, Propagation};
use crate::fresh;
use crate::hooks::Operation;
use crate::meta::{FOREGROUND, ORPHAN};
use crate::object::Object;
use crate::registry::Served;
use crate::request::{Answer, Call, Content, WriteOptions};
use crate::status::{Details, Result, Status};
use crate::stored::Form;
use crate::write::{Writing, failed};

/// What a deletion has come to.
pub struct Deleted {
    pub object: Object,
    /// It is gone; otherwise it waits.
    pub gone: bool,
    /// The answer is the object, whatever the kind.
    pub marked: bool,
}

/// # Errors
/// 400, 422 of options; 404; 409 of preconditions; of admission.
pub async fn delete(api: &Arc<Api>, call: &Call, served: &Arc<Served>, content: &Content) -> Result<Answer> {
    let info = &call.info;
    let asked = asked(call, content)?;
    let options = WriteOptions { dry_run: asked.dry_run, ..WriteOptions::default() };
    let writing = Writing {
        api,
        call,
        served,
        subresource: &info.subresource,
        namespace: &info.namespace,
        name: &info.name,
        options: &options,
    };
    let deleted = one(&writing, &asked).await?;
    let resource = &served.resource;
    let code = if !deleted.gone && asked.orphan_dependents == Some(false) {
        StatusCode::ACCEPTED
    } else {
        StatusCode::OK
    };
    if deleted.marked || deletion::answers_object(&resource.group, &resource.kind) {
        return Ok(Answer::of(code, &deleted.object, Some(Arc::clone(served))));
    }
    let mut details = json!({
        "name": deleted.object.name(), "kind": resource.plural, "uid": deleted.object.uid(),
    });
    if !resource.group.is_empty() {
        details["group"] = resource.group.as_ref().into();
    }
    Ok(success(code, details))
}

/// A Status that says no more than that it went well.
pub fn success(code: StatusCode, details: Value) -> Answer {
    let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    if !details.is_null() {
        status["details"] = details;
    }
    Answer::of(code, &Object::of(status).unwrap_or_default(), None)
}

/// The options of a deletion: a body, or the query where there is none.
///
/// # Errors
/// 400, 415, 422.
pub fn asked(call: &Call, content: &Content) -> Result<Asked> {
    if content.bytes.is_empty() {
        return Asked::of_query(&call.query);
    }
    const KIND: &str = "DeleteOptions";
    const META: &str = "meta.k8s.io/v1";
    let node = corten_schema::builtin()
        .of_api_version(META, KIND)
        .ok_or_else(|| Status::internal("the table has no DeleteOptions"))?;
    // Every group has its own name for the same options.
    let expected = Expected { api_version: META, kind: KIND, node, any_version: true, custom: None };
    let options = decode::read(content, expected)?.object;
    Asked::of(&options.0)
}

/// Deletes the object, or marks it and leaves the rest to who must see to it first.
///
/// # Errors
/// As [`delete`].
pub async fn one(writing: &Writing<'_>, asked: &Asked) -> Result<Deleted> {
    run(writing, asked, true).await
}

/// The same where admission has been asked about something else (an eviction).
///
/// # Errors
/// As [`delete`].
pub async fn without_admission(writing: &Writing<'_>, asked: &Asked) -> Result<Deleted> {
    run(writing, asked, false).await
}

async fn run(writing: &Writing<'_>, asked: &Asked, admit: bool) -> Result<Deleted> {
    let served = writing.served;
    let resource = &served.resource;
    let is_namespace = resource.group.is_empty() && resource.kind == "Namespace";
    loop {
        let kv = writing.read(writing.name).await?;
        let kv = kv.ok_or_else(|| Status::not_found(resource, writing.name))?;
        let old = Form::of(served).object(&kv, kv.mod_revision)?;
        preconditions(served, &old, asked)?;
        let decision = if is_namespace && !namespace_is_done(&old) {
            namespace(&old, asked)
        } else {
            let dependents = deletion::dependents(&resource.group, &resource.kind);
            deletion::decide(served.kind, dependents, &old, asked, Timestamp::now())
        };
        if decision == Decision::Pending {
            return Ok(Deleted { object: old, gone: false, marked: false });
        }
        if admit {
            let review = writing.review(Operation::Delete, None, Some(old.clone()), asked.to_json());
            writing.ask(review).await?;
        }
        let (mut object, mut revision, marked) = match decision {
            Decision::Pending => return Ok(Deleted { object: old, gone: false, marked: false }),
            Decision::Now => (old, kv.mod_revision, None),
            Decision::Mark { object, gone } => (object, kv.mod_revision, Some(gone)),
        };
        if asked.dry_run {
            return Ok(Deleted { object, gone: marked != Some(false), marked: marked == Some(false) });
        }
        if let Some(gone) = marked {
            let put = Put::update(kv.key.clone(), object.encode(), revision).lease(kv.lease);
            match writing.api.store.put(put).await.map_err(|error| failed(&error))? {
                Swap::Done(done) => revision = done,
                Swap::Changed { .. } => continue,
            }
            object.set_revision(revision);
            if !gone {
                return Ok(Deleted { object, gone: false, marked: true });
            }
        }
        let swap = writing.api.store.delete(&kv.key, revision).await.map_err(|error| failed(&error))?;
        match swap {
            Swap::Done(done) => {
                writing.release(&object).await;
                object.set_revision(done);
                return Ok(Deleted { object, gone: true, marked: false });
            }
            // Whom the mark was for has done it already.
            Swap::Changed { current: None, .. } if marked.is_some() => {
                return Ok(Deleted { object, gone: true, marked: false });
            }
            Swap::Changed { .. } => {}
        }
    }
}

fn preconditions(served: &Served, old: &Object, asked: &Asked) -> Result<()> {
    let resource = &served.resource;
    let conflict = |why: String| {
        let message =
            format!("Operation cannot be fulfilled on {} \"{}\": {why}", resource.group_kind(), old.name());
        let details = Details {
            group: resource.group.to_string(),
            kind: resource.kind.to_string(),
            name: old.name().to_owned(),
            ..Details::default()
        };
        Err(Status::new(StatusCode::CONFLICT, "Conflict", message).with(details))
    };
    if let Some(uid) = asked.uid.as_deref().filter(|uid| *uid != old.uid()) {
        return conflict(format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated",
            old.uid()
        ));
    }
    if let Some(version) =
        asked.resource_version.as_deref().filter(|version| *version != old.resource_version())
    {
        return conflict(format!(
            "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({}). The object might have been modified",
            old.resource_version()
        ));
    }
    Ok(())
}

/// It is being deleted, and empty.
fn namespace_is_done(old: &Object) -> bool {
    let finalizers = old.get(&["spec", "finalizers"]).and_then(Value::as_array);
    old.deletion_timestamp().is_some() && finalizers.is_none_or(Vec::is_empty)
}

/// A namespace is first emptied by its controller, then finalized.
fn namespace(old: &Object, asked: &Asked) -> Decision {
    if old.deletion_timestamp().is_some() {
        return Decision::Pending;
    }
    let mut object = old.clone();
    object.set_meta("deletionTimestamp", fresh::now());
    let status = object.0.entry("status").or_insert_with(|| json!({}));
    status["phase"] = "Terminating".into();
    let should = |name: &str, has: bool| match (asked.orphan_dependents, asked.propagation, name) {
        (Some(orphan), _, ORPHAN) => orphan,
        (Some(orphan), _, _) => !orphan,
        (None, Some(policy), ORPHAN) => policy == Propagation::Orphan,
        (None, Some(policy), _) => policy == Propagation::Foreground,
        (None, None, _) => has,
    };
    let mut finalizers: Vec<String> = old.finalizers().map(str::to_owned).collect();
    for name in [ORPHAN, FOREGROUND] {
        let has = finalizers.iter().any(|finalizer| finalizer == name);
        match (has, should(name, has)) {
            (false, true) => finalizers.push(name.to_owned()),
            (true, false) => finalizers.retain(|finalizer| finalizer != name),
            _ => {}
        }
    }
    if finalizers.is_empty() {
        object.meta_mut().remove("finalizers");
    } else {
        object.set_meta("finalizers", finalizers);
    }
    Decision::Mark { object, gone: false }
}
