//! Credentials and challenges. Pure: header text in, what to ask for out.
//! Source: distribution docs "Token Authentication Specification", RFC 9110 section 11.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What a client gave for a pull; the fields of CRI's AuthConfig.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Auth {
    pub username: String,
    pub password: String,
    /// base64 of `username:password`.
    pub auth: String,
    /// The host these are for; empty: the registry of the image.
    pub server_address: String,
    /// Exchanged for an access token at the realm (OAuth2 refresh token).
    pub identity_token: String,
    /// Sent as it is: `Authorization: Bearer`.
    pub registry_token: String,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("server_address", &self.server_address).finish_non_exhaustive()
    }
}

#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    Basic { username: String, password: String },
    IdentityToken(String),
    RegistryToken(String),
}

impl Auth {
    /// `None`: anonymous.
    pub fn credentials(&self) -> Result<Option<Credentials>, &'static str> {
        if !self.registry_token.is_empty() {
            return Ok(Some(Credentials::RegistryToken(self.registry_token.clone())));
        }
        if !self.identity_token.is_empty() {
            return Ok(Some(Credentials::IdentityToken(self.identity_token.clone())));
        }
        if !self.username.is_empty() {
            let (username, password) = (self.username.clone(), self.password.clone());
            return Ok(Some(Credentials::Basic { username, password }));
        }
        if self.auth.is_empty() {
            return Ok(None);
        }
        let malformed = "the field `auth` is not base64 of username:password";
        let decoded = STANDARD.decode(self.auth.trim()).map_err(|_| malformed)?;
        let text = String::from_utf8(decoded).map_err(|_| malformed)?;
        let (username, password) = text.split_once(':').ok_or(malformed)?;
        // Docker's config files pad the password with NULs.
        let (username, password) = (username.to_owned(), password.trim_matches('\0').to_owned());
        Ok(Some(Credentials::Basic { username, password }))
    }

    /// Whether a host may see these credentials (CVE-2020-15157): the one they name, else the registry itself.
    pub fn is_for(&self, authority: &str, origin: bool) -> bool {
        let named = self.server_address.trim_start_matches("https://").trim_start_matches("http://");
        match named.split('/').next().unwrap_or_default() {
            "" => origin,
            "docker.io" | "index.docker.io" => {
                origin && authority == "registry-1.docker.io" || named == authority
            }
            named => named == authority,
        }
    }
}

pub fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// The challenges of one WWW-Authenticate value that we can meet.
pub fn challenges(header: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut rest = header.trim();
    while !rest.is_empty() {
        let end = rest.find([' ', ',']).unwrap_or(rest.len());
        let scheme = rest[..end].to_ascii_lowercase();
        rest = rest[end..].trim_start_matches([' ', ',']);
        let mut parameters = Vec::new();
        while let Some((name, value, after)) = parameter(rest) {
            parameters.push((name, value));
            rest = after;
        }
        let take =
            |name: &str| parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        match (scheme.as_str(), take("realm")) {
            ("basic", _) => found.push(Challenge::Basic),
            ("bearer", Some(realm)) => {
                found.push(Challenge::Bearer { realm, service: take("service"), scope: take("scope") });
            }
            _ => {}
        }
    }
    found
}

/// `name=value` or `name="quoted \" value"`, and what follows its comma.
fn parameter(text: &str) -> Option<(String, String, &str)> {
    let equals = text.find('=')?;
    let name = text[..equals].trim();
    if name.is_empty() || name.contains([' ', ',', '"']) {
        return None;
    }
    let rest = &text[equals + 1..];
    let (value, after) = if let Some(quoted) = rest.strip_prefix('"') {
        let mut value = String::new();
        let mut escaped = false;
        let end = quoted.char_indices().find_map(|(at, c)| {
            match c {
                _ if escaped => escaped = false,
                '\\' => {
                    escaped = true;
                    return None;
                }
                '"' => return Some(at),
                _ => {}
            }
            value.push(c);
            None
        })?;
        (value, &quoted[end + 1..])
    } else {
        let end = rest.find([',', ' ']).unwrap_or(rest.len());
        (rest[..end].to_owned(), &rest[end..])
    };
    Some((name.to_ascii_lowercase(), value, after.trim_start_matches([' ', ','])))
}

/// Percent-encodes a query or form value.
pub fn encode(value: &str) -> String {
    use std::fmt::Write;
    value.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_of_real_registries() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| Challenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scope: scope.map(Into::into),
        };
        let cases = [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/a:pull,push""#,
                vec![bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    Some("repository:library/a:pull,push"),
                )],
            ),
            (r#"Basic realm="Registry Realm""#, vec![Challenge::Basic]),
            (
                r#"BASIC realm="x", Bearer realm="https://r/t""#,
                vec![Challenge::Basic, bearer("https://r/t", None, None)],
            ),
            ("Bearer realm=https://r/t, service=s", vec![bearer("https://r/t", Some("s"), None)]),
            (r#"Bearer realm="a \"b\"""#, vec![bearer("a \"b\"", None, None)]),
            ("Negotiate", vec![]),
            (r#"Bearer service="no realm""#, vec![]),
            (r#"Bearer realm="unterminated"#, vec![]),
            ("", vec![]),
            ("=,=,==", vec![]),
        ];
        for (header, want) in cases {
            assert_eq!(challenges(header), want, "{header}");
        }
    }

    #[test]
    fn credentials_in_all_their_forms() {
        let basic = |username: &str, password: &str| {
            Some(Credentials::Basic { username: username.into(), password: password.into() })
        };
        let joined = Auth { auth: STANDARD.encode("u:p:q\0\0"), ..Auth::default() };
        assert!(joined.credentials() == Ok(basic("u", "p:q")));
        let split = Auth { username: "u".into(), password: "p".into(), ..Auth::default() };
        assert!(split.credentials() == Ok(basic("u", "p")));
        assert!(Auth::default().credentials() == Ok(None));
        assert!(Auth { auth: "%%".into(), ..Auth::default() }.credentials().is_err());
        assert!(!format!("{split:?}").contains("\"p\""));
    }

    #[test]
    fn cve_2020_15157_credentials_are_for_the_registry_or_the_host_they_name() {
        let anywhere = Auth::default();
        assert!(anywhere.is_for("registry.example", true));
        assert!(!anywhere.is_for("mirror.example", false));
        let mirror = Auth { server_address: "https://mirror.example/v2/".into(), ..Auth::default() };
        assert!(mirror.is_for("mirror.example", false));
        assert!(!mirror.is_for("registry.example", true));
        let hub = Auth { server_address: "https://index.docker.io/v1/".into(), ..Auth::default() };
        assert!(hub.is_for("registry-1.docker.io", true));
        assert!(!hub.is_for("quay.io", true));
    }
}
