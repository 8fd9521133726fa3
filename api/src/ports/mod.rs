//! What the node provides to this crate.

pub mod id_minter;
