//! All randomness of a simulation, from one number.
//!
//! Each purpose draws from a stream of its own. A draw added for one purpose does not shift the others, so a seed keeps
//! its story while the simulation grows ([`super::edition`]).

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The number from which everything random of a run follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub u64);

impl Seed {
    /// The same seed and purpose always give the same draws.
    pub fn stream(self, purpose: &str) -> Stream {
        let mut random = ChaCha8Rng::seed_from_u64(self.0);
        random.set_stream(fnv1a(FNV_OFFSET, purpose.as_bytes()));
        Stream(random)
    }
}

/// Draws for one purpose.
#[derive(Debug, Clone)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// `0..end`; 0 for an empty range.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.0.random_range(0..end) }
    }

    /// `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.random_range(low..=high.max(low))
    }

    pub fn permille(&mut self, chance: u64) -> bool {
        self.below(1_000) < chance
    }

    /// `None` if `of` is empty.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(usize::try_from(self.below(of.len() as u64)).unwrap_or(0))
    }

    /// `0..ranks`. The first is the likeliest; the likelihoods follow a Zipf law with an exponent of about one.
    pub fn zipf(&mut self, ranks: u64) -> u64 {
        // The product of two uniform draws has the density −ln x, which is near enough to Zipf's for a viral head and a
        // long tail.
        let (a, b) = (self.below(1 << 20), self.below(1 << 20));
        (((a * b) >> 20) * ranks) >> 20
    }
}

pub(crate) const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a (Fowler, Noll, Vo), continued from `hash`. It never changes, unlike the hashes of the standard library.
pub(crate) fn fnv1a(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_for_one_purpose_shifts_no_other() {
        let draw = |stream: &mut Stream| (0..8).map(|_| stream.below(1_000_000)).collect::<Vec<_>>();
        let alone = draw(&mut Seed(7).stream("traffic"));
        let (mut traffic, mut faults) = (Seed(7).stream("traffic"), Seed(7).stream("faults"));
        let beside = draw(&mut faults);
        assert_eq!(draw(&mut traffic), alone);
        assert_ne!(alone, beside);
        assert_ne!(alone, draw(&mut Seed(8).stream("traffic")));
    }

    #[test]
    fn the_first_rank_is_the_likeliest_and_all_are_drawn() {
        let mut stream = Seed(1).stream("ads");
        let mut drawn = [0_u32; 10];
        for _ in 0..10_000 {
            drawn[usize::try_from(stream.zipf(10)).unwrap()] += 1;
        }
        assert!(drawn[0] > 2_500 && drawn.iter().all(|&times| times > 10), "{drawn:?}");
    }
}
