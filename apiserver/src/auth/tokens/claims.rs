//! What a token says. Source: kubernetes `pkg/serviceaccount/claims.go`.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reference {
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// What a token lives with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    Nothing,
    Pod {
        pod: Reference,
        /// Where it runs, for who reads the token.
        node: Option<Reference>,
    },
    Secret(Reference),
    Node(Reference),
}

/// The claims of RFC 7519 and ours.
#[derive(Debug, Clone, Deserialize)]
pub struct Claims {
    pub iss: String,
    #[serde(default)]
    pub sub: String,
    #[serde(default)]
    pub aud: Audience,
    pub exp: Option<f64>,
    pub nbf: Option<f64>,
    pub iat: Option<f64>,
    #[serde(default)]
    pub jti: String,
    #[serde(default, rename = "kubernetes.io")]
    pub private: Private,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Private {
    pub namespace: String,
    pub serviceaccount: Reference,
    pub pod: Option<Reference>,
    pub secret: Option<Reference>,
    pub node: Option<Reference>,
    pub warnafter: Option<f64>,
}

/// One or a list.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Audience {
    pub fn list(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}
