//! Acting as somebody else by headers, for those who may. Source: apiserver `pkg/endpoints/filters/impersonation`.
//!
//! The verb is `impersonate` on each thing that is claimed. The finer verbs of KEP 5284 are not known here: who has
//! only those is refused.

use std::collections::BTreeMap;

use http::HeaderMap;

use super::{Attributes, User, groups, names, split_service_account};
use crate::request::decode;
use crate::status::{Result, Status};

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";

/// What is claimed, as a request to act for each part of it; and who it makes.
pub struct Impersonation {
    pub needs: Vec<Attributes>,
    pub user: User,
}

/// Takes the headers away: nothing behind this should behave differently by them. `None`: there are none.
///
/// # Errors
/// 400: groups, a UID or extras of nobody.
pub fn take(headers: &mut HeaderMap) -> Result<Option<Impersonation>> {
    let values = |name: &str| -> Vec<String> {
        headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
    };
    let name = values(USER).into_iter().next().unwrap_or_default();
    let uid = values(UID).into_iter().next().unwrap_or_default();
    let wanted_groups = values(GROUP);
    let mut extra = BTreeMap::<String, Vec<String>>::new();
    for (header, value) in &*headers {
        if let (Some(key), Ok(value)) = (header.as_str().strip_prefix(EXTRA), value.to_str()) {
            let key = decode(key, false).unwrap_or_else(|| key.to_owned());
            extra.entry(key).or_default().push(value.to_owned());
        }
    }
    if name.is_empty() {
        if uid.is_empty() && wanted_groups.is_empty() && extra.is_empty() {
            return Ok(None);
        }
        let user = User { name, uid, groups: wanted_groups, extra };
        return Err(Status::bad_request(format!("requested {user:?} without impersonating a user name")));
    }
    let mine = |header: &str| matches!(header, USER | UID | GROUP) || header.starts_with(EXTRA);
    let taken: Vec<_> = headers.keys().filter(|key| mine(key.as_str())).cloned().collect();
    for key in taken {
        headers.remove(key);
    }
    Ok(Some(Impersonation::of(User { name, uid, groups: wanted_groups, extra })))
}

impl Impersonation {
    fn of(mut user: User) -> Self {
        let need = |group: &str, resource: &str, name: &str| Attributes {
            verb: "impersonate".to_owned(),
            group: group.to_owned(),
            version: if group.is_empty() { String::new() } else { "v1".to_owned() },
            resource: resource.to_owned(),
            name: name.to_owned(),
            ..Attributes::default()
        };
        let account = split_service_account(&user.name);
        let mut needs = vec![match account {
            Some((namespace, name)) => {
                Attributes { namespace: namespace.to_owned(), ..need("", "serviceaccounts", name) }
            }
            None => need("", "users", &user.name),
        }];
        needs.extend(user.groups.iter().map(|group| need("", "groups", group)));
        for (key, values) in &user.extra {
            for value in values {
                let mut extra = need("authentication.k8s.io", "userextras", value);
                extra.subresource.clone_from(key);
                needs.push(extra);
            }
        }
        if !user.uid.is_empty() {
            needs.push(need("authentication.k8s.io", "uids", &user.uid));
        }
        if let (Some((namespace, name)), true) = (account, user.groups.is_empty()) {
            user.groups = User::service_account(namespace, name, "").groups;
        }
        let has = |group: &str| user.groups.iter().any(|one| one == group);
        let add = if user.name == names::ANONYMOUS {
            (!has(groups::UNAUTHENTICATED)).then_some(groups::UNAUTHENTICATED)
        } else {
            (!has(groups::AUTHENTICATED) && !has(groups::UNAUTHENTICATED)).then_some(groups::AUTHENTICATED)
        };
        user.groups.extend(add.map(str::to_owned));
        Self { needs, user }
    }
}
