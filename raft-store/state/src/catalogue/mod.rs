//! The campaigns of a group: their terms, and what the stream has counted of them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use clicktally_proto::command::CampaignTerms;
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_proto::identity::ids::CampaignId;
use clicktally_proto::money::Micros;
use serde::{Deserialize, Serialize};

use crate::check::{BrokenInvariant, require};
use crate::head::{Field, HeadError, HeadReader, HeadWriter, Tag};
use crate::limits::{CAMPAIGNS_MAX, REPLACED_TERMS_MAX};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Campaign {
    pub terms: CampaignTerms,
    pub revision: u64,
    /// What the stream has counted so far, at the price in force when it was applied. Never on an invoice.
    pub spend_micros: Micros,
    pub clicks: u64,
}

const EXPORTED_TERMS: Field<u64> = Field { tag: Tag::ExportedTerms, before: u64::default };
const REPLACED_TERMS: Field<BTreeMap<u64, Arc<CampaignTerms>>> =
    Field { tag: Tag::ReplacedTerms, before: BTreeMap::new };

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalogue {
    campaigns: BTreeMap<CampaignId, Arc<Campaign>>,
    /// PostgreSQL holds all terms up to this revision. 0: nothing was reported yet, so replaced terms are not kept, as
    /// in builds that know no reports.
    exported_through: u64,
    /// Terms that were replaced before PostgreSQL had them, by revision.
    replaced: BTreeMap<u64, Arc<CampaignTerms>>,
}

impl Catalogue {
    pub fn campaigns(&self) -> &BTreeMap<CampaignId, Arc<Campaign>> {
        &self.campaigns
    }

    pub fn get(&self, campaign: CampaignId) -> Option<&Arc<Campaign>> {
        self.campaigns.get(&campaign)
    }

    /// The price of a click now. Clicks of an unknown campaign cost nothing.
    pub(crate) fn price_micros(&self, campaign: CampaignId) -> Micros {
        self.campaigns.get(&campaign).map_or(0, |campaign| campaign.terms.cost_per_click_micros)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.campaigns.len() >= CAMPAIGNS_MAX
    }

    pub fn replaced(&self) -> &BTreeMap<u64, Arc<CampaignTerms>> {
        &self.replaced
    }

    pub(crate) fn exported_through(&self) -> u64 {
        self.exported_through
    }

    /// Whether the campaign's terms in force would have to be kept and cannot be.
    pub(crate) fn is_full_of_replaced(&self, campaign: CampaignId) -> bool {
        let is_kept = self.campaigns.get(&campaign).is_some_and(|campaign| self.is_to_be_kept(campaign.revision));
        is_kept && self.replaced.len() >= REPLACED_TERMS_MAX
    }

    fn is_to_be_kept(&self, revision: u64) -> bool {
        self.exported_through > 0 && revision > self.exported_through
    }

    /// PostgreSQL holds all terms up to this revision. Returns whether that is more than was known.
    pub(crate) fn exported(&mut self, through: u64) -> bool {
        let is_news = through > self.exported_through;
        if is_news {
            self.exported_through = through;
            self.replaced = self.replaced.split_off(&(through + 1));
        }
        is_news
    }

    /// Puts new terms in force. What was counted so far stays. The former terms stay until PostgreSQL has them.
    pub(crate) fn set_terms(&mut self, terms: CampaignTerms, revision: u64) {
        let counted = self.campaigns.get(&terms.campaign_id);
        if let Some(former) = counted
            && self.is_to_be_kept(former.revision)
            && !is_broken(Mutant::ReplacedTermsLost)
        {
            self.replaced.insert(former.revision, Arc::new(former.terms.clone()));
        }
        let (spend_micros, clicks) = counted.map_or((0, 0), |campaign| (campaign.spend_micros, campaign.clicks));
        self.campaigns.insert(terms.campaign_id, Arc::new(Campaign { terms, revision, spend_micros, clicks }));
    }

    /// Adds clicks and what they cost. Saturates: a budget whose spend overflowed pauses, which is the safe side.
    pub(crate) fn spend(&mut self, campaign_id: CampaignId, cells: impl Iterator<Item = (u64, Micros)>) {
        let Some(campaign) = self.campaigns.get_mut(&campaign_id).map(Arc::make_mut) else { return };
        for (clicks, spend_micros) in cells {
            campaign.spend_micros = campaign.spend_micros.saturating_add(spend_micros);
            if is_broken(Mutant::SpendTwice) {
                campaign.spend_micros = campaign.spend_micros.saturating_add(spend_micros);
            }
            campaign.clicks = campaign.clicks.saturating_add(clicks);
        }
    }

    /// For the reader of a snapshot. Returns whether the campaign is new.
    pub(crate) fn restore(&mut self, id: CampaignId, campaign: Arc<Campaign>) -> bool {
        self.campaigns.insert(id, campaign).is_none()
    }

    pub(crate) fn check(&self) -> Result<(), BrokenInvariant> {
        self.check_replaced()?;
        self.check_some(0, usize::MAX).map(|_| ())
    }

