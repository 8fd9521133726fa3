//! The minutes that still count: their cells, kept as sorted runs, and how far the life of each has come.

pub(crate) mod cell;
pub(crate) mod cell_run;
pub(crate) mod cell_runs;
pub(crate) mod window;

pub use self::cell::Cell;
pub use self::window::Window;
