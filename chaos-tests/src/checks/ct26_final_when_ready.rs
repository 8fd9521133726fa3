//! CT-26: a day becomes final after its end and lateness, from a run that saw all of it and was reconciled without a
//! page, or by a recorded override.

use clicktally_proto::event_time::UnixMillis;

use super::{Invariant, Violation};

/// A day that has become final, and what was known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finalised {
    pub day: String,
    /// No click of the day is counted after this time.
    pub complete_at_ms: UnixMillis,
    pub computed_at_ms: UnixMillis,
    pub finalised_at_ms: UnixMillis,
    /// A reconciliation has compared this very bill since the day was complete.
    pub is_reconciled: bool,
    /// Stream or batch has made a mistake that is larger than what is tolerated.
    pub must_page: bool,
    pub is_overridden: bool,
}

pub fn check(finalised: &Finalised) -> Vec<Violation> {
    if finalised.is_overridden {
        return Vec::new();
    }
    let mut reasons = Vec::new();
    if finalised.finalised_at_ms < finalised.complete_at_ms {
        reasons.push("its clicks could still come");
    }
    if finalised.computed_at_ms < finalised.complete_at_ms {
        reasons.push("its run did not see all of it");
    }
    if !finalised.is_reconciled {
        reasons.push("its run was not reconciled since");
    }
    if finalised.must_page {
        reasons.push("its reconciliation had to page");
    }
    let detail = |reason| format!("{} became final although {reason}", finalised.day);
    reasons
        .into_iter()
        .map(|reason| Violation { invariant: Invariant::FinalWhenReady, detail: detail(reason) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_override_makes_a_day_final_that_is_not_ready() {
        let ready = Finalised {
            day: "d".to_owned(),
            complete_at_ms: 9,
            computed_at_ms: 9,
            finalised_at_ms: 9,
            is_reconciled: true,
            must_page: false,
            is_overridden: false,
        };
        assert_eq!(check(&ready), []);
        let early = Finalised { finalised_at_ms: 8, computed_at_ms: 8, ..ready.clone() };
        assert_eq!(check(&early).len(), 2);
        assert_eq!(check(&Finalised { is_reconciled: false, ..ready.clone() }).len(), 1);
        assert_eq!(check(&Finalised { must_page: true, ..ready }).len(), 1);
        assert_eq!(check(&Finalised { is_overridden: true, ..early }), []);
    }
}
