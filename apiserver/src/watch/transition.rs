//! What a change is to somebody who sees only selected objects. Source: apiserver `pkg/storage/cacher/cache_watcher.go`.

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

impl EventType {
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark => "BOOKMARK",
            Self::Error => "ERROR",
        }
    }
}

/// `previous`, `current`: was the object there and selected before, is it now? `None`: it is not for the watcher.
pub fn transition(previous: bool, current: bool) -> Option<EventType> {
    match (previous, current) {
        (false, true) => Some(EventType::Added),
        (true, true) => Some(EventType::Modified),
        (true, false) => Some(EventType::Deleted),
        (false, false) => None,
    }
}
