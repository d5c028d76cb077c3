//! How many requests are answered at once. Source: apiserver `pkg/server/filters/maxinflight.go`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{HeaderValue, Response, StatusCode, header};

use super::text::text;
use crate::api::{Body, Config};
use crate::request::Call;

#[derive(Default)]
pub struct InFlight {
    pub mutating: Arc<AtomicUsize>,
    pub read_only: Arc<AtomicUsize>,
}

/// A place among those that are answered; dropping it gives it up.
pub struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl InFlight {
    /// `None`: no place is free.
    pub fn enter(&self, call: &Call, config: &Config) -> Option<Place> {
        // As upstream: administrators always come through.
        let exempt = call.user.groups.iter().any(|group| group == "system:masters");
        let (count, limit) = match call.info.verb {
            "get" | "list" | "watch" | "head" | "options" => (&self.read_only, config.max_requests_inflight),
            _ => (&self.mutating, config.max_mutating_requests_inflight),
        };
        if count.fetch_add(1, Ordering::Relaxed) >= limit && limit > 0 && !exempt {
            count.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Place(Arc::clone(count)))
    }
}

/// 429, in upstream's words.
pub fn too_many() -> Response<Body> {
    let mut response = text(StatusCode::TOO_MANY_REQUESTS, "Too many requests, please try again later.\n");
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}
