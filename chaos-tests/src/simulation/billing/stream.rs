//! The stream's side: the raw log, and the replicated state of each group, which prices what it counts.
//!
//! The state is real. Its shards are a model: one for each group, which counts what arrived in the order of the log. A
//! group may stand still for a while, and then counts what came meanwhile. What is late depends on the time of a
//! click's arrival alone, because a proof of emptiness carries the log's time.

use std::collections::{BTreeMap, BTreeSet};

use clicktally_proto::checkpoint::{Checkpoint, Epoch, OutcomeCounts};
use clicktally_proto::codec;
use clicktally_proto::command::{
    AssignShard, COMMAND_LEVEL, CampaignTerms, Command, GroupSettings, NodeRecord, Outcome,
};
use clicktally_proto::counts::cell_block::CellBlock;
use clicktally_proto::counts::cell_counts::{CellDelta, CellKey, Counts};
use clicktally_proto::event_time::{EventTimeRules, Minute, UnixMillis};
use clicktally_proto::identity::ids::{AdId, CampaignId};
use clicktally_proto::identity::shard_key::{GroupId, Partitioner, ShardId};
use clicktally_proto::money::Micros;
use clicktally_state::group_state::GroupState;

/// A record of the raw log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Click {
    pub(super) offset: u64,
    pub(super) campaign_id: CampaignId,
    pub(super) ad_id: AdId,
    pub(super) event_time_ms: UnixMillis,
    pub(super) arrival_ms: UnixMillis,
    pub(super) is_valid: bool,
}

/// Terms as they were accepted, from the point of view of one who watches.
#[derive(Debug, Clone)]
pub(super) struct AcceptedTerms {
    pub(super) terms: CampaignTerms,
    pub(super) revision: u64,
}

/// (Campaign, ad, minute).
pub(super) type RowKey = (CampaignId, AdId, Minute);

/// What the stream reports of a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct StreamRow {
    pub(super) clicks: u64,
    pub(super) invalid_clicks: u64,
    pub(super) spend_micros: Micros,
    pub(super) revision: u64,
}

#[derive(Debug)]
struct GroupStream {
    state: GroupState,
    index: u64,
    /// Records of the log that it has not counted yet.
    pending: Vec<Click>,
    counted: u64,
    /// It stands still since then.
    stalled_since_ms: Option<UnixMillis>,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) partitioner: Partitioner,
    pub(super) rules: EventTimeRules,
    groups: Vec<GroupStream>,
    pub(super) log: Vec<Click>,
    pub(super) accepted: Vec<AcceptedTerms>,
    /// Offsets of the clicks that it declared late.
    pub(super) late: BTreeSet<u64>,
    /// What its rows say wrongly.
    pub(super) row_errors: BTreeMap<RowKey, StreamRow>,
}

impl GroupStream {
    fn new(group: GroupId, groups: u16, rules: EventTimeRules) -> GroupStream {
        let state = GroupState::new(group);
        let mut stream = GroupStream { state, index: 0, pending: Vec::new(), counted: 0, stalled_since_ms: None };
        let node =
            NodeRecord { node: 1, http_address: "a".to_owned(), peer_address: "b".to_owned(), can_aggregate: true };
        stream.commit(&Command::Configure(GroupSettings::new(groups, rules)));
        stream.commit(&Command::RegisterNode(node));
        let shard = ShardId::new(group, 0);
        stream.commit(&Command::AssignShard(AssignShard { shard, owner: Some(1), expected_epoch: Epoch(0) }));
        stream
    }

    fn commit(&mut self, command: &Command) -> Outcome {
        self.index += 1;
        let bytes = codec::encode(command).expect("a command has a form");
        self.state.apply(self.index, &bytes, COMMAND_LEVEL).expect("a command of this build applies")
    }

    /// One checkpoint of these clicks, all of which count.
    fn count(&mut self, clicks: &[Click]) {
        let mut cells: BTreeMap<CellKey, Counts> = BTreeMap::new();
        for click in clicks {
            let minute = Minute::of(click.event_time_ms);
            let key = CellKey { minute, campaign_id: click.campaign_id, ad_id: click.ad_id };
            let counts = cells.entry(key).or_default();
            counts.clicks += u64::from(click.is_valid);
            counts.invalid_clicks += u64::from(!click.is_valid);
        }
        let mut cells: Vec<CellDelta> = cells.into_iter().map(|(key, counts)| CellDelta { key, counts }).collect();
        let valid = clicks.iter().filter(|click| click.is_valid).count() as u64;
        let read = clicks.len() as u64;
        let checkpoint = Checkpoint {
            shard: ShardId::new(self.state.group(), 0),
            epoch: Epoch(1),
            from: self.counted,
            to: self.counted + read,
            watermark_ms: 0,
            complete_to_ms: 0,
            outcomes: OutcomeCounts { read, counted: valid, invalid: read - valid, ..OutcomeCounts::default() },
            cells: CellBlock::pack(&mut cells),
            seen: Vec::new(),
        };
        self.counted += read;
        let outcome = self.commit(&Command::Checkpoint(checkpoint));
        assert_eq!(outcome, Outcome::Done, "the only owner of a shard commits its checkpoints");
    }
}

