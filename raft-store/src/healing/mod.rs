//! A replica that lost part of its disk becomes whole again, from a peer and before openraft sees it.

pub(crate) mod log;
pub(crate) mod snapshot;
