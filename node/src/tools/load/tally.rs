//! What should be counted, by the generator's own knowledge. Deliberately naive, and free of the system's counting
//! code.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::plan::{Fate, PlannedClick};

/// One line of the expectation: (ad, minute since the Unix epoch) → distinct, valid, in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedCount {
    pub ad_id: u64,
    pub minute: u64,
    pub clicks: u64,
}

#[derive(Debug, Clone, Default)]
pub struct Tally {
    counts: BTreeMap<(u64, u64), u64>,
    /// Everything sent, repeats and malformed ones included.
    pub sent: u64,
    /// Distinct valid clicks, those beyond the horizon included: what an invoice holds.
    pub unique_valid: u64,
    pub duplicates: u64,
    pub invalid: u64,
    pub malformed: u64,
    /// The unique valid clicks that are late but counted.
    pub late_counted: u64,
    /// The unique valid clicks that are beyond the horizon: in no stream count.
    pub late_beyond: u64,
    /// Every click that the log must hold once all is acknowledged: by its campaign and its producer's own id, at
    /// either door.
    pub events: HashSet<(u64, String)>,
}

impl Tally {
    pub fn add(&mut self, click: &PlannedClick) {
        self.add_click(click.fate, click.campaign_id, &click.event_id, click.ad_id, click.event_time_ms);
    }

    pub fn add_click(&mut self, fate: Fate, campaign_id: u64, event_id: &str, ad_id: u64, event_time_ms: u64) {
        self.sent += 1;
        if fate != Fate::Malformed {
            // The first click of an event is the one that is judged, as in the product.
            if !self.events.insert((campaign_id, event_id.to_owned())) {
                self.duplicates += 1;
                return;
            }
        }
        match fate {
            Fate::Malformed => self.malformed += 1,
            Fate::Duplicate => self.duplicates += 1,
            Fate::Invalid => self.invalid += 1,
            Fate::BeyondHorizon => {
                self.unique_valid += 1;
                self.late_beyond += 1;
            }
            Fate::Counted | Fate::LateCounted => {
                self.unique_valid += 1;
                self.late_counted += u64::from(fate == Fate::LateCounted);
                *self.counts.entry((ad_id, event_time_ms / 60_000)).or_default() += 1;
            }
        }
    }

    /// Sum of all expected counts.
    pub fn counted(&self) -> u64 {
        self.counts.values().sum()
    }

    /// In order of ad and minute.
    pub fn expected(&self) -> impl Iterator<Item = ExpectedCount> {
        self.counts.iter().map(|(&(ad_id, minute), &clicks)| ExpectedCount { ad_id, minute, clicks })
    }

    /// Writes the expectation as JSON lines.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let write = || -> anyhow::Result<()> {
            let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
            for line in self.expected() {
                serde_json::to_writer(&mut file, &line)?;
                file.write_all(b"\n")?;
            }
            file.flush()?;
            Ok(())
        };
        write().with_context(|| format!("cannot write the expectation to {}", path.display()))
    }
}

/// Reads what [`Tally::write`] wrote.
pub fn read_expected(path: &Path) -> anyhow::Result<Vec<ExpectedCount>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::plan::DoorKind;
    use super::*;

    #[test]
    fn a_repeated_event_id_counts_once_whatever_its_second_click_says() {
        let click = |event_id: &str, fate, ad_id| PlannedClick {
            door: DoorKind::Http,
            fate,
            event_id: event_id.to_owned(),
            ad_id,
            campaign_id: 1,
            event_time_ms: 60_000,
            user_agent: "".into(),
            country: "".into(),
            device_type: "".into(),
            ip_address: String::new(),
            user_id: String::new(),
            cost_per_click_micros: 0,
        };
        let mut tally = Tally::default();
        for click in [
            click("a", Fate::Counted, 1),
            click("a", Fate::Counted, 2),
            click("b", Fate::Invalid, 1),
            click("b", Fate::Counted, 1),
        ] {
            tally.add(&click);
        }
        let expected: Vec<_> = tally.expected().map(|count| (count.ad_id, count.clicks)).collect();
        assert_eq!(expected, [(1, 1)]);
        assert_eq!((tally.sent, tally.unique_valid, tally.invalid, tally.duplicates), (4, 1, 1, 2));
    }
}
