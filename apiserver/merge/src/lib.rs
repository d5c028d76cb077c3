//! JSON patches, strategic merge patches and server-side apply, all over the schema table.
#![forbid(unsafe_code)]
