//! May this campaign be shown? BudgetFacts and the time go in, a decision comes out; no I/O.
//!
//! The money that may be spent unseen is `velocity × blind time`. The blind time begins with the newest click known
//! to be counted and ends when the answer expires. There are three cases:
//!
//! 1. The money at risk fits into what remains: serve.
//! 2. It fits into what remains plus the advertiser's published tolerance: serve a part.
//! 3. It exceeds both, or a fact is missing: pause.

use std::time::Duration;

use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_proto::money::Micros;

use crate::answer::BudgetDecision;

/// A node whose wall clock is further off the log's gives no positive answer: the time at which the answer expires
/// would be wrong by as much.
pub const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetRules {
    /// A replica whose last proof of being current is older than this gives no positive answer.
    pub staleness_max: Duration,
    /// How far the counting may be behind the log's clock.
    pub counting_lag_max: Duration,
    /// How long an answer holds; at most one second.
    pub answer_life: Duration,
}

impl Default for BudgetRules {
    fn default() -> Self {
        BudgetRules {
            staleness_max: Duration::from_secs(2),
            counting_lag_max: Duration::from_secs(10),
            answer_life: Duration::from_secs(1),
        }
    }
}

/// What is known about a campaign at the moment of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetFacts {
    pub budget_micros: Micros,
    pub spend_micros: Micros,
    pub tolerance_micros: Micros,
    /// Age of the replica's proof that it is current; `None` if it was never proven.
    pub staleness: Option<Duration>,
    /// Time of the log before which every arrived click is in the spend.
    pub complete_to_ms: UnixMillis,
    /// A time that the log's clock has certainly reached; `None` if this node does not know.
    pub log_now_ms: Option<UnixMillis>,
    /// How far this node's wall clock is certainly off the log's.
    pub clock_difference_ms: u64,
    /// Spend per second in millionths, as last observed.
    pub velocity_micros: Micros,
    /// Wall time.
    pub now_ms: UnixMillis,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetVerdict {
    pub decision: BudgetDecision,
    pub remaining_micros: Micros,
    /// What may have been spent unseen, or may be spent before the answer expires.
    pub at_risk_micros: Micros,
    pub expires_at_ms: UnixMillis,
    pub reason: &'static str,
}

impl BudgetRules {
    /// The decision about one campaign. Total: extreme facts saturate to the side on which nothing is served.
    pub fn decide(&self, facts: &BudgetFacts) -> BudgetVerdict {
        let remaining_micros = facts.budget_micros.saturating_sub(facts.spend_micros);
        // Both times are the log's. A wall clock that is behind would make any count seem fresh.
        let lag = match facts.log_now_ms {
            Some(log_now_ms) => Duration::from_millis(log_now_ms.saturating_sub(facts.complete_to_ms)),
            None => Duration::MAX,
        };
        let staleness = facts.staleness.unwrap_or(Duration::MAX);
        let staleness = if is_broken(Mutant::StalenessIgnored) { Duration::ZERO } else { staleness };
        let blind = lag.max(staleness).saturating_add(self.answer_life);
        let at_risk_micros = spent_in(facts.velocity_micros, blind);
        let (decision, reason) = self.judge(facts, lag, remaining_micros, at_risk_micros);
        if decision.is_positive() {
            let bound = remaining_micros.saturating_add(facts.tolerance_micros.max(0));
            assert!(remaining_micros > 0, "a campaign with nothing left gets no positive answer");
            assert!(at_risk_micros <= bound, "a positive answer risks at most what remains and is tolerated");
        }
        let life = if is_broken(Mutant::AnswerOutlives) { self.answer_life * 10 } else { self.answer_life };
        let life_ms = u64::try_from(life.as_millis()).unwrap_or(0);
        BudgetVerdict {
            decision,
            remaining_micros,
            at_risk_micros,
            expires_at_ms: facts.now_ms.saturating_add(life_ms),
            reason,
        }
    }

    fn judge(
        &self,
        facts: &BudgetFacts,
        lag: Duration,
        remaining: Micros,
        at_risk: Micros,
    ) -> (BudgetDecision, &'static str) {
        let pause = |reason| (BudgetDecision::Pause, reason);
        let is_stale = facts.staleness.is_none_or(|staleness| staleness > self.staleness_max);
        if is_stale && !is_broken(Mutant::StalenessIgnored) {
            return pause("replica_stale");
        }
        let Some(log_now_ms) = facts.log_now_ms else { return pause("log_time_unknown") };
        // Counts that are complete to a time which the log has not reached: two brokers' clocks differ.
        let ahead_ms = facts.complete_to_ms.saturating_sub(log_now_ms).max(facts.clock_difference_ms);
        if Duration::from_millis(ahead_ms) > CLOCK_DIFFERENCE_MAX && !is_broken(Mutant::ClockDifferenceIgnored) {
            return pause("clocks_differ");
        }
        if lag > self.counting_lag_max {
            return pause("counting_behind");
        }
        if remaining <= 0 {
            return pause("budget_spent");
        }
        if at_risk <= remaining {
            return (BudgetDecision::Serve, "within_budget");
        }
        if at_risk > remaining.saturating_add(facts.tolerance_micros) {
            return pause("dollars_at_risk");
        }
        let share = i128::from(remaining) * 1_000 / i128::from(at_risk);
        match u16::try_from(share) {
            Ok(serve_permille @ 1..) => {
                assert!(serve_permille < 1_000, "a throttle serves less than everything: more is at risk than remains");
                (BudgetDecision::Throttle { serve_permille }, "near_budget")
            }
            _ => pause("dollars_at_risk"),
        }
    }
}

