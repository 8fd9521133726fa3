//! Estimates the number of users from registers, by Ertl's improved raw estimator (O. Ertl, "New cardinality estimation
//! algorithms for HyperLogLog sketches", arXiv:1702.01284, algorithm 6). One formula covers no users up to saturation,
//! without thresholds or correction tables.
//!
//! Only readers use it. It uses additions, multiplications, divisions and square roots, which IEEE 754 rounds the same
//! everywhere.

use crate::counts::user_mark::{RANK_MAX, REGISTERS};

/// The standard error of an estimate, relative to it: 1.04 / √4096.
pub const STANDARD_ERROR: f64 = 0.016_25;

/// `of_rank[k]`: how many of the registers hold rank k.
pub(crate) fn estimate(of_rank: &[u32; RANK_MAX as usize + 1]) -> u64 {
    assert_eq!(of_rank.iter().sum::<u32>() as usize, REGISTERS, "every register has one rank");
    let registers = REGISTERS as f64;
    let share = |rank: usize| f64::from(of_rank[rank]) / registers;
    let saturated = usize::from(RANK_MAX);
    if of_rank[0] as usize == REGISTERS {
        return 0;
    }
    let mut sum = registers * tau(1.0 - share(saturated));
    for rank in (1..saturated).rev() {
        sum = 0.5 * (sum + f64::from(of_rank[rank]));
    }
    sum += registers * sigma(share(0));
    // Saturates if all registers do.
    (registers * registers / (2.0 * std::f64::consts::LN_2) / sum).round() as u64
}

/// Corrects for registers that are still empty. `x` is below 1.
fn sigma(mut x: f64) -> f64 {
    let (mut weight, mut sum) = (1.0, x);
    loop {
        x *= x;
        let before = sum;
        sum += x * weight;
        weight += weight;
        if sum == before {
            return sum;
        }
    }
}

/// Corrects for registers at the highest rank.
fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut weight, mut sum) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = sum;
        weight *= 0.5;
        sum -= (1.0 - x) * (1.0 - x) * weight;
        if sum == before {
            return sum / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::user_mark::UserMark;
    use crate::counts::user_sketch::UserSketch;

    /// Makes users that no other `set` has.
    fn sketch_of(set: u64, users: u64) -> UserSketch {
        let mut sketch = UserSketch::default();
        for user in 0..users {
            sketch.insert(UserMark::of(format!("{set}/{user}").as_bytes()).unwrap());
        }
        sketch
    }

    fn error(estimate: u64, users: u64) -> f64 {
        (estimate as f64 - users as f64) / users as f64
    }

    #[test]
    fn a_handful_of_users_is_counted_exactly_but_for_collisions() {
        for users in 0..=6 {
            let exact = (0..200).filter(|set| sketch_of(*set, users).estimate() == users).count();
            assert!(exact >= 196, "{exact} of 200 sets of {users}");
        }
    }

    #[test]
    fn errors_have_the_promised_size_and_no_direction() {
        const SETS: u64 = 60;
        for users in [100, 1_000, 4_000, 12_000, 60_000] {
            let errors: Vec<f64> = (0..SETS).map(|set| error(sketch_of(set, users).estimate(), users)).collect();
            let mean = errors.iter().sum::<f64>() / SETS as f64;
            let deviation = (errors.iter().map(|error| error * error).sum::<f64>() / SETS as f64).sqrt();
            assert!(mean.abs() < 4.0 * STANDARD_ERROR / (SETS as f64).sqrt(), "{mean} of {users} users");
            assert!(deviation < 1.3 * STANDARD_ERROR, "{deviation} of {users} users");
            assert!(errors.iter().all(|error| error.abs() < 5.0 * STANDARD_ERROR), "{errors:?} of {users} users");
        }
    }

    /// The expected registers for this many users, without hashing a hundred million of them.
    fn expected_registers(users: f64) -> [u32; RANK_MAX as usize + 1] {
        let each = users / REGISTERS as f64;
        // A register stays at rank k or below with probability e^(−each / 2^k). The highest rank takes all above.
        let up_to = |rank: i32| if rank == i32::from(RANK_MAX) { 1.0 } else { (-each / 2_f64.powi(rank)).exp() };
        let mut of_rank = [0; RANK_MAX as usize + 1];
        let mut taken = 0;
        for (rank, count) in (0..).zip(&mut of_rank) {
            let below = (up_to(rank) * REGISTERS as f64).round() as u32;
            *count = below - taken;
            taken = below;
        }
        of_rank
    }

    #[test]
    fn four_bits_a_register_reach_a_hundred_and_thirty_million_users() {
        for users in [1e6, 1e7, 6e7, 1.3e8] {
            let found = estimate(&expected_registers(users)) as f64;
            assert!((found / users - 1.0).abs() < STANDARD_ERROR, "{found} for {users}");
        }
        let mut saturated = [0; RANK_MAX as usize + 1];
        saturated[usize::from(RANK_MAX)] = REGISTERS as u32;
        assert_eq!(estimate(&saturated), u64::MAX);
    }
}
