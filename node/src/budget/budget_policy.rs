//! May this campaign be shown? Facts and the time in, a decision out; no I/O.
//!
//! Money that may be spent unseen is `velocity × blind time`, where the blind time reaches from the newest click known to be
//! counted to the moment the answer expires. As long as that fits into what remains, serve. As long as it fits into what
//! remains and the advertiser's published tolerance, serve a part. Beyond it, and whenever a fact is missing, pause.

use std::time::Duration;

use clicktally_api::budget::BudgetDecision;
use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_proto::money::Micros;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetRules {
    /// A replica not proven current for longer than this may not say yes.
    pub staleness_max: Duration,
    /// How far the counting may be behind the clock.
    pub counting_lag_max: Duration,
    /// How long an answer holds; at most a second.
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

/// What is known of a campaign at the moment of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    pub budget_micros: Micros,
    pub spend_micros: Micros,
    pub tolerance_micros: Micros,
    /// `None`: the replica was never proven current.
    pub staleness: Option<Duration>,
    /// Wall time before which every arrived click is in the spend.
    pub complete_to_ms: UnixMillis,
    /// Millionths a second, as last seen.
    pub velocity_micros: Micros,
    pub now_ms: UnixMillis,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub decision: BudgetDecision,
    pub remaining_micros: Micros,
    /// What may have been spent, or may be spent until the answer expires, without being seen here.
    pub at_risk_micros: Micros,
    pub expires_at_ms: UnixMillis,
    pub reason: &'static str,
}

impl BudgetRules {
    pub fn decide(&self, facts: &Facts) -> Verdict {
        let remaining_micros = facts.budget_micros.saturating_sub(facts.spend_micros);
        let lag = Duration::from_millis(facts.now_ms.saturating_sub(facts.complete_to_ms));
        // The lag is by the wall clocks of two nodes, the staleness by one monotonic clock: the worse of the two counts.
        let staleness = facts.staleness.unwrap_or(Duration::MAX);
        let staleness = if is_broken(Mutant::StalenessIgnored) { Duration::ZERO } else { staleness };
        let blind = lag.max(staleness).saturating_add(self.answer_life);
        let at_risk_micros = spent_in(facts.velocity_micros, blind);
        let (decision, reason) = self.judge(facts, lag, remaining_micros, at_risk_micros);
        let life = if is_broken(Mutant::AnswerOutlives) { self.answer_life * 10 } else { self.answer_life };
        let life_ms = u64::try_from(life.as_millis()).unwrap_or(0);
        Verdict {
            decision,
            remaining_micros,
            at_risk_micros,
            expires_at_ms: facts.now_ms.saturating_add(life_ms),
            reason,
        }
    }

    fn judge(
        &self,
        facts: &Facts,
        lag: Duration,
        remaining: Micros,
        at_risk: Micros,
    ) -> (BudgetDecision, &'static str) {
        let pause = |reason| (BudgetDecision::Pause, reason);
        let is_stale = facts.staleness.is_none_or(|staleness| staleness > self.staleness_max);
        if is_stale && !is_broken(Mutant::StalenessIgnored) {
            return pause("replica_stale");
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
            Ok(serve_permille @ 1..) => (BudgetDecision::Throttle { serve_permille }, "near_budget"),
            _ => pause("dollars_at_risk"),
        }
    }
}

/// Rounded up; saturates, which is the side on which nothing is served.
fn spent_in(velocity_micros: Micros, time: Duration) -> Micros {
    let velocity = u128::try_from(velocity_micros.max(0)).unwrap_or(0);
    Micros::try_from(velocity.saturating_mul(time.as_millis()).div_ceil(1_000)).unwrap_or(Micros::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW_MS: u64 = 1_000_000;

    fn facts() -> Facts {
        Facts {
            budget_micros: 10_000_000,
            spend_micros: 1_000_000,
            tolerance_micros: 0,
            staleness: Some(Duration::from_millis(100)),
            complete_to_ms: NOW_MS - 1_000,
            velocity_micros: 1_000,
            now_ms: NOW_MS,
        }
    }

    fn reason(facts: Facts) -> &'static str {
        BudgetRules::default().decide(&facts).reason
    }

    #[test]
    fn a_fresh_replica_with_budget_left_serves_for_a_second() {
        let verdict = BudgetRules::default().decide(&facts());
        assert_eq!((verdict.decision, verdict.remaining_micros), (BudgetDecision::Serve, 9_000_000));
        // One second behind, one second of life, at a thousandth of a unit a second.
        assert_eq!((verdict.at_risk_micros, verdict.expires_at_ms), (2_000, NOW_MS + 1_000));
    }

    #[test]
    fn whatever_is_missing_pauses() {
        assert_eq!(reason(Facts { staleness: None, ..facts() }), "replica_stale");
        assert_eq!(reason(Facts { staleness: Some(Duration::from_millis(2_001)), ..facts() }), "replica_stale");
        assert_eq!(reason(Facts { complete_to_ms: NOW_MS - 10_001, ..facts() }), "counting_behind");
        assert_eq!(reason(Facts { complete_to_ms: 0, ..facts() }), "counting_behind");
        assert_eq!(reason(Facts { spend_micros: 10_000_000, ..facts() }), "budget_spent");
        assert_eq!(reason(Facts { budget_micros: 0, spend_micros: 0, ..facts() }), "budget_spent");
    }

    #[test]
    fn a_fast_spender_is_throttled_within_its_tolerance_and_paused_beyond() {
        let near = Facts { spend_micros: 9_000_000, velocity_micros: 1_000_000, ..facts() };
        assert_eq!(reason(near), "dollars_at_risk");
        let verdict = BudgetRules::default().decide(&Facts { tolerance_micros: 1_000_000, ..near });
        assert_eq!(verdict.decision, BudgetDecision::Throttle { serve_permille: 500 });
    }

    proptest! {
        #[test]
        fn a_yes_never_risks_more_than_remains_and_is_tolerated(
            budget_micros in 0_i64.., spend_micros in 0_i64.., tolerance_micros in 0_i64.., velocity_micros in any::<i64>(),
            stale_ms in 0_u64..5_000, complete_to_ms in 0_u64..2_000_000,
        ) {
            let facts = Facts {
                budget_micros, spend_micros, tolerance_micros, velocity_micros, complete_to_ms,
                staleness: Some(Duration::from_millis(stale_ms)), now_ms: NOW_MS,
            };
            let verdict = BudgetRules::default().decide(&facts);
            prop_assert!(verdict.expires_at_ms <= NOW_MS + 1_000);
            if verdict.decision != BudgetDecision::Pause {
                prop_assert!(verdict.remaining_micros > 0 && stale_ms <= 2_000);
                prop_assert!(verdict.at_risk_micros <= verdict.remaining_micros.saturating_add(tolerance_micros));
            }
        }

        #[test]
        fn more_staleness_never_turns_a_pause_into_a_yes(stale_ms in 0_u64..3_000, more_ms in 0_u64..3_000, velocity_micros in 0_i64..10_000_000) {
            let at = |ms| BudgetRules::default().decide(&Facts { staleness: Some(Duration::from_millis(ms)), velocity_micros, ..facts() });
            if at(stale_ms).decision == BudgetDecision::Pause {
                prop_assert_eq!(at(stale_ms + more_ms).decision, BudgetDecision::Pause);
            }
        }
    }
}
