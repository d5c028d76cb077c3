//! HTTP: from a request to a verb, and from what the verb answers to a response.

mod pipeline;
