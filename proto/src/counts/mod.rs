//! What is counted: the merge law, the packed form in checkpoints, user sketches, and the published window.

pub mod cell_counts;

pub mod user_estimate;
pub mod user_mark;
pub mod user_sketch;

pub mod cell_block;
pub mod window_cells;

pub mod window_count;
