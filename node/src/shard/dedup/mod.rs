//! Exact deduplication within the horizon in which a click can still be counted.
//!
//! An id is known until the minute under which it was first counted is final, whatever minute a copy claims. The lookup
//! decides this, not the time of a memory sweep. So an owner restored from replicated state decides as its predecessor
//! would have.

mod foreign_ids;
mod minted_ids;

use clicktally_proto::event_time::{EventTimeRules, Minute, UnixMillis, WINDOW_MS};
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_proto::identity::shard_key::{Place, PlaceParts};

use foreign_ids::ForeignIds;
use minted_ids::MintedIds;

/// The largest allowed distance between the newest click seen and the oldest one remembered: lateness, disorder, and
/// how far a click may be dated ahead.
pub const LIVE_SPAN_MAX_MS: u64 = 250 * WINDOW_MS;

/// Decides when an id is forgotten, from the rules and the shard's watermark.
#[derive(Debug, Clone, Copy)]
pub struct Horizon {
    pub rules: EventTimeRules,
    pub watermark_ms: UnixMillis,
}

impl Horizon {
    #[inline]
    fn is_forgotten(&self, minute: Minute) -> bool {
        if is_broken(Mutant::DedupEvictedEarly) {
            return self.rules.has_fired(minute, self.watermark_ms);
        }
        self.rules.is_final(minute, self.watermark_ms)
    }

    /// The shard has counted no click of a later minute. The arrival of a click moves the watermark, and a click is
    /// dated at most so far ahead of its arrival.
    #[inline]
    fn newest_minute(&self) -> Minute {
        let arrival_ms = self.watermark_ms.saturating_add(self.rules.out_of_orderness_ms);
        Minute::of(self.rules.newest_ms(arrival_ms))
    }
}

/// The ids that one shard has counted.
#[derive(Debug, Default)]
pub struct SeenIds {
    minted: MintedIds,
    foreign: ForeignIds,
}

impl SeenIds {
    /// Remembers the id under `minute`. Returns true if it is new, false if it is already known.
    #[inline]
    pub fn insert(&mut self, place: Place, minute: Minute, horizon: &Horizon) -> bool {
        match place.parts() {
            PlaceParts::Minted { run, code } => self.minted.insert(run, code, minute, horizon),
            PlaceParts::Foreign(hash) => self.foreign.insert(hash, minute, horizon),
        }
    }

    pub fn contains(&self, place: Place, horizon: &Horizon) -> bool {
        match place.parts() {
            PlaceParts::Minted { run, code } => self.minted.contains(run, code, horizon),
            PlaceParts::Foreign(hash) => self.foreign.contains(hash, horizon),
        }
    }

    /// Frees some of the forgotten ids. The shard calls this once per checkpoint.
    pub fn sweep(&mut self, horizon: &Horizon) {
        self.minted.sweep(horizon);
        self.foreign.sweep(horizon);
    }

