//! What one checkpoint counted in one minute of event time, column by column. The counting shard makes it, a
//! `CellBlock` packs it, and every replica reads it.
//!
//! A cell takes 24 bytes here, and what few cells have is kept apart. So a walk over a hundred thousand cells reads
//! little memory, and reads it in order.

use crate::counts::cell_counts::{CellDelta, CellKey, CostSum, Counts};
use crate::counts::user_sketch::UserSketch;
use crate::event_time::Minute;
use crate::identity::ids::{AdId, CampaignId};

/// A column in which few cells have a value: each cell's number in its window, rising, and its value, never an empty
/// one.
pub type Sparse<T> = Vec<(u32, T)>;

/// The cells of one window. A cell's number is its index in `ids`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WindowCells {
    pub minute: Minute,
    /// Sorted, each at most once.
    pub ids: Vec<(CampaignId, AdId)>,
    /// One for each of `ids`.
    pub clicks: Vec<u64>,
    pub invalid_clicks: Sparse<u64>,
    pub costs: Sparse<CostSum>,
    pub users: Sparse<UserSketch>,
}

impl WindowCells {
    pub fn new(minute: Minute) -> WindowCells {
        WindowCells { minute, ..WindowCells::default() }
    }

    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Appends a cell. Its id must be larger than all before.
    pub fn push(&mut self, id: (CampaignId, AdId), counts: Counts) {
        assert!(self.ids.last().is_none_or(|last| *last < id), "cell {id:?} is out of order");
        let Counts { clicks, invalid_clicks, costs, users } = counts;
        let number = self.ids.len() as u32;
        self.ids.push(id);
        self.clicks.push(clicks);
        if invalid_clicks > 0 {
            self.invalid_clicks.push((number, invalid_clicks));
        }
        if costs != CostSum::default() {
            self.costs.push((number, costs));
        }
        if !users.is_empty() {
            self.users.push((number, users));
        }
    }

    /// The number of all clicks, valid and invalid.
    pub fn all_clicks(&self) -> u64 {
        self.clicks.iter().sum::<u64>() + self.invalid_clicks.iter().map(|(_, clicks)| clicks).sum::<u64>()
    }

    /// The cells one by one, in order.
    pub fn deltas(&self) -> impl Iterator<Item = CellDelta> {
        let mut rows = Rows::of(self);
        self.ids.iter().zip(&self.clicks).map(move |(&(campaign_id, ad_id), &clicks)| {
            let (invalid_clicks, costs, users) = rows.next();
            let counts = Counts { clicks, invalid_clicks, costs, users: users.cloned().unwrap_or_default() };
            CellDelta { key: CellKey { minute: self.minute, campaign_id, ad_id }, counts }
        })
    }
}

/// Walks the sparse columns of a window in step with its cells.
#[derive(Debug)]
pub struct Rows<'a> {
    number: u32,
    invalid_clicks: &'a [(u32, u64)],
    costs: &'a [(u32, CostSum)],
    users: &'a [(u32, UserSketch)],
}

impl<'a> Rows<'a> {
    pub fn of(window: &'a WindowCells) -> Rows<'a> {
        Rows { number: 0, invalid_clicks: &window.invalid_clicks, costs: &window.costs, users: &window.users }
    }

    /// Invalid clicks, costs and users of the next cell. Empty values after the last cell.
    #[inline]
    #[allow(clippy::should_implement_trait)] // It has no end of its own.
    pub fn next(&mut self) -> (u64, CostSum, Option<&'a UserSketch>) {
        let number = self.number;
        self.number += 1;
        let invalid_clicks = take(&mut self.invalid_clicks, number).copied().unwrap_or(0);
        let costs = take(&mut self.costs, number).copied().unwrap_or_default();
        (invalid_clicks, costs, take(&mut self.users, number))
    }
}

#[inline]
fn take<'a, T>(column: &mut &'a [(u32, T)], number: u32) -> Option<&'a T> {
    let ((held, value), rest) = column.split_first()?;
    if *held != number {
        return None;
    }
    *column = rest;
    Some(value)
}
