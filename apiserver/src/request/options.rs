//! ListOptions out of a query. Source: apimachinery `pkg/apis/meta/internalversion/validation/validation.go`.

use std::time::Duration;

use corten_store::Revision;
use http::StatusCode;

use super::Query;
use crate::registry::Served;
use crate::select::{Fields, Labels};
use crate::status::{Cause, Details, Result, Status};

#[derive(Debug, Clone, Default, PartialEq)]
pub struct ListOptions {
    pub labels: Labels,
    pub fields: Fields,
    pub watch: bool,
    pub bookmarks: bool,
    pub version: Version,
    pub matching: Option<Match>,
    pub timeout: Option<Duration>,
    /// 0: none.
    pub limit: usize,
    pub continue_token: String,
    pub send_initial_events: Option<bool>,
}

/// A resourceVersion as it is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Version {
    /// The latest.
    #[default]
    Unset,
    /// `0`: whichever is at hand.
    Any,
    At(Revision),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    Exact,
    NotOlderThan,
}

impl Version {
    /// # Errors
    /// Not a number: what to say about it.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" => Ok(Self::Unset),
            "0" => Ok(Self::Any),
            _ => match text.parse::<u64>() {
                Ok(number) => Ok(match Revision::try_from(number) {
                    Ok(0) => Self::Any,
                    Ok(revision) => Self::At(revision),
                    Err(_) => Self::At(Revision::MAX),
                }),
                Err(error) => Err(parse_error("ParseUint", text, &error)),
            },
        }
    }
}

impl ListOptions {
    /// `served` knows which fields can be selected.
    ///
    /// # Errors
    /// 400 of what cannot be read, 422 of what does not go together.
    pub fn of(query: &Query, served: &Served) -> Result<Self> {
        let text = |name: &str| query.get(name).unwrap_or_default();
        let watch = query.flag("watch").unwrap_or(false);
        let options = Self {
            labels: Labels::parse(text("labelSelector")).map_err(|why| bad_selector(&why))?,
            fields: Fields::parse(text("fieldSelector")).map_err(|why| bad_selector(&why))?,
            watch,
            bookmarks: query.flag("allowWatchBookmarks").unwrap_or(false),
            version: Version::parse(text("resourceVersion"))
                .map_err(bad_version(text("resourceVersion"), watch))?,
            matching: match text("resourceVersionMatch") {
                "Exact" => Some(Match::Exact),
                "NotOlderThan" => Some(Match::NotOlderThan),
                _ => None,
            },
            timeout: integer(query, "timeoutSeconds")?.map(|n| Duration::from_secs(n.max(0).cast_unsigned())),
            limit: integer(query, "limit")?.map_or(0, |n| usize::try_from(n).unwrap_or(0)),
            continue_token: text("continue").to_owned(),
            send_initial_events: query.flag("sendInitialEvents"),
        };
        let causes = options.check(text("resourceVersion"), text("resourceVersionMatch"));
        if !causes.is_empty() {
            return Err(invalid(causes));
        }
        options.fields.check(served)?;
        Ok(options)
    }

    fn check(&self, version: &str, matching: &str) -> Vec<Cause> {
        let mut causes = Vec::new();
        let forbid = |causes: &mut Vec<Cause>, field: &str, why: &str| {
            causes.push(Cause::forbidden(field, why));
        };
        const MATCH: &str = "resourceVersionMatch";
        let continued = !self.continue_token.is_empty();
        if self.watch {
            let newer = self.matching == Some(Match::NotOlderThan);
            if self.send_initial_events.is_some() && !newer {
                const WHY: &str = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                forbid(&mut causes, MATCH, WHY);
            }
            if !matching.is_empty() {
                if self.send_initial_events.is_none() {
                    const WHY: &str =
                        "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                    forbid(&mut causes, MATCH, WHY);
                }
                if !newer {
                    causes.push(Cause::unsupported(MATCH, &matching.into(), &["NotOlderThan"]));
                }
                if continued {
                    forbid(&mut causes, MATCH, "resourceVersionMatch is forbidden when continue is provided");
                }
            }
            return causes;
        }
        if !matching.is_empty() {
            if version.is_empty() {
                const WHY: &str = "resourceVersionMatch is forbidden unless resourceVersion is provided";
                forbid(&mut causes, MATCH, WHY);
            }
            if continued {
                forbid(&mut causes, MATCH, "resourceVersionMatch is forbidden when continue is provided");
            }
            if self.matching.is_none() {
                causes.push(Cause::unsupported(MATCH, &matching.into(), &["Exact", "NotOlderThan", ""]));
            }
            if self.matching == Some(Match::Exact) && version == "0" {
                const WHY: &str = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                forbid(&mut causes, MATCH, WHY);
            }
        }
        if self.send_initial_events.is_some() {
            forbid(&mut causes, "sendInitialEvents", "sendInitialEvents is forbidden for list");
        }
        causes
    }
}

fn invalid(causes: Vec<Cause>) -> Status {
    let list = match &*causes {
        [one] => one.to_string(),
        _ => format!("[{}]", causes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    };
    let message = format!("ListOptions.meta.k8s.io \"\" is invalid: {list}");
    let details = Details {
        group: "meta.k8s.io".to_owned(),
        kind: "ListOptions".to_owned(),
        causes,
        ..Details::default()
    };
    Status::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).with(details)
}

fn bad_selector(why: &str) -> Status {
    Status::bad_request(why)
}

/// Upstream says it so of a list, and fails on a watch.
fn bad_version(text: &str, watch: bool) -> impl FnOnce(String) -> Status {
    let value = serde_json::Value::from(text);
    move |why| {
        let cause = Cause::invalid("resourceVersion", &value, why);
        if watch {
            return Status::new(StatusCode::INTERNAL_SERVER_ERROR, "", cause.to_string());
        }
        Status::bad_request(format!("invalid resource version: {cause}"))
    }
}

/// # Errors
/// 400 in Go's words.
fn integer(query: &Query, name: &str) -> Result<Option<i64>> {
    match query.get(name) {
        None | Some("") => Ok(None),
        Some(text) => match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(error) => Err(Status::bad_request(parse_error("ParseInt", text, &error))),
        },
    }
}

fn parse_error(function: &str, text: &str, error: &std::num::ParseIntError) -> String {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    let why = match error.kind() {
        PosOverflow | NegOverflow => "value out of range",
        _ => "invalid syntax",
    };
    format!("strconv.{function}: parsing {}: {why}", serde_json::Value::from(text))
}
