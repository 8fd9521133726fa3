//! Stage one: partial counts since the last checkpoint.
//!
//! There is one [`Aggregator`] per (campaign, ad, minute) of the shard. It is an actor in the sense of the design: it
//! owns its state, and an address identifies it. Its first message activates it, and the checkpoint that takes its
//! counts passivates it. The shard actor hosts it and is its mailbox, so a click costs a table lookup instead of a
//! message.
//!
//! Each minute has a table of its own. Clicks arrive nearly in order of time, so the tables in use are those of one or
//! two minutes, and they fit a core's cache. One table for all ads that a shard has ever seen does not fit
//! (`docs/decisions/011-cpu-of-the-stream-path.md`).

use std::hash::BuildHasher;

use clicktally_proto::click::view::ClickView;
use clicktally_proto::counts::cell_counts::CostSum;
use clicktally_proto::counts::user_sketch::UserSketch;
use clicktally_proto::counts::window_cells::{Sparse, WindowCells};
use clicktally_proto::event_time::Minute;
use clicktally_proto::identity::ids::{AdId, CampaignId};
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::shard_state::PENDING_CLICKS_MAX;

/// The number of emptied tables kept for later minutes, and the largest one kept. They bound what an idle shard holds.
const SPARE_TABLES_MAX: usize = 8;
const SPARE_TABLE_CELLS_MAX: usize = 8_192;

/// One salt's share of one ad's minute: the counts since the last checkpoint.
#[derive(Debug, Clone, Copy)]
struct Aggregator {
    campaign_id: CampaignId,
    ad_id: AdId,
    clicks: u32,
    invalid_clicks: u32,
}

/// The counts of one aggregator between two checkpoints fit 32 bits, and so do the numbers of aggregators. A shard
/// stops reading long before that limit.
const _: () = assert!(PENDING_CLICKS_MAX < u32::MAX as u64 / 2);
const _: () = assert!(size_of::<Aggregator>() == 24);

/// A measure that only some clicks have, indexed by aggregator number. If no click has it, it costs neither memory nor
/// time.
#[derive(Debug)]
struct Column<T>(Vec<T>);

impl<T> Default for Column<T> {
    fn default() -> Column<T> {
        Column(Vec::new())
    }
}

impl<T: Clone + Default + PartialEq> Column<T> {
    #[inline]
    fn of(&mut self, number: u32) -> &mut T {
        let at = number as usize;
        if at >= self.0.len() {
            self.0.resize(at + 1, T::default());
        }
        &mut self.0[at]
    }

    /// Empties the column, in the order of `numbers`.
    fn take(&mut self, numbers: &[u32]) -> Sparse<T> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let mut taken = Vec::with_capacity(self.0.len());
        for (place, number) in (0_u32..).zip(numbers) {
            let value = self.0.get_mut(*number as usize).map(std::mem::take).unwrap_or_default();
            if value != T::default() {
                taken.push((place, value));
            }
        }
        self.0.clear();
        taken
    }
}

/// The aggregators of one minute, numbered in the order of their activation.
#[derive(Debug, Default)]
struct OpenMinute {
    minute: Minute,
    hosted: Vec<Aggregator>,
    /// The aggregators' numbers, by address.
    by_address: HashTable<u32>,
    costs: Column<CostSum>,
    users: Column<UserSketch>,
}

impl OpenMinute {
    #[inline]
    fn count(&mut self, click: &ClickView, hasher: &RandomState) {
        let OpenMinute { hosted, by_address, .. } = self;
        let address = (click.campaign_id, click.ad_id);
        let is_it = |number: &u32| {
            let held = &hosted[*number as usize];
            held.ad_id == click.ad_id && held.campaign_id == click.campaign_id
        };
        let hash = hasher.hash_one(address);
        let number = match by_address.find(hash, is_it) {
            Some(number) => *number,
            None => {
                let number = hosted.len() as u32;
                let (campaign_id, ad_id) = address;
                hosted.push(Aggregator { campaign_id, ad_id, clicks: 0, invalid_clicks: 0 });
                let hash_of = |number: &u32| {
                    let held = &hosted[*number as usize];
                    hasher.hash_one((held.campaign_id, held.ad_id))
                };
                by_address.insert_unique(hash, number, hash_of);
                number
            }
        };
        let aggregator = &mut hosted[number as usize];
        aggregator.clicks += u32::from(!click.is_invalid);
        aggregator.invalid_clicks += u32::from(click.is_invalid);
        if click.is_invalid {
            return;
        }
        if let Some(user) = click.user {
            self.users.of(number).insert(user);
        }
        if click.cost_per_click_micros > 0 {
            self.costs.of(number).add(click.cost_per_click_micros);
        }
    }

