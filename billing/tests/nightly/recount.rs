//! The naive recount: one loop over the records as they were produced, with a set of ids. Shares no code with the
//! batch.

use std::collections::{BTreeMap, HashMap};

use clicktally_proto::click::record::Click;
use clicktally_proto::identity::shard_key::ShardId;

use crate::clicks::Logged;
use crate::environment::partitioner;

/// (minute, ad, campaign).
pub(crate) type Window = (u64, u64, u64);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) clicks: i64,
    pub(crate) invalid: i64,
    pub(crate) copies: i64,
}

#[derive(Debug, Default)]
pub(crate) struct Recount {
    pub(crate) windows: BTreeMap<Window, Tally>,
    /// Valid clicks with the offset of the record that counted.
    pub(crate) winners: Vec<(Click, ShardId, u64)>,
    pub(crate) rows: i64,
    pub(crate) malformed: i64,
}

pub(crate) fn window(click: &Click) -> Window {
    (click.event_time_ms / 60_000, click.ad_id, click.campaign_id)
}

pub(crate) fn recount(records: &[Logged]) -> Recount {
    let mut recount = Recount::default();
    let mut offsets: HashMap<ShardId, u64> = HashMap::new();
    let mut seen: HashMap<u64, ()> = HashMap::new();
    for record in records {
        let offset = *offsets.entry(record.shard).and_modify(|next| *next += 1).or_insert(0);
        recount.rows += i64::try_from(record.clicks.len().max(1)).unwrap();
        recount.malformed += i64::from(record.clicks.is_empty());
        for click in &record.clicks {
            let is_home = partitioner().shard(click.campaign_id, click.id()) == record.shard;
            let is_from_the_future = click.event_time_ms > 3_900_000_000_000;
            if !is_home || is_from_the_future {
                continue;
            }
            let tally = recount.windows.entry(window(click)).or_default();
            if seen.insert(click.click_id, ()).is_some() {
                tally.copies += 1;
            } else if click.evidence != 0 || ["BOT", "Spider"].iter().any(|robot| click.user_agent.contains(robot)) {
                tally.invalid += 1;
            } else {
                tally.clicks += 1;
                recount.winners.push((click.clone(), record.shard, offset));
            }
        }
    }
    recount
}
