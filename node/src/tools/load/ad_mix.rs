//! Chooses the ad of a click: one hot ad, and a Zipf distribution over the other ads.

use rand::{Rng, RngExt};
use rand_distr::{Distribution, Zipf};

use super::options::LoadOptions;

#[derive(Debug)]
pub(super) struct AdMix {
    first_ad: u64,
    first_campaign: u64,
    campaigns: u64,
    hot_share: f64,
    ranks: Zipf<f64>,
}

impl AdMix {
    pub(super) fn new(options: &LoadOptions) -> anyhow::Result<AdMix> {
        #[allow(clippy::cast_precision_loss)] // A number of ads beyond 2^53 is out of anybody's reach.
        let ranks = Zipf::new(options.ads as f64, options.zipf)?;
        Ok(AdMix {
            first_ad: options.first_ad,
            first_campaign: options.first_campaign,
            campaigns: options.campaigns,
            hot_share: options.hot_percent / 100.0,
            ranks,
        })
    }

    pub(super) fn draw(&self, random: &mut impl Rng) -> u64 {
        if random.random_bool(self.hot_share) {
            return self.first_ad;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        // A rank is an integer from 1 to the number of ads.
        let rank = self.ranks.sample(random) as u64;
        self.first_ad + rank.max(1) - 1
    }

    pub(super) fn campaign_of(&self, ad: u64) -> u64 {
        self.first_campaign + ad % self.campaigns
    }
}