    /// Ids held in memory, including forgotten ones that are not swept yet.
    pub fn len(&self) -> u64 {
        self.minted.len() + self.foreign.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that the ids occupy, without the allocator's overhead.
    pub fn bytes(&self) -> usize {
        self.minted.bytes() + self.foreign.bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use clicktally_proto::event_time::WINDOW_MS;
    use clicktally_proto::identity::ids::{ClickId, SNOWFLAKE_EPOCH_MS, SnowflakeMinter};
    use clicktally_proto::identity::shard_key::salt;
    use proptest::prelude::*;

    use super::*;

    /// All minutes of these tests are within the bound of a watermark of 0.
    const RULES: EventTimeRules = EventTimeRules {
        out_of_orderness_ms: 30 * WINDOW_MS,
        allowed_lateness_ms: 2 * WINDOW_MS,
        retain_final_ms: 0,
        max_ahead_ms: WINDOW_MS,
    };
    const SALT: u16 = 5;

    fn at(watermark_ms: u64) -> Horizon {
        Horizon { rules: RULES, watermark_ms }
    }

    fn id_of(n: u64, is_foreign: bool) -> ClickId {
        let id = |k: u64| {
            if is_foreign {
                ClickId::foreign("shop", 7, &format!("{n}-{k}"))
            } else {
                ClickId::minted(SNOWFLAKE_EPOCH_MS + n * 1_000 + k, 1, (n % 4) as u16)
            }
        };
        (0..).map(id).find(|id| salt(*id) == SALT).unwrap()
    }

    proptest! {
        /// Any order of inserts, copies under other minutes, watermark steps and sweeps gives the answers of a plain
        /// map.
        #[test]
        fn it_knows_what_a_map_knows(
            steps in proptest::collection::vec((0_u64..40, any::<bool>(), 0_u32..8, 0_u64..9 * WINDOW_MS, any::<bool>()), 1..300)
        ) {
            let mut seen = SeenIds::default();
            let mut model: HashMap<ClickId, Minute> = HashMap::new();
            let mut watermark_ms = 0;
            for (n, is_foreign, minute, step_ms, sweeps) in steps {
                watermark_ms = if step_ms % 3 == 0 { watermark_ms.max(step_ms) } else { watermark_ms };
                let (id, minute, horizon) = (id_of(n, is_foreign), Minute(minute), at(watermark_ms));
                let known = model.get(&id).is_some_and(|held| !RULES.is_final(*held, watermark_ms));
                prop_assert_eq!(seen.contains(Place::of(id), &horizon), known);
                // The shard counts no click into a final window.
                if !RULES.is_final(minute, watermark_ms) {
                    prop_assert_eq!(seen.insert(Place::of(id), minute, &horizon), !known);
                    if !known { model.insert(id, minute); }
                }
                if sweeps { seen.sweep(&horizon); }
            }
        }
    }

    fn fill(ids: impl Iterator<Item = ClickId>) -> SeenIds {
        let mut seen = SeenIds::default();
        for (n, id) in (0_u64..).zip(ids.filter(|id| salt(*id) == SALT)) {
            // Twenty minutes, in order.
            assert!(seen.insert(Place::of(id), Minute((n % 1_000_000 / 50_000) as u32), &at(0)));
        }
        seen
    }

    #[test]
    fn a_minted_id_takes_at_most_three_bytes() {
        for clicks_per_second in [2_000_u64, 30_000] {
            let mut minter = SnowflakeMinter::new(3);
            let seen = fill(
                (0..clicks_per_second * 300).map(|n| minter.mint(SNOWFLAKE_EPOCH_MS + n * 1_000 / clicks_per_second)),
            );
            let bytes_per_id = seen.bytes() as f64 / seen.len() as f64;
            assert!(bytes_per_id <= 3.0, "{bytes_per_id} bytes an id at {clicks_per_second} a second");
        }
    }

    /// Returns uniform hashes, as SHA-256 does, at a thousandth of its cost.
    fn foreign_id(n: u64) -> ClickId {
        ClickId((n.wrapping_mul(0x9e37_79b9_7f4a_7c15) & !15 | u64::from(SALT)) | 1 << 63)
    }

    #[test]
    fn a_foreign_id_takes_at_most_nine_bytes() {
        let mut worst = 0.0_f64;
        let mut seen = SeenIds::default();
        for n in 0..1_500_000_u64 {
            seen.insert(Place::of(foreign_id(n)), Minute(1), &at(0));
            if n > 500_000 && n % 10_000 == 0 {
                worst = worst.max(seen.bytes() as f64 / seen.len() as f64);
            }
        }
        assert!(worst <= 9.0, "{worst} bytes an id");
    }

    /// Half a million clicks a second for twenty minutes, divided by sixteen shards. Run it with `cargo test
    /// --workspace --lib -- --ignored --nocapture twenty_minutes_of_ids`.
    #[test]
    #[ignore = "a measurement; takes minutes and half a gigabyte"]
    #[allow(clippy::print_stdout)] // Prints the measurement for its reader.
    fn twenty_minutes_of_ids() {
        const CLICKS_PER_SECOND: u64 = 500_000;
        const CLICKS: u64 = CLICKS_PER_SECOND * 20 * 60;
        let mut minters = [3, 4, 9].map(SnowflakeMinter::new);
        let minted = (0..CLICKS).map(|n| {
            let minter = &mut minters[(n % 3) as usize];
            minter.mint(SNOWFLAKE_EPOCH_MS + n * 1_000 / CLICKS_PER_SECOND)
        });
        let measure = |name: &str, ids: &mut dyn Iterator<Item = ClickId>, bytes_max: f64| {
            let mut seen = SeenIds::default();
            let mut worst = 0.0_f64;
            for (n, id) in (0_u64..).zip(ids) {
                let minute = Minute((n * 20 / (CLICKS / 16)) as u32);
                seen.insert(Place::of(id), minute, &at(0));
                if n % 1_000_000 == 999_999 {
                    worst = worst.max(seen.bytes() as f64 / seen.len() as f64);
                }
            }
            let (ids, mib) = (seen.len(), seen.bytes() / 1024 / 1024);
            println!("{ids} {name} ids: {mib} MiB, at worst {worst:.2} bytes an id from the first million on");
            assert!(ids > 30_000_000 && worst <= bytes_max, "{ids} ids, {worst} bytes each");
        };
        measure("minted", &mut minted.filter(|id| salt(*id) == SALT), 3.0);
        measure("foreign", &mut (0..CLICKS / 16).map(foreign_id), 9.0);
    }

    #[test]
    fn what_is_forgotten_is_freed() {
        let mut seen = SeenIds::default();
        for n in 0..50_000 {
            seen.insert(Place::of(id_of(n, n % 2 == 0)), Minute(1), &at(0));
        }
        let horizon = at(Minute(10).start_ms());
        for _ in 0..foreign_ids::TABLES {
            seen.sweep(&horizon);
        }
        assert!(seen.is_empty());
        assert!(seen.bytes() < 200_000, "{} bytes are still held", seen.bytes());
    }
}
