//! Exact deduplication within the horizon in which a click can still be counted.

use std::hash::BuildHasher;

use clicktally_proto::event_time::{EventTimeRules, Minute, UnixMillis};
use clicktally_proto::ids::ClickId;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// So many tables instead of one: a table that grows is copied, and a sixteenth of the ids is copied in a sixteenth of the time.
const TABLES: usize = 16;

/// Twelve bytes, alignment four: with the table's own overhead 15–28 bytes an id.
#[derive(Debug, Clone, Copy)]
struct Sighting {
    id: [u32; 2],
    minute: u32,
}

impl Sighting {
    fn new(id: ClickId, minute: Minute) -> Sighting {
        Sighting { id: halves(id), minute: minute.0 }
    }
}

#[inline]
fn halves(id: ClickId) -> [u32; 2] {
    [(id.0 >> 32) as u32, id.0 as u32]
}

/// Id → minute of event time under which it was first counted. One lookup, whatever minute a copy claims.
///
/// An id is known for exactly as long as its first minute is not final. That is decided at the lookup, not by when memory is
/// cleaned, so that an owner restored from replicated state decides as its predecessor would have.
#[derive(Debug, Default)]
pub struct SeenIds {
    tables: [HashTable<Sighting>; TABLES],
    /// Seeded at random: producers choose foreign ids, and must not be able to choose collisions.
    hasher: foldhash::fast::RandomState,
    next_sweep: usize,
}

impl SeenIds {
    #[inline]
    fn place(&self, id: ClickId) -> (usize, u64) {
        let hash = self.hasher.hash_one(id.0);
        // The tables use the low bits for the slot and the top seven for the tag; these are neither.
        ((hash >> 48) as usize % TABLES, hash)
    }

    /// Remembers the id under `minute` unless it is known already. True when it is new.
    #[inline]
    pub fn insert(&mut self, id: ClickId, minute: Minute, rules: &EventTimeRules, watermark_ms: UnixMillis) -> bool {
        let (table, hash) = self.place(id);
        let wanted = halves(id);
        let hasher = &self.hasher;
        let rehash = |held: &Sighting| hasher.hash_one(u64::from(held.id[0]) << 32 | u64::from(held.id[1]));
        match self.tables[table].entry(hash, |held| held.id == wanted, rehash) {
            Entry::Occupied(mut held) => {
                let is_forgotten = rules.is_final(Minute(held.get().minute), watermark_ms);
                if is_forgotten {
                    held.get_mut().minute = minute.0;
                }
                is_forgotten
            }
            Entry::Vacant(free) => {
                free.insert(Sighting::new(id, minute));
                true
            }
        }
    }

    pub fn contains(&self, id: ClickId, rules: &EventTimeRules, watermark_ms: UnixMillis) -> bool {
        let (table, hash) = self.place(id);
        let wanted = halves(id);
        self.tables[table]
            .find(hash, |held| held.id == wanted)
            .is_some_and(|held| !rules.is_final(Minute(held.minute), watermark_ms))
    }

    /// Frees what is forgotten in one of the tables, the next one at each call: called once a checkpoint.
    pub fn sweep(&mut self, rules: &EventTimeRules, watermark_ms: UnixMillis) {
        let table = &mut self.tables[self.next_sweep];
        self.next_sweep = (self.next_sweep + 1) % TABLES;
        table.retain(|held| !rules.is_final(Minute(held.minute), watermark_ms));
    }

    /// Ids held in memory, forgotten ones not yet swept included.
    pub fn len(&self) -> usize {
        self.tables.iter().map(HashTable::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn bytes(&self) -> usize {
        self.tables.iter().map(HashTable::allocation_size).sum()
    }
}

#[cfg(test)]
mod tests {
    use clicktally_proto::event_time::WINDOW_MS;
    use proptest::prelude::*;

    use super::*;

    const RULES: EventTimeRules =
        EventTimeRules { out_of_orderness_ms: 0, allowed_lateness_ms: WINDOW_MS, retain_final_ms: 0, max_ahead_ms: 0 };

    #[test]
    fn a_copy_under_another_minute_is_still_a_copy() {
        let mut seen = SeenIds::default();
        assert!(seen.insert(ClickId(1), Minute(10), &RULES, 0));
        assert!(!seen.insert(ClickId(1), Minute(11), &RULES, 0));
    }

    #[test]
    fn ids_leave_with_the_window_of_their_first_sighting() {
        let mut seen = SeenIds::default();
        for id in 0..10_000 {
            seen.insert(ClickId(id), Minute(u32::try_from(id % 2).unwrap()), &RULES, 0);
        }
        assert!(seen.bytes() <= 10_000 * 32, "{} bytes", seen.bytes());
        let watermark_ms = Minute(1).end_ms();
        assert!(!seen.contains(ClickId(0), &RULES, watermark_ms) && seen.contains(ClickId(1), &RULES, watermark_ms));
        (0..TABLES).for_each(|_| seen.sweep(&RULES, watermark_ms));
        assert_eq!(seen.len(), 5_000);
    }

    proptest! {
        #[test]
        fn membership_is_that_of_a_plain_map_whenever_memory_is_swept(
            steps in proptest::collection::vec((0_u64..40, 0_u32..6, any::<bool>(), 0_u32..6), 0..200)
        ) {
            let mut seen = SeenIds::default();
            let mut plain = std::collections::HashMap::new();
            let mut watermark_ms = 0;
            for (id, minute, sweeps, passed) in steps {
                if sweeps {
                    watermark_ms = watermark_ms.max(Minute(passed).start_ms());
                    seen.sweep(&RULES, watermark_ms);
                }
                plain.retain(|_, held: &mut Minute| !RULES.is_final(*held, watermark_ms));
                if RULES.is_final(Minute(minute), watermark_ms) {
                    prop_assert_eq!(seen.contains(ClickId(id), &RULES, watermark_ms), plain.contains_key(&id));
                    continue;
                }
                let is_new = !plain.contains_key(&id);
                plain.entry(id).or_insert(Minute(minute));
                prop_assert_eq!(seen.insert(ClickId(id), Minute(minute), &RULES, watermark_ms), is_new);
            }
        }
    }
}
