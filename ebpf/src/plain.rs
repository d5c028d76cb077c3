//! Keys and values of our maps as aya takes them.

use corten_ebpf_layout::{datapath, service};

/// A map's key or value. (The layout crate has no unsafe code, and a foreign trait wants a type of our own.)
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plain<T>(pub T);

macro_rules! plain {
    ($($of:ty),+ $(,)?) => {$(
        // SAFETY: repr(C) of integers without hidden padding (the layout's tests add up the sizes), valid for any bytes.
        unsafe impl aya::Pod for Plain<$of> {}
    )+};
}

plain!(
    datapath::Config,
    datapath::Count,
    datapath::Endpoint,
    datapath::Event,
    datapath::Node,
    datapath::Source,
    datapath::Until,
    service::Address,
    service::Affinity,
    service::Client,
    service::Endpoint,
    service::Flow,
    service::Frontend,
    service::Member,
    service::Original,
    service::Reverse,
    service::Slot,
);