    /// Passivates all aggregators of the minute.
    fn take(&mut self) -> WindowCells {
        let numbers = self.sorted_numbers();
        let mut cells = WindowCells {
            minute: self.minute,
            ids: Vec::with_capacity(numbers.len()),
            clicks: Vec::with_capacity(numbers.len()),
            invalid_clicks: Vec::new(),
            costs: self.costs.take(&numbers),
            users: self.users.take(&numbers),
        };
        for (place, number) in (0_u32..).zip(&numbers) {
            let Aggregator { campaign_id, ad_id, clicks, invalid_clicks } = self.hosted[*number as usize];
            cells.ids.push((campaign_id, ad_id));
            cells.clicks.push(clicks.into());
            if invalid_clicks > 0 {
                cells.invalid_clicks.push((place, invalid_clicks.into()));
            }
        }
        self.hosted.clear();
        self.by_address.clear();
        cells
    }

    /// Returns the numbers in the order of (campaign, ad).
    fn sorted_numbers(&self) -> Vec<u32> {
        let bits_of = |value: u64| u64::BITS - value.leading_zeros();
        let (campaigns, ads) = self.hosted.iter().fold((0, 0), |all, it| (all.0 | it.campaign_id, all.1 | it.ad_id));
        let number_bits = bits_of(self.hosted.len() as u64);
        let ad_bits = bits_of(ads);
        if bits_of(campaigns) + ad_bits + number_bits <= u64::BITS {
            // Ids of usual size and the number fit one integer. Sorting integers takes a quarter of the time.
            let key = |(number, it): (u64, &Aggregator)| {
                it.campaign_id << (ad_bits + number_bits) | it.ad_id << number_bits | number
            };
            let mut keys: Vec<u64> = (0_u64..).zip(&self.hosted).map(key).collect();
            keys.sort_unstable();
            let number_mask = (1 << number_bits) - 1;
            return keys.into_iter().map(|key| (key & number_mask) as u32).collect();
        }
        let mut numbers: Vec<u32> = (0..self.hosted.len() as u32).collect();
        numbers.sort_unstable_by_key(|number| {
            let it = &self.hosted[*number as usize];
            (it.campaign_id, it.ad_id)
        });
        numbers
    }
}

/// The aggregators of one shard.
#[derive(Debug, Default)]
pub struct Aggregators {
    open: Vec<OpenMinute>,
    /// The index in `open` of the last click's minute.
    now: usize,
    spare: Vec<OpenMinute>,
    /// The key is random, so that a producer cannot choose ads that collide in one slot.
    hasher: RandomState,
}

impl Aggregators {
    #[inline]
    pub fn count(&mut self, minute: Minute, click: &ClickView) {
        if self.open.get(self.now).is_none_or(|open| open.minute != minute) {
            self.change_minute(minute);
        }
        self.open[self.now].count(click, &self.hasher);
    }

    #[cold]
    fn change_minute(&mut self, minute: Minute) {
        self.now = self.open.iter().position(|open| open.minute == minute).unwrap_or_else(|| {
            let empty = self.spare.pop().unwrap_or_default();
            self.open.push(OpenMinute { minute, ..empty });
            self.open.len() - 1
        });
    }

    /// The number of active aggregators: cells opened since the last checkpoint.
    pub fn hosted(&self) -> usize {
        self.open.iter().map(|open| open.hosted.len()).sum()
    }

    /// Takes the counts, in order of time, and passivates all aggregators.
    pub fn take_cells(&mut self) -> Vec<WindowCells> {
        self.open.sort_unstable_by_key(|open| open.minute);
        let cells = self.open.iter_mut().map(OpenMinute::take).collect();
        let kept = self.open.drain(..).filter(|empty| empty.hosted.capacity() <= SPARE_TABLE_CELLS_MAX);
        self.spare.extend(kept);
        self.spare.truncate(SPARE_TABLES_MAX);
        self.now = 0;
        cells
    }
}

#[cfg(test)]
mod tests {
    use clicktally_proto::counts::cell_counts::CellDelta;
    use clicktally_proto::counts::user_mark::UserMark;
    use clicktally_proto::identity::ids::ClickId;

    use super::*;

    fn click(ad_id: u64, is_invalid: bool) -> ClickView {
        ClickView {
            click_id: ClickId(1),
            campaign_id: 1,
            ad_id,
            event_time_ms: 0,
            is_invalid,
            user: None,
            cost_per_click_micros: 0,
        }
    }