    pub(crate) fn check_replaced(&self) -> Result<(), BrokenInvariant> {
        let kept = self.replaced.len();
        require(kept <= REPLACED_TERMS_MAX, "a group keeps at most REPLACED_TERMS_MAX replaced terms", || {
            kept.to_string()
        })?;
        for (revision, terms) in &self.replaced {
            let told = || format!("revision {revision}, exported through {}", self.exported_through);
            require(self.is_to_be_kept(*revision), "replaced terms are kept only until PostgreSQL has them", told)?;
            let in_force = self.campaigns.get(&terms.campaign_id).map_or(0, |campaign| campaign.revision);
            require(*revision < in_force, "replaced terms are older than those in force", told)?;
        }
        Ok(())
    }

    pub(crate) fn put(&self, head: &mut HeadWriter) -> Result<(), HeadError> {
        let Catalogue { campaigns: _, exported_through, replaced } = self;
        head.put(&EXPORTED_TERMS, exported_through)?;
        head.put(&REPLACED_TERMS, replaced)
    }

    /// A catalogue whose campaigns are still missing.
    pub(crate) fn take(head: &mut HeadReader) -> Result<Catalogue, HeadError> {
        let (exported_through, replaced) = (head.take(&EXPORTED_TERMS)?, head.take(&REPLACED_TERMS)?);
        Ok(Catalogue { campaigns: BTreeMap::new(), exported_through, replaced })
    }

    /// Checks up to `count` campaigns after the given id. Returns the last id checked; 0 once there are no more.
    pub(crate) fn check_some(&self, after: CampaignId, count: usize) -> Result<CampaignId, BrokenInvariant> {
        let campaigns = self.campaigns.len();
        require(campaigns <= CAMPAIGNS_MAX, "a group has at most CAMPAIGNS_MAX campaigns", || format!("{campaigns}"))?;
        let mut last = 0;
        let mut checked = 0;
        for (id, campaign) in self.campaigns.range((Bound::Excluded(after), Bound::Unbounded)).take(count) {
            let told = || format!("campaign {id}: {campaign:?}");
            require(campaign.terms.campaign_id == *id, "terms are under their own campaign", told)?;
            require(campaign.spend_micros >= 0, "spend is never negative", told)?;
            require(campaign.revision > 0, "terms have the index of the entry that set them", told)?;
            (last, checked) = (*id, checked + 1);
        }
        Ok(if checked < count { 0 } else { last })
    }
}

#[cfg(test)]
mod tests {
    use clicktally_proto::money::Currency;

    use super::*;
    use crate::check::assert_breaks;

    fn terms(campaign_id: CampaignId) -> CampaignTerms {
        CampaignTerms {
            campaign_id,
            advertiser_id: 1,
            name: "spring".into(),
            currency: Currency::USD,
            cost_per_click_micros: 10,
            budget_micros: 100,
            tolerance_micros: 0,
            effective_from_ms: 0,
            expected_revision: None,
        }
    }

    fn catalogue() -> Catalogue {
        let mut catalogue = Catalogue::default();
        (1..=5).for_each(|campaign| catalogue.set_terms(terms(campaign), 9));
        catalogue.check().unwrap();
        catalogue
    }

    #[test]
    fn new_terms_keep_what_was_counted() {
        let mut catalogue = catalogue();
        catalogue.spend(3, [(2, 20), (1, 10)].into_iter());
        catalogue.set_terms(terms(3), 11);
        let campaign = catalogue.get(3).unwrap();
        assert_eq!((campaign.revision, campaign.clicks, campaign.spend_micros), (11, 3, 30));
    }

    #[test]
    fn a_check_in_steps_reaches_every_campaign_and_begins_anew() {
        let mut catalogue = catalogue();
        assert_eq!(catalogue.check_some(0, 2), Ok(2));
        assert_eq!(catalogue.check_some(2, 2), Ok(4));
        assert_eq!(catalogue.check_some(4, 2), Ok(0));
        Arc::make_mut(catalogue.campaigns.get_mut(&5).unwrap()).spend_micros = -1;
        assert_eq!(catalogue.check_some(0, 2), Ok(2));
        assert!(catalogue.check_some(4, 2).is_err());
    }

    #[test]
    fn each_rule_is_broken_once() {
        let broken = |change: fn(&mut Campaign)| {
            let mut catalogue = catalogue();
            change(Arc::make_mut(catalogue.campaigns.get_mut(&3).unwrap()));
            catalogue.check()
        };
        assert_breaks(broken(|campaign| campaign.terms.campaign_id = 4), "terms are under their own campaign");
        assert_breaks(broken(|campaign| campaign.spend_micros = -1), "spend is never negative");
        assert_breaks(broken(|campaign| campaign.revision = 0), "terms have the index of the entry that set them");
        let kept = |exported_through: u64, revision: u64| {
            let mut catalogue = catalogue();
            catalogue.exported_through = exported_through;
            catalogue.replaced.insert(revision, Arc::new(terms(3)));
            catalogue.check()
        };
        kept(4, 8).unwrap();
        assert_breaks(kept(8, 8), "replaced terms are kept only until PostgreSQL has them");
        assert_breaks(kept(4, 9), "replaced terms are older than those in force");
        let mut full = catalogue();
        full.exported_through = 1;
        let many = 2..2 + REPLACED_TERMS_MAX as u64 + 1;
        full.replaced = many.map(|revision| (revision, Arc::new(terms(3)))).collect();
        assert_breaks(full.check(), "a group keeps at most REPLACED_TERMS_MAX replaced terms");
    }
}
