//! The ids that a shard has counted since its last checkpoint, packed per minute of event time.
//!
//! Ids travel as sorted [`Place`]s. Minted ids are grouped by run (worker and minute of minting), each a delta of about
//! a byte to the id before. Foreign ids are deltas of their hashes, some seven bytes each. Replicas keep these blocks
//! as they came. Only a new owner of the shard unpacks them.
//!
//! Layout, all varints:
//! `form ‖ runs ‖ { run − run before ‖ codes − 1 ‖ { code − code before } } ‖ { hash − hash before }`.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::event_time::Minute;
use crate::identity::shard_key::{CODE_BITS, Place, PlaceParts};
use crate::varint;

/// Identifies the layout of `packed`, so that a later layout can differ.
const FORM: u64 = 1;

/// Ids of one minute and one checkpoint. Blocks have no order among themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenBlock {
    pub minute: Minute,
    #[serde(with = "serde_bytes")]
    packed: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a block of seen ids is damaged at byte {at}; restore this replica from a peer")]
pub struct DamagedBlock {
    pub at: usize,
}

impl SeenBlock {
    /// Sorts `places`. Each may occur at most once.
    pub fn pack(minute: Minute, places: &mut [Place]) -> SeenBlock {
        places.sort_unstable();
        let split = places.partition_point(|place| matches!(place.parts(), PlaceParts::Minted { .. }));
        let (minted, foreign) = places.split_at(split);
        let mut packed = Vec::with_capacity(minted.len() + minted.len() / 4 + foreign.len() * 8 + 16);
        varint::write(FORM, &mut packed);
        let runs = || minted.chunk_by(|a, b| a.bits() >> CODE_BITS == b.bits() >> CODE_BITS);
        varint::write(runs().count() as u64, &mut packed);
        let mut run_before = 0;
        for places in runs() {
            let run = places[0].bits() >> CODE_BITS;
            varint::write(run - run_before, &mut packed);
            varint::write(places.len() as u64 - 1, &mut packed);
            run_before = run;
            let mut before = run << CODE_BITS;
            for place in places {
                varint::write(place.bits() - before, &mut packed);
                before = place.bits();
            }
        }
        let mut before = 0;
        for place in foreign {
            varint::write(place.bits() - before, &mut packed);
            before = place.bits();
        }
        packed.shrink_to_fit();
        SeenBlock { minute, packed }
    }

    pub fn unpack(&self) -> Result<Vec<Place>, DamagedBlock> {
        let mut at = 0;
        let mut places = Vec::with_capacity(self.packed.len());
        if self.next(&mut at)? != FORM {
            return Err(DamagedBlock { at: 0 });
        }
        let mut run = 0_u64;
        for _ in 0..self.next(&mut at)? {
            let damaged = DamagedBlock { at };
            run = run.checked_add(self.next(&mut at)?).filter(|run| *run < 1 << (63 - CODE_BITS)).ok_or(damaged)?;
            let codes = self.next(&mut at)?.checked_add(1).ok_or(damaged)?;
            let mut code = 0_u64;
            for _ in 0..codes {
                code = code.checked_add(self.next(&mut at)?).filter(|code| *code < 1 << CODE_BITS).ok_or(damaged)?;
                places.push(Place::from_bits(run << CODE_BITS | code));
            }
        }
        let mut bits = 0_u64;
        while at < self.packed.len() {
            let damaged = DamagedBlock { at };
            bits = bits.checked_add(self.next(&mut at)?).ok_or(damaged)?;
            let place = Place::from_bits(bits);
            if !matches!(place.parts(), PlaceParts::Foreign(_)) {
                return Err(damaged);
            }
            places.push(place);
        }
        Ok(places)
    }

    fn next(&self, at: &mut usize) -> Result<u64, DamagedBlock> {
        let damaged = DamagedBlock { at: *at };
        varint::read(&self.packed, at).ok_or(damaged)
    }

    pub fn packed_bytes(&self) -> usize {
        self.packed.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::ids::{ClickId, SNOWFLAKE_EPOCH_MS, SnowflakeMinter};
    use crate::identity::shard_key::salt;

    const SALT: u16 = 5;

    fn own(id: ClickId) -> bool {
        salt(id) == SALT
    }

    proptest! {
        #[test]
        fn unpacking_returns_the_sorted_ids(raw in proptest::collection::btree_set(any::<u64>(), 0..400)) {
            let mut places: Vec<Place> = raw.into_iter().map(ClickId).filter(|id| own(*id)).map(Place::of).collect();
            let mut sorted = places.clone();
            sorted.sort();
            places.reverse();
            prop_assert_eq!(SeenBlock::pack(Minute(3), &mut places).unpack().unwrap(), sorted);
        }

        #[test]
        fn damage_is_an_error_not_a_panic(packed in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = SeenBlock { minute: Minute(0), packed }.unpack();
        }
    }

    #[test]
    fn minted_ids_take_little_more_than_a_byte_at_any_rate() {
        for clicks_per_second in [1_000, 50_000, 500_000] {
            let mut minter = SnowflakeMinter::new(3);
            let ids =
                (0..clicks_per_second * 2).map(|n| minter.mint(SNOWFLAKE_EPOCH_MS + n * 1_000 / clicks_per_second));
            let mut places: Vec<Place> = ids.filter(|id| own(*id)).map(Place::of).collect();
            let count = places.len();
            let bytes = SeenBlock::pack(Minute(0), &mut places).packed_bytes();
            assert!(bytes * 10 <= count * 13 + 200, "{bytes} bytes for {count} ids at {clicks_per_second} a second");
        }
    }
}
