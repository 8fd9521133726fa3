//! A campaign in requests and answers, and its checks. Pure.

use clicktally_proto::command::CampaignTerms;
use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::identity::ids::CampaignId;
use clicktally_proto::limits::{BUDGET_MICROS_MAX, NAME_BYTES_MAX, PRICE_MICROS_MAX};
use clicktally_proto::money::{Micros, Money};
use clicktally_state::catalogue::Campaign;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::text_forms::exact_number::ExactNumber;
use crate::text_forms::json_scalar::{Scalar, parse_id};
use crate::text_forms::money_body::MoneyBody;
use crate::text_forms::time_text::format_time;

/// Every text and number is bounded by what the stores behind this interface take, and by what sums over campaigns and
/// clicks can hold.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CampaignInput {
    /// Required with POST; with PUT it may be left out, or must equal the path.
    pub campaign_id: Option<Scalar>,
    pub advertiser_id: Scalar,
    pub name: Option<String>,
    pub cost_per_click: MoneyBody,
    pub budget: MoneyBody,
    /// The most that may be at risk beyond the budget before the budget lane pauses; default 0.
    pub tolerance: Option<MoneyBody>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CampaignOutput {
    pub campaign_id: ExactNumber,
    pub advertiser_id: ExactNumber,
    pub name: String,
    pub cost_per_click: MoneyBody,
    pub budget: MoneyBody,
    pub tolerance: MoneyBody,
    /// Clicks counted by the stream at the prices in force then. Never used for an invoice.
    pub stream_spend: MoneyBody,
    pub stream_clicks: u64,
    /// Clicks from this time on are billed by these terms.
    pub effective_from: String,
    /// Also the ETag.
    pub revision: u64,
}

impl CampaignOutput {
    pub fn of(campaign: &Campaign) -> CampaignOutput {
        let terms = &campaign.terms;
        let money = |amount_micros: Micros| MoneyBody::from(Money { amount_micros, currency: terms.currency });
        CampaignOutput {
            campaign_id: terms.campaign_id.into(),
            advertiser_id: terms.advertiser_id.into(),
            name: terms.name.clone(),
            cost_per_click: money(terms.cost_per_click_micros),
            budget: money(terms.budget_micros),
            tolerance: money(terms.tolerance_micros),
            stream_spend: money(campaign.spend_micros),
            stream_clicks: campaign.clicks,
            effective_from: format_time(terms.effective_from_ms),
            revision: campaign.revision,
        }
    }
}

impl CampaignInput {
    /// `path_id`: the id in the path of a PUT.
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub fn into_terms(
        self,
        path_id: Option<CampaignId>,
        expected_revision: Option<u64>,
        now_ms: UnixMillis,
    ) -> Result<CampaignTerms, String> {
        let body_id = match self.campaign_id {
            Some(id) => Some(parse_id(&id.into_text()).ok_or("campaign_id must be a whole number from 1 to 2^63 - 1")?),
            None => None,
        };
        let campaign_id = match (path_id, body_id) {
            (Some(path), Some(body)) if path != body => return Err("campaign_id differs from the path".to_owned()),
            (Some(id), _) | (None, Some(id)) => id,
            (None, None) => return Err("campaign_id is missing".to_owned()),
        };
        let advertiser_id = parse_id(&self.advertiser_id.into_text())
            .ok_or("advertiser_id must be a whole number from 1 to 2^63 - 1")?;
        let name = self.name.unwrap_or_default();
        if name.len() > NAME_BYTES_MAX {
            return Err(format!("name is longer than {NAME_BYTES_MAX} bytes"));
        }
        // PostgreSQL refuses U+0000, and reports and invoices print names.
        if name.chars().any(char::is_control) {
            return Err("name contains a control character, such as a line break or U+0000: remove it".to_owned());
        }
        let currency = self.budget.currency;
        let amount = |field: &str, money: MoneyBody, max: Micros| {
            if money.currency != currency {
                return Err(format!("{field} is in {}, the budget in {currency}", money.currency));
            }
            match money.amount_micros.to_i64() {
                Some(..0) => Err(format!("{field} must not be negative")),
                Some(micros) if micros <= max => Ok(micros),
                _ => Err(format!("{field} must be at most {max} micros")),
            }
        };
        Ok(CampaignTerms {
            campaign_id,
            advertiser_id,
            name,
            currency,
            cost_per_click_micros: amount("cost_per_click", self.cost_per_click, PRICE_MICROS_MAX)?,
            budget_micros: amount("budget", self.budget, BUDGET_MICROS_MAX)?,
            tolerance_micros: self.tolerance.map_or(Ok(0), |money| amount("tolerance", money, BUDGET_MICROS_MAX))?,
            effective_from_ms: now_ms,
            expected_revision,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(change: impl FnOnce(&mut serde_json::Value), path_id: Option<u64>) -> Result<CampaignTerms, String> {
        let mut body = serde_json::json!({
            "campaign_id": "7", "advertiser_id": 3, "name": "spring",
            "cost_per_click": {"amount_micros": 500_000, "currency": "EUR"},
            "budget": {"amount_micros": 9_000_000, "currency": "EUR"},
        });
        change(&mut body);
        let input: CampaignInput = serde_json::from_value(body).map_err(|error| error.to_string())?;
        input.into_terms(path_id, None, 42)
    }

    #[test]
    fn terms_hold_what_was_sent_and_when() {
        let terms = terms(|_| {}, Some(7)).unwrap();
        assert_eq!((terms.campaign_id, terms.advertiser_id, terms.effective_from_ms), (7, 3, 42));
        assert_eq!((terms.cost_per_click_micros, terms.budget_micros, terms.tolerance_micros), (500_000, 9_000_000, 0));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(terms(|_| {}, Some(8)).unwrap_err().contains("path"));
        assert!(
            terms(|body| body["cost_per_click"]["currency"] = "USD".into(), None)
                .unwrap_err()
                .contains("cost_per_click")
        );
        assert!(terms(|body| body["budget"]["amount_micros"] = (-1).into(), None).unwrap_err().contains("budget"));
        assert!(terms(|body| body["budget"]["currency"] = "euro".into(), None).unwrap_err().contains("currency"));
        for (field, max) in
            [("cost_per_click", PRICE_MICROS_MAX), ("budget", BUDGET_MICROS_MAX), ("tolerance", BUDGET_MICROS_MAX)]
        {
            let with = |micros: i64| {
                terms(|body| body[field] = serde_json::json!({"amount_micros": micros, "currency": "EUR"}), None)
            };
            assert!(with(max).is_ok());
            let refused = with(max + 1).unwrap_err();
            assert!(refused.contains(field) && refused.contains(&max.to_string()), "{refused}");
        }
        for name in ["spring\u{0}sale", "spring\nsale", "\u{7f}", "\u{9b}1m"] {
            let refused = terms(|body| body["name"] = name.into(), None).unwrap_err();
            assert!(refused.contains("name contains a control character"), "{refused}");
        }
        assert_eq!(terms(|body| body["name"] = "Été 🌞".into(), None).unwrap().name, "Été 🌞");
        assert_eq!(terms(|body| body["name"] = serde_json::Value::Null, None).unwrap().name, "", "null is absence");
        let text = terms(|body| body["budget"]["amount_micros"] = "9007199254740993".into(), None).unwrap_err();
        assert!(text.contains("budget must be at most"), "{text}");
        assert_eq!(terms(|body| body["budget"]["amount_micros"] = "42".into(), None).unwrap().budget_micros, 42);
        assert!(terms(|body| body["buget"] = 1.into(), None).unwrap_err().contains("buget"));
    }
}
