//! `Impersonate-User` and its like: one who may acts as somebody else.
//! Source: apiserver `pkg/endpoints/filters/impersonation/impersonation.go`.

use std::collections::BTreeMap;

use http::{HeaderMap, StatusCode};

use super::pipeline::forbidden;
use crate::auth::{Attributes, Decision, User};
use crate::hooks::Authorizer;
use crate::request::decode;
use crate::status::{Result, Status};

const EXTRA: &str = "impersonate-extra-";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// Who is asked to be acted as. `None`: nobody.
///
/// # Errors
/// 500, as upstream: groups, a uid or extras without a user.
fn asked(headers: &HeaderMap) -> Result<Option<User>> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut user = User {
        name: text("impersonate-user").to_owned(),
        uid: text("impersonate-uid").to_owned(),
        groups: headers
            .get_all("impersonate-group")
            .iter()
            .filter_map(|value| value.to_str().ok().map(str::to_owned))
            .collect(),
        extra: BTreeMap::new(),
    };
    for (name, value) in headers {
        if let (Some(key), Ok(value)) = (name.as_str().strip_prefix(EXTRA), value.to_str()) {
            // What is no encoding is taken as it is.
            let key = decode(key, false).unwrap_or_else(|| key.to_owned());
            user.extra.entry(key).or_default().push(value.to_owned());
        }
    }
    if user == User::default() {
        return Ok(None);
    }
    if user.name.is_empty() {
        let message = "requested impersonation of groups, a uid or extras without impersonating a user";
        return Err(Status::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message));
    }
    Ok(Some(user))
}

/// Everything that acting as `user` takes leave for.
fn leaves(user: &User) -> Vec<Attributes> {
    let mut leaves = Vec::new();
    let mut leave = |group: &str, resource: &str, namespace: &str, name: &str, subresource: &str| {
        leaves.push(Attributes {
            verb: "impersonate".to_owned(),
            group: group.to_owned(),
            version: "v1".to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..Attributes::default()
        });
    };
    match service_account(&user.name) {
        Some((namespace, name)) => leave("", "serviceaccounts", namespace, name, ""),
        None => leave("", "users", "", &user.name, ""),
    }
    for group in &user.groups {
        leave("", "groups", "", group, "");
    }
    for (key, value) in user.extra.iter().flat_map(|(key, values)| values.iter().map(move |one| (key, one))) {
        leave("authentication.k8s.io", "userextras", "", value, key);
    }
    if !user.uid.is_empty() {
        leave("authentication.k8s.io", "uids", "", &user.uid, "");
    }
    leaves
}

fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT)?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

/// Who acts, when it is another than who asks.
///
/// # Errors
/// 403: who asks may not; 500 as above.
pub async fn impersonate(
    authorizer: &dyn Authorizer,
    user: &User,
    headers: &HeaderMap,
) -> Result<Option<User>> {
    let Some(other) = asked(headers)? else { return Ok(None) };
    for attributes in leaves(&other) {
        match authorizer.authorize(user, &attributes).await {
            Decision::Allow => {}
            Decision::Deny(why) | Decision::NoOpinion(why) => return Err(forbidden(user, &attributes, &why)),
        }
    }
    Ok(Some(with_groups(other)))
}

/// The groups that everybody of a sort is in.
fn with_groups(mut user: User) -> User {
    if let (true, Some((namespace, _))) = (user.groups.is_empty(), service_account(&user.name)) {
        user.groups =
            vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    }
    let group =
        if user.name == "system:anonymous" { "system:unauthenticated" } else { "system:authenticated" };
    let known = |one: &String| matches!(&**one, "system:authenticated" | "system:unauthenticated");
    if !user.groups.iter().any(known) {
        user.groups.push(group.to_owned());
    }
    user
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("a header"));
        }
        headers
    }

    #[test]
    fn a_service_account_brings_its_groups() {
        let user = asked(&headers(&[("impersonate-user", "system:serviceaccount:a:b")])).expect("valid");
        let user = with_groups(user.expect("somebody"));
        let expected = ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"];
        assert_eq!(user.groups, expected);
    }

    #[test]
    fn each_thing_taken_on_needs_its_leave() {
        let user = asked(&headers(&[
            ("impersonate-user", "a"),
            ("impersonate-group", "g"),
            ("impersonate-uid", "u"),
            ("impersonate-extra-x%2fy", "z"),
        ]));
        let user = user.expect("valid").expect("somebody");
        let leaves: Vec<_> = leaves(&user)
            .into_iter()
            .map(|one| (one.group, one.resource, one.subresource, one.name))
            .collect();
        let leave = |group: &str, resource: &str, subresource: &str, name: &str| {
            (group.to_owned(), resource.to_owned(), subresource.to_owned(), name.to_owned())
        };
        assert_eq!(
            leaves,
            [
                leave("", "users", "", "a"),
                leave("", "groups", "", "g"),
                leave("authentication.k8s.io", "userextras", "x/y", "z"),
                leave("authentication.k8s.io", "uids", "", "u"),
            ]
        );
    }

    #[test]
    fn groups_without_a_user_are_refused() {
        assert!(asked(&headers(&[("impersonate-group", "system:masters")])).is_err());
        assert_eq!(asked(&HeaderMap::new()), Ok(None));
    }
}
