//! One Raft group on this node: the handle that the rest of the node holds, what stands behind it, and the state
//! machine.

pub(crate) mod group_core;
pub(crate) mod replica;
pub(crate) mod state_machine;

mod errors;
mod handle;
mod members;
mod status;

pub use errors::{MemberError, ProposeError};
pub use handle::Group;
pub use status::GroupStatus;
