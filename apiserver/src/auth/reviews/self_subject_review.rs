//! Who am I? Source: kubernetes `pkg/registry/authentication/selfsubjectreview`.

use serde_json::json;

use super::info;
use crate::auth::User;
use crate::fresh;
use crate::object::Object;

pub fn answer(user: &User, asked: Object) -> Object {
    let answer = json!({
        "kind": asked.kind(), "apiVersion": asked.api_version(),
        "metadata": { "creationTimestamp": fresh::now() },
        "status": { "userInfo": info(user) },
    });
    Object::of(answer).unwrap_or_default()
}
