//! In which form an answer goes out. Source: apiserver `pkg/endpoints/handlers/negotiation/negotiate.go`.

use http::{HeaderMap, StatusCode, header};

use super::Query;
use crate::status::{Result, Status};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    Json,
    Yaml,
}

impl Format {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
        }
    }
}

/// What is made of objects on the way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Shape {
    #[default]
    Whole,
    Table {
        /// `v1` or `v1beta1`.
        version: &'static str,
    },
    /// PartialObjectMetadata, of a list PartialObjectMetadataList.
    Metadata { version: &'static str },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accept {
    pub format: Format,
    pub shape: Shape,
    pub pretty: bool,
}

/// Which transformations a path can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offers {
    /// None: subresources, discovery, errors.
    Plain,
    Objects,
    Lists,
    /// Objects one by one, whatever a client calls it.
    Watches,
}

impl Accept {
    /// # Errors
    /// 406: nothing that is asked for can be had.
    pub fn negotiate(headers: &HeaderMap, query: &Query, offers: Offers) -> Result<Self> {
        let pretty = pretty(headers, query);
        let header = joined(headers);
        if header.is_empty() {
            return Ok(Self { pretty, ..Self::default() });
        }
        let found = clauses(&header).into_iter().find_map(|clause| clause.accept(offers));
        let accept = found.ok_or_else(not_acceptable)?;
        Ok(Self { pretty: accept.pretty || pretty, ..accept })
    }
}

/// One alternative of an Accept header.
#[derive(Debug, PartialEq)]
struct Clause<'a> {
    media: &'a str,
    quality: f32,
    parameters: Vec<(&'a str, &'a str)>,
}

impl Clause<'_> {
    fn accept(&self, offers: Offers) -> Option<Accept> {
        let format = match self.media {
            "application/json" | "*/*" | "application/*" => Format::Json,
            "application/yaml" => Format::Yaml,
            _ => return None,
        };
        let value =
            |name: &str| self.parameters.iter().find(|(key, _)| *key == name).map_or("", |&(_, value)| value);
        if !matches!(value("stream"), "" | "watch") || !value("sv").is_empty() {
            return None;
        }
        let version = match value("v") {
            "v1" => "v1",
            "v1beta1" => "v1beta1",
            _ => "",
        };
        let shape = match (value("as"), value("g"), offers) {
            ("", "", _) if value("v").is_empty() => Shape::Whole,
            ("Table", "meta.k8s.io", Offers::Objects | Offers::Lists | Offers::Watches)
                if !version.is_empty() =>
            {
                Shape::Table { version }
            }
            ("PartialObjectMetadata", "meta.k8s.io", Offers::Objects | Offers::Watches)
            | ("PartialObjectMetadataList", "meta.k8s.io", Offers::Lists)
                if !version.is_empty() =>
            {
                Shape::Metadata { version }
            }
            _ => return None,
        };
        Some(Accept { format, shape, pretty: value("pretty") == "1" })
    }
}

/// Best first.
fn clauses(header: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = header
        .split(',')
        .filter_map(|clause| {
            let mut parts = clause.split(';').map(str::trim);
            let media = parts.next().filter(|media| media.contains('/'))?;
            let mut clause = Clause { media, quality: 1.0, parameters: Vec::new() };
            for (key, value) in parts.filter_map(|part| part.split_once('=')) {
                match key.trim() {
                    "q" => clause.quality = value.trim().parse().unwrap_or(1.0),
                    key => clause.parameters.push((key, value.trim())),
                }
            }
            Some(clause)
        })
        .collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    clauses
}

fn joined(headers: &HeaderMap) -> String {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.collect::<Vec<_>>().join(",")
}

/// For people: when asked, or when a browser or the like asks.
fn pretty(headers: &HeaderMap, query: &Query) -> bool {
    match query.get("pretty") {
        Some(asked) if !asked.is_empty() => matches!(asked, "1" | "t" | "T" | "true" | "TRUE" | "True"),
        _ => {
            let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or("");
            ["curl", "Wget", "Mozilla/5.0"].iter().any(|human| agent.starts_with(human))
        }
    }
}

pub fn not_acceptable() -> Status {
    const MESSAGE: &str = "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, \
                           application/json;stream=watch";
    Status::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", MESSAGE).with_bare_details()
}

pub fn not_acceptable_stream() -> Status {
    const MESSAGE: &str = "only the following media types are accepted: application/json;stream=watch";
    Status::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", MESSAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negotiate(accept: &str, offers: Offers) -> Result<Accept> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().expect("a header"));
        Accept::negotiate(&headers, &Query::default(), offers)
    }

    #[test]
    fn the_best_form_that_can_be_had_is_taken() {
        let whole = Accept::default();
        let table = Accept { shape: Shape::Table { version: "v1" }, ..whole };
        let metadata = Accept { shape: Shape::Metadata { version: "v1" }, ..whole };
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        #[rustfmt::skip]
        let cases = [
            ("*/*", Offers::Plain, whole),
            ("application/vnd.kubernetes.protobuf,application/json", Offers::Lists, whole),
            ("application/vnd.kubernetes.protobuf, */*", Offers::Lists, whole),
            ("application/json;q=0.5,application/yaml", Offers::Objects, Accept { format: Format::Yaml, ..whole }),
            (kubectl, Offers::Lists, table),
            (kubectl, Offers::Plain, whole),
            ("application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json", Offers::Lists, metadata),
            ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json", Offers::Objects, whole),
            ("application/json;stream=watch", Offers::Lists, whole),
        ];
        for (header, offers, expected) in cases {
            assert_eq!(negotiate(header, offers), Ok(expected), "{header}");
        }
    }

    #[test]
    fn what_nobody_can_make_is_refused() {
        for header in
            ["text/html", "application/vnd.kubernetes.protobuf", "application/json;as=Chair;g=x;v=v1"]
        {
            let status = negotiate(header, Offers::Lists).expect_err(header);
            assert_eq!(status.code(), StatusCode::NOT_ACCEPTABLE);
        }
    }
}
