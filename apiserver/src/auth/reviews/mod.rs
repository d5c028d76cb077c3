//! Questions about users and rights: objects that are created, answered and not kept.
//! Source: kubernetes `pkg/registry/{authentication,authorization}`.

mod self_subject_review;
mod self_subject_rules_review;
mod subject_access_review;
mod token_review;

use std::sync::Arc;

use corten_schema::Resource;
use http::StatusCode;
use serde_json::{Value, json};

use super::{Auth, User};
use crate::api::Api;
use crate::decode;
use crate::object::Object;
use crate::registry::Served;
use crate::request::{Answer, Call, Content, WriteOptions};
use crate::status::{Cause, Result, Status};

/// Is it answered here, and kept nowhere?
pub fn are(resource: &Resource) -> bool {
    matches!(&*resource.group, "authentication.k8s.io" | "authorization.k8s.io")
}

/// # Errors
/// 400, 415, 422 of what is no such question.
pub async fn create(api: &Arc<Api>, call: &Call, served: &Arc<Served>, content: &Content) -> Result<Answer> {
    let Some(auth) = &api.auth else {
        return Err(Status::internal("this server asks nobody who he is, so it cannot say"));
    };
    let options = WriteOptions::of(&call.query, "CreateOptions", false)?;
    let object = decode::resource(call, content, served, options.validation)?;
    let object = answer(auth, &served.resource.kind, &call.user, &call.info.namespace, object).await?;
    Ok(Answer::of(StatusCode::CREATED, &object, Some(Arc::clone(served))))
}

/// `namespace`: of the path.
async fn answer(auth: &Auth, kind: &str, user: &User, namespace: &str, object: Object) -> Result<Object> {
    match kind {
        "TokenReview" => token_review::answer(auth, object).await,
        "SelfSubjectReview" => Ok(self_subject_review::answer(user, object)),
        "SelfSubjectRulesReview" => self_subject_rules_review::answer(auth, user, object).await,
        "SubjectAccessReview" | "LocalSubjectAccessReview" | "SelfSubjectAccessReview" => {
            subject_access_review::answer(auth, kind, user, namespace, object).await
        }
        _ => Err(Status::internal(format!("{kind} has no answer"))),
    }
}

/// A `UserInfo`.
fn info(user: &User) -> Value {
    let mut info = json!({ "username": user.name });
    if !user.uid.is_empty() {
        info["uid"] = user.uid.clone().into();
    }
    if !user.groups.is_empty() {
        info["groups"] = user.groups.clone().into();
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

/// 422 about a question, which has no name.
fn invalid(group: &str, kind: &str, causes: Vec<Cause>) -> Result<()> {
    if causes.is_empty() {
        return Ok(());
    }
    let of = corten_schema::builtin().resources.iter().find(|row| row.group == group && row.kind == kind);
    Err(match of {
        Some(resource) => Status::invalid(resource, "", causes),
        None => Status::internal(format!("{kind} is not served")),
    })
}

#[cfg(test)]
mod tests;
