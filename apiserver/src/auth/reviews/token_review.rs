//! Whose token is it? Source: kubernetes `pkg/registry/authentication/tokenreview`.

use serde_json::{Value, json};

use super::info;
use crate::auth::Auth;
use crate::object::Object;
use crate::status::{Result, Status};

pub async fn answer(auth: &Auth, mut object: Object) -> Result<Object> {
    let token = object.text(&["spec", "token"]).to_owned();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let wanted = object.get(&["spec", "audiences"]).and_then(Value::as_array);
    let wanted: Vec<String> =
        wanted.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let wanted = (!wanted.is_empty()).then_some(wanted.as_slice());
    let status = match auth.authenticator.token(&token, wanted).await {
        Ok(proven) => {
            let mut status = json!({ "authenticated": true, "user": info(&proven.user.authenticated()) });
            if !proven.audiences.is_empty() {
                status["audiences"] = proven.audiences.into();
            }
            status
        }
        Err(why) => json!({ "user": {}, "error": why }),
    };
    object.0.insert("status".to_owned(), status);
    Ok(object)
}