    /// Returns (minute, clicks, invalid clicks, costs, distinct users) of each cell of ad 7, in order.
    fn taken(aggregators: &mut Aggregators) -> Vec<(u32, u64, u64, CostSum, u64)> {
        let deltas: Vec<CellDelta> = aggregators.take_cells().iter().flat_map(WindowCells::deltas).collect();
        assert!(deltas.iter().all(|delta| delta.key.campaign_id == 1 && delta.key.ad_id == 7));
        let row = |CellDelta { key, counts }: CellDelta| {
            (key.minute.0, counts.clicks, counts.invalid_clicks, counts.costs, counts.users.estimate())
        };
        deltas.into_iter().map(row).collect()
    }

    #[test]
    fn deltas_are_what_was_counted_since_the_last_ones() {
        let mut aggregators = Aggregators::default();
        let user = |name: &str| UserMark::of(name.as_bytes());
        aggregators.count(Minute(1), &click(7, false));
        aggregators.count(Minute(2), &click(7, true));
        aggregators.count(Minute(2), &ClickView { user: user("a"), cost_per_click_micros: 30, ..click(7, false) });
        aggregators.count(Minute(1), &ClickView { user: user("a"), ..click(7, false) });
        aggregators.count(Minute(1), &ClickView { user: user("b"), cost_per_click_micros: 5, ..click(7, false) });
        aggregators.count(Minute(1), &ClickView { user: user("b"), cost_per_click_micros: 6, ..click(7, false) });
        let costs = |sum_micros, count| CostSum { sum_micros, count };
        assert_eq!(taken(&mut aggregators), [(1, 4, 0, costs(11, 2), 2), (2, 1, 1, costs(30, 1), 1)]);
        assert!(aggregators.take_cells().is_empty());
        aggregators.count(Minute(1), &click(7, false));
        assert_eq!(taken(&mut aggregators), [(1, 1, 0, costs(0, 0), 0)]);
    }

    #[test]
    fn a_checkpoint_passivates_everybody_and_little_memory_is_kept() {
        let mut aggregators = Aggregators::default();
        for minute in 0..3 * SPARE_TABLES_MAX as u32 {
            let ads = if minute == 1 { 2 * SPARE_TABLE_CELLS_MAX as u64 } else { 10 };
            (1..=ads).for_each(|ad_id| aggregators.count(Minute(minute), &click(ad_id, false)));
        }
        assert_eq!(aggregators.hosted(), 2 * SPARE_TABLE_CELLS_MAX + 10 * (3 * SPARE_TABLES_MAX - 1));
        let minutes: Vec<u32> = aggregators.take_cells().iter().map(|cells| cells.minute.0).collect();
        assert!(minutes.into_iter().eq(0..3 * SPARE_TABLES_MAX as u32));
        assert_eq!((aggregators.hosted(), aggregators.spare.len()), (0, SPARE_TABLES_MAX));
        assert!(aggregators.spare.iter().all(|spare| spare.hosted.capacity() <= SPARE_TABLE_CELLS_MAX));
    }

    #[test]
    fn cells_are_sorted_whatever_size_their_ids_have() {
        for id_max in [9, 1_u64 << 20, 1 << 40, u64::MAX >> 1] {
            let mut aggregators = Aggregators::default();
            let mut expected = std::collections::BTreeMap::new();
            for n in 0..3_000_u64 {
                let random = |salt: u64| (n + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31) % id_max + 1;
                let (campaign_id, ad_id) = (random(0) % 50 * (id_max / 50) + 1, random(7));
                aggregators.count(Minute(1), &ClickView { campaign_id, ad_id, ..click(1, n % 5 == 0) });
                let counts: &mut (u64, u64) = expected.entry((campaign_id, ad_id)).or_default();
                *if n % 5 == 0 { &mut counts.1 } else { &mut counts.0 } += 1;
            }
            let taken = aggregators.take_cells();
            let row = |delta: CellDelta| {
                ((delta.key.campaign_id, delta.key.ad_id), (delta.counts.clicks, delta.counts.invalid_clicks))
            };
            assert!(taken[0].deltas().map(row).eq(expected), "ids up to {id_max}");
        }
    }

    #[test]
    fn clicks_without_users_and_costs_hold_nothing_for_them() {
        let mut aggregators = Aggregators::default();
        aggregators.count(Minute(1), &click(7, false));
        aggregators.count(Minute(1), &ClickView { user: UserMark::of(b"robot"), ..click(7, true) });
        assert!(aggregators.open[0].users.0.is_empty() && aggregators.open[0].costs.0.is_empty());
    }
}
