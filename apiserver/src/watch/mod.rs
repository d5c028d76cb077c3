//! Watches: one watch of the store a resource, shared by all who watch that resource.
//!
//! A [`Hub`] has one [`stream`] a prefix of the store. A stream takes each change once, decides for each watcher what
//! the change is to it ([`transition`]), encodes it once for each form that is asked for ([`encode`]) and hands the same
//! bytes to all ([`body`] is the receiving end). A watcher costs nothing while nothing changes.

mod body;
mod encode;
mod hub;
mod stream;
mod transition;
mod websocket;

pub use body::{WatchBody, refused};
pub use encode::Encoder;
pub use hub::{BOOKMARKS_EVERY, Hub};
pub use stream::{Interest, Item, Joined, Scope, told_alone};
pub use transition::{EventType, transition};
pub use websocket::upgrade;
