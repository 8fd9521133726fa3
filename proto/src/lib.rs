//! What every part of clicktally agrees on: identities, the partitioner, the click schema, the merge law, replicated
//! commands, money and time. No I/O, no runtime; everything here is a rule or a shape.
//!
//! In data-path order.

pub mod clock;
pub mod event_time;

pub mod click;
pub mod identity;

pub mod checkpoint;
pub mod counts;

pub mod command;
pub mod limits;

pub mod codec;
pub mod money;
pub mod varint;

pub mod click_log;
pub mod next_move;

pub mod fault;
