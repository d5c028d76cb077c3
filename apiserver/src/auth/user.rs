//! Names that the API server gives a meaning. Source: apiserver `pkg/authentication/{user,serviceaccount}`.

use super::User;

pub mod names {
    pub const ANONYMOUS: &str = "system:anonymous";
    pub const NODE_PREFIX: &str = "system:node:";
    pub const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";
    pub const BOOTSTRAP_PREFIX: &str = "system:bootstrap:";
    /// This server itself, in its own process.
    pub const API_SERVER: &str = "system:apiserver";
}

pub mod groups {
    pub const MASTERS: &str = "system:masters";
    pub const NODES: &str = "system:nodes";
    pub const AUTHENTICATED: &str = "system:authenticated";
    pub const UNAUTHENTICATED: &str = "system:unauthenticated";
    pub const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
    pub const BOOTSTRAPPERS: &str = "system:bootstrappers";
}

pub mod extra {
    pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
    pub const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
    pub const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
    pub const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
    pub const NODE_UID: &str = "authentication.kubernetes.io/node-uid";
}

impl User {
    pub fn anonymous() -> Self {
        Self {
            name: names::ANONYMOUS.to_owned(),
            groups: vec![groups::UNAUTHENTICATED.to_owned()],
            ..Self::default()
        }
    }

    /// What runs in this process: may do everything.
    pub fn loopback() -> Self {
        Self {
            name: names::API_SERVER.to_owned(),
            groups: vec![groups::MASTERS.to_owned(), groups::AUTHENTICATED.to_owned()],
            ..Self::default()
        }
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|one| one == group)
    }

    /// The node whose kubelet this is. Source: kubernetes `pkg/auth/nodeidentifier`.
    pub fn node(&self) -> Option<&str> {
        let node = self.name.strip_prefix(names::NODE_PREFIX)?;
        self.is_in(groups::NODES).then_some(node)
    }

    /// With `system:authenticated`, unless it says already what it is.
    #[must_use]
    pub fn authenticated(mut self) -> Self {
        if self.name != names::ANONYMOUS
            && !self.is_in(groups::AUTHENTICATED)
            && !self.is_in(groups::UNAUTHENTICATED)
        {
            self.groups.push(groups::AUTHENTICATED.to_owned());
        }
        self
    }

    pub fn service_account(namespace: &str, name: &str, uid: &str) -> Self {
        Self {
            name: service_account(namespace, name),
            uid: uid.to_owned(),
            groups: vec![
                groups::SERVICE_ACCOUNTS.to_owned(),
                format!("{}:{namespace}", groups::SERVICE_ACCOUNTS),
            ],
            ..Self::default()
        }
    }
}

/// `system:serviceaccount:NAMESPACE:NAME`.
pub fn service_account(namespace: &str, name: &str) -> String {
    format!("{}{namespace}:{name}", names::SERVICE_ACCOUNT_PREFIX)
}

/// Namespace and name of a ServiceAccount's user name.
pub fn split_service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(names::SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
    let label = |text: &str, dots: bool| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let (first, last) = (text.bytes().next(), text.bytes().next_back());
        text.len() <= if dots { 253 } else { 63 }
            && first.is_some_and(inner)
            && last.is_some_and(inner)
            && text.bytes().all(|byte| inner(byte) || byte == b'-' || (dots && byte == b'.'))
    };
    (label(namespace, false) && label(name, true)).then_some((namespace, name))
}
