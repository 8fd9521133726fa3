//! A user in a sketch: one of [`REGISTERS`] registers and a rank, taken from 16 bits of a hash.
//!
//! The mark is part of the format, the same in every version and on every machine. It comes from XXH64 (seed 0) of the
//! UTF-8 bytes of `user_id`. The top 12 bits are the register. The rank, 1 to 15, is one more than the number of
//! leading zeros in the next 14 bits.
//!
//! The hash has no secret, so a client that may write clicks can choose user ids that inflate an estimate. No money
//! depends on an estimate. Sixteen bits identify no person, so a sketch may outlive the erasure of a user's data.

use std::num::NonZeroU16;

use twox_hash::XxHash64;

pub const REGISTERS: usize = 1 << REGISTER_BITS;
const REGISTER_BITS: u32 = 12;
/// The bits of the hash that a rank is taken from.
const ZEROS_MAX: u32 = 14;
pub(crate) const RANK_BITS: u32 = 4;
/// The rank where all of those bits are zero.
pub(crate) const RANK_MAX: u16 = ZEROS_MAX as u16 + 1;

const _: () = assert!(RANK_MAX < 1 << RANK_BITS && REGISTER_BITS + RANK_BITS == u16::BITS);

/// `register << 4 | rank`. Never zero, because a rank is at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserMark(NonZeroU16);

impl UserMark {
    /// `None` for the empty id: the click has no user to count.
    #[inline]
    pub fn of(user_id: &[u8]) -> Option<UserMark> {
        if user_id.is_empty() {
            return None;
        }
        let hash = XxHash64::oneshot(0, user_id);
        let register = (hash >> (u64::BITS - REGISTER_BITS)) as u16;
        // A one after those bits ends the count of zeros there.
        let looked_at = hash << REGISTER_BITS | 1 << (u64::BITS - 1 - ZEROS_MAX);
        let rank = looked_at.leading_zeros() as u16 + 1;
        NonZeroU16::new(register << RANK_BITS | rank).map(UserMark)
    }

    pub(crate) fn bits(self) -> u16 {
        self.0.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_one_to_fifteen_and_halve_in_number() {
        let mut of_rank = [0_u32; 1 << RANK_BITS];
        for n in 0..1_000_000_u32 {
            let mark = UserMark::of(format!("user-{n}").as_bytes()).unwrap();
            of_rank[usize::from(mark.bits() & 0xf)] += 1;
        }
        assert_eq!(of_rank[0], 0);
        for (rank, &users) in (1_u32..).zip(&of_rank[1..usize::from(RANK_MAX)]) {
            let expected = 1_000_000 >> rank;
            // Six standard deviations of a binomial distribution.
            assert!(users.abs_diff(expected) <= 10 + 6 * expected.isqrt(), "{users} users of rank {rank}");
        }
        assert!((30..=100).contains(&of_rank[usize::from(RANK_MAX)]), "{of_rank:?}");
    }

    #[test]
    fn an_empty_id_is_not_a_user() {
        assert_eq!(UserMark::of(b""), None);
    }
}
