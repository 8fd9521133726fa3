//! CT-5: the stream's spend of a campaign is its counted clicks at its price, each once. No positive answer about a
//! budget outlives its expiry, or risks more than what remains plus the tolerance.

use super::{Invariant, Violation};

/// The longest life of a positive answer.
pub const ANSWER_LIFE_MS_MAX: u64 = 1_000;

fn violation(detail: String) -> Violation {
    Violation { invariant: Invariant::Budget, detail }
}

/// For a price that never changed. Amounts in micros.
pub fn check_spend(
    campaign: u64,
    counted_clicks: u64,
    cost_per_click_micros: i64,
    spend_micros: i64,
) -> Option<Violation> {
    let owed = i128::from(counted_clicks) * i128::from(cost_per_click_micros);
    (owed != i128::from(spend_micros)).then(|| {
        violation(format!(
            "campaign {campaign}: {spend_micros} micros spent, {counted_clicks} clicks counted make {owed}"
        ))
    })
}

/// A positive answer, and the facts at its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PositiveAnswer {
    pub campaign: u64,
    /// Both times by the answering node's wall clock.
    pub answered_at_ms: u64,
    pub expires_at_ms: u64,
    pub budget_micros: i64,
    pub tolerance_micros: i64,
    /// The spend in the answering replica.
    pub spend_micros: i64,
    pub velocity_micros_per_s: i64,
    /// The longer of two times: since everything that had arrived was certainly counted, and since the replica was
    /// certainly current.
    pub blind_ms: u64,
}

pub fn check_answer(answer: &PositiveAnswer) -> Vec<Violation> {
    let mut details = Vec::new();
    let life_ms = answer.expires_at_ms.saturating_sub(answer.answered_at_ms);
    if life_ms > ANSWER_LIFE_MS_MAX {
        details.push(format!("campaign {}: a yes that holds for {life_ms} ms", answer.campaign));
    }
    let blind_ms = i128::from(answer.blind_ms + life_ms);
    let at_risk = i128::from(answer.velocity_micros_per_s.max(0)) * blind_ms / 1_000;
    let remaining = i128::from(answer.budget_micros) - i128::from(answer.spend_micros);
    if remaining <= 0 || at_risk > remaining + i128::from(answer.tolerance_micros) {
        details.push(format!(
            "campaign {}: a yes with {remaining} micros left and {at_risk} at risk in {blind_ms} ms, tolerated {}",
            answer.campaign, answer.tolerance_micros
        ));
    }
    details.into_iter().map(violation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_click_charged_twice_or_not_at_all_is_seen() {
        assert_eq!(check_spend(1, 5, 10, 50), None);
        assert!(check_spend(1, 5, 10, 60).is_some() && check_spend(1, 5, 10, 40).is_some());
    }

    #[test]
    fn a_yes_that_holds_too_long_or_risks_too_much_is_seen() {
        let answer = PositiveAnswer {
            campaign: 1,
            answered_at_ms: 5_000,
            expires_at_ms: 6_000,
            budget_micros: 100,
            tolerance_micros: 10,
            spend_micros: 50,
            velocity_micros_per_s: 20,
            blind_ms: 2_000,
        };
        assert_eq!(check_answer(&answer), []);
        assert_eq!(check_answer(&PositiveAnswer { expires_at_ms: 6_001, velocity_micros_per_s: 0, ..answer }).len(), 1);
        assert_eq!(check_answer(&PositiveAnswer { spend_micros: 100, velocity_micros_per_s: 0, ..answer }).len(), 1);
        assert_eq!(check_answer(&PositiveAnswer { velocity_micros_per_s: 21, ..answer }).len(), 1);
    }
}