/// Rounded up. It saturates: a larger amount at risk leads to *pause*.
fn spent_in(velocity_micros: Micros, time: Duration) -> Micros {
    let velocity = u128::try_from(velocity_micros.max(0)).unwrap_or(0);
    Micros::try_from(velocity.saturating_mul(time.as_millis()).div_ceil(1_000)).unwrap_or(Micros::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW_MS: u64 = 1_000_000;

    fn facts() -> BudgetFacts {
        BudgetFacts {
            budget_micros: 10_000_000,
            spend_micros: 1_000_000,
            tolerance_micros: 0,
            staleness: Some(Duration::from_millis(100)),
            complete_to_ms: NOW_MS - 1_000,
            log_now_ms: Some(NOW_MS),
            clock_difference_ms: 0,
            velocity_micros: 1_000,
            now_ms: NOW_MS,
        }
    }

    fn reason(facts: BudgetFacts) -> &'static str {
        BudgetRules::default().decide(&facts).reason
    }

    #[test]
    fn a_fresh_replica_with_budget_left_serves_for_a_second() {
        let verdict = BudgetRules::default().decide(&facts());
        assert_eq!((verdict.decision, verdict.remaining_micros), (BudgetDecision::Serve, 9_000_000));
        // One second behind plus one second of life, at a thousandth of a unit per second.
        assert_eq!((verdict.at_risk_micros, verdict.expires_at_ms), (2_000, NOW_MS + 1_000));
    }

    #[test]
    fn a_missing_or_exceeded_fact_pauses() {
        assert_eq!(reason(BudgetFacts { staleness: None, ..facts() }), "replica_stale");
        assert_eq!(reason(BudgetFacts { staleness: Some(Duration::from_millis(2_001)), ..facts() }), "replica_stale");
        assert_eq!(reason(BudgetFacts { complete_to_ms: NOW_MS - 10_001, ..facts() }), "counting_behind");
        assert_eq!(reason(BudgetFacts { complete_to_ms: 0, ..facts() }), "counting_behind");
        assert_eq!(reason(BudgetFacts { log_now_ms: None, ..facts() }), "log_time_unknown");
        assert_eq!(reason(BudgetFacts { clock_difference_ms: 5_001, ..facts() }), "clocks_differ");
        assert_eq!(reason(BudgetFacts { complete_to_ms: NOW_MS + 5_001, ..facts() }), "clocks_differ");
        assert_eq!(reason(BudgetFacts { spend_micros: 10_000_000, ..facts() }), "budget_spent");
        assert_eq!(reason(BudgetFacts { budget_micros: 0, spend_micros: 0, ..facts() }), "budget_spent");
    }

    #[test]
    fn a_fast_spender_is_throttled_within_its_tolerance_and_paused_beyond() {
        let near = BudgetFacts { spend_micros: 9_000_000, velocity_micros: 1_000_000, ..facts() };
        assert_eq!(reason(near), "dollars_at_risk");
        let verdict = BudgetRules::default().decide(&BudgetFacts { tolerance_micros: 1_000_000, ..near });
        assert_eq!(verdict.decision, BudgetDecision::Throttle { serve_permille: 500 });
    }

    proptest! {
        #[test]
        fn a_positive_answer_never_risks_more_than_remains_and_is_tolerated(
            budget_micros in 0_i64.., spend_micros in 0_i64.., tolerance_micros in 0_i64..,
            velocity_micros in any::<i64>(), stale_ms in 0_u64..5_000, complete_to_ms in 0_u64..2_000_000,
            log_now_ms in proptest::option::weighted(0.9, 0_u64..2_000_000), clock_difference_ms in 0_u64..10_000,
        ) {
            let facts = BudgetFacts {
                budget_micros, spend_micros, tolerance_micros, velocity_micros, complete_to_ms, log_now_ms,
                clock_difference_ms, staleness: Some(Duration::from_millis(stale_ms)), now_ms: NOW_MS,
            };
            let verdict = BudgetRules::default().decide(&facts);
            prop_assert!(verdict.expires_at_ms <= NOW_MS + 1_000);
            if verdict.decision != BudgetDecision::Pause {
                prop_assert!(verdict.remaining_micros > 0 && stale_ms <= 2_000);
                let log_now_ms = log_now_ms.expect("a yes needs the log's time");
                prop_assert!(complete_to_ms + 10_000 >= log_now_ms && complete_to_ms <= log_now_ms + 5_000);
                prop_assert!(clock_difference_ms <= 5_000);
                prop_assert!(verdict.at_risk_micros <= verdict.remaining_micros.saturating_add(tolerance_micros));
            }
        }

        #[test]
        fn more_staleness_never_turns_a_pause_into_a_positive_answer(
            stale_ms in 0_u64..3_000, more_ms in 0_u64..3_000, velocity_micros in 0_i64..10_000_000,
        ) {
            let at = |ms| {
                let staleness = Some(Duration::from_millis(ms));
                BudgetRules::default().decide(&BudgetFacts { staleness, velocity_micros, ..facts() })
            };
            if at(stale_ms).decision == BudgetDecision::Pause {
                prop_assert_eq!(at(stale_ms + more_ms).decision, BudgetDecision::Pause);
            }
        }
    }
}