impl Stream {
    pub(super) fn new(groups: u16, rules: EventTimeRules) -> Stream {
        Stream {
            partitioner: Partitioner::new(groups),
            rules,
            groups: (0..groups).map(|group| GroupStream::new(GroupId(group), groups, rules)).collect(),
            log: Vec::new(),
            accepted: Vec::new(),
            late: BTreeSet::new(),
            row_errors: BTreeMap::new(),
        }
    }

    fn group(&mut self, campaign_id: CampaignId) -> &mut GroupStream {
        let group = self.partitioner.group(campaign_id);
        &mut self.groups[usize::from(group.0)]
    }

    pub(super) fn states(&self) -> impl Iterator<Item = &GroupState> {
        self.groups.iter().map(|group| &group.state)
    }

    /// The group's shards have read everything that is in the log.
    pub(super) fn is_current(&self, campaign_id: CampaignId) -> bool {
        let group = self.partitioner.group(campaign_id);
        self.groups[usize::from(group.0)].pending.is_empty()
    }

    /// The terms are in force from now on. `false`: the group refuses them.
    pub(super) fn agree(&mut self, terms: CampaignTerms) -> bool {
        let group = self.group(terms.campaign_id);
        let revision_before = group.state.campaign(terms.campaign_id).map_or(0, |campaign| campaign.revision);
        let Outcome::CampaignSet { revision } = group.commit(&Command::SetCampaign(terms.clone())) else {
            return false;
        };
        if revision != revision_before {
            self.accepted.push(AcceptedTerms { terms, revision });
        }
        true
    }

    pub(super) fn report_exported(&mut self, group: GroupId, through_revision: u64) {
        self.groups[usize::from(group.0)].commit(&Command::TermsExported { through_revision });
    }

    /// A click arrives in the log. The stream counts it at its next step.
    pub(super) fn arrive(&mut self, click: Click) {
        self.log.push(click);
        self.group(click.campaign_id).pending.push(click);
    }

    /// Counts what has arrived, in groups that do not stand still.
    pub(super) fn count(&mut self) {
        let rules = self.rules;
        for group in self.groups.iter_mut().filter(|group| group.stalled_since_ms.is_none()) {
            let arrived = std::mem::take(&mut group.pending);
            let is_usable = |click: &Click| click.event_time_ms <= rules.newest_ms(click.arrival_ms);
            let (late, on_time): (Vec<Click>, Vec<Click>) = arrived.into_iter().filter(is_usable).partition(|click| {
                let watermark_ms = click.arrival_ms.saturating_sub(rules.out_of_orderness_ms);
                rules.is_final(Minute::of(click.event_time_ms), watermark_ms)
            });
            self.late.extend(late.iter().map(|click| click.offset));
            if !on_time.is_empty() {
                group.count(&on_time);
            }
        }
    }

    pub(super) fn stall(&mut self, group: GroupId, now_ms: UnixMillis) {
        self.groups[usize::from(group.0)].stalled_since_ms.get_or_insert(now_ms);
    }

    pub(super) fn resume_all(&mut self) {
        self.groups.iter_mut().for_each(|group| group.stalled_since_ms = None);
        self.count();
    }

    pub(super) fn watermark_ms(&self, campaign_id: CampaignId, now_ms: UnixMillis) -> UnixMillis {
        let group = &self.groups[usize::from(self.partitioner.group(campaign_id).0)];
        group.stalled_since_ms.unwrap_or(now_ms).saturating_sub(self.rules.out_of_orderness_ms)
    }

    /// The rows of a day that PostgreSQL has.
    pub(super) fn rows(&self, from_ms: UnixMillis, to_ms: UnixMillis) -> BTreeMap<RowKey, StreamRow> {
        let mut rows = BTreeMap::new();
        for group in &self.groups {
            for (minute, window) in group.state.windows().range(Minute::of(from_ms)..Minute::of(to_ms)) {
                for (campaign_id, ad_id, cell) in window.cells() {
                    let row = StreamRow {
                        clicks: cell.clicks(),
                        invalid_clicks: cell.invalid_clicks(),
                        spend_micros: cell.spend_micros(),
                        revision: cell.changed_at(),
                    };
                    rows.insert((campaign_id, ad_id, *minute), row);
                }
            }
        }
        for (key, wrong) in &self.row_errors {
            if let Some(row) = rows.get_mut(key) {
                row.clicks = row.clicks.saturating_sub(wrong.clicks);
                row.spend_micros -= wrong.spend_micros;
            }
        }
        rows
    }

    /// The newest final window since `from_ms`, by campaign.
    pub(super) fn newest_final_windows(&self, from_ms: UnixMillis, now_ms: UnixMillis) -> Vec<(CampaignId, Minute)> {
        let mut newest: BTreeMap<CampaignId, Minute> = BTreeMap::new();
        for (campaign_id, _, minute) in self.rows(from_ms, now_ms + self.rules.max_ahead_ms + 60_000).into_keys() {
            if self.rules.is_final(minute, self.watermark_ms(campaign_id, now_ms)) {
                let known = newest.entry(campaign_id).or_insert(minute);
                *known = (*known).max(minute);
            }
        }
        newest.into_iter().collect()
    }
}
