//! Decides the outcome of every click that a shard reads, and cuts the checkpoint that reports it. No I/O, no clock.
//!
//! Each click gets the first outcome of this list that fits, decided in log order:
//!
//! 1. **misrouted**: belongs to another shard; sent on to its own partition.
//! 2. **quarantined**: dated further ahead of its record's arrival than the rules allow, or with an id that no table
//!    can hold. A record that cannot be decoded is quarantined whole.
//! 3. **duplicate**: its id was counted, under whatever minute, and that minute is not final yet.
//! 4. **late**: its window is final by this shard's watermark.
//! 5. **invalid** or **counted**.
//!
//! Decisions depend on the log's prefix, on replicated state and on proofs of emptiness, never on where checkpoints
//! were cut. A successor that re-reads the same records decides the same, with one exception. An uncommitted proof of
//! emptiness is lost with its owner, and the windows it closed reopen. This is safe: decisions based on a proof are
//! published only with a later cut than the one that carries the proof. A cut is published only after the previous one
//! is committed.

use std::collections::BTreeMap;
use std::sync::Arc;

use clicktally_proto::checkpoint::{Checkpoint, Epoch, OutcomeCounts};
use clicktally_proto::click::record::Click;
use clicktally_proto::click::view::{ClickView, decode_record, decode_record_owned};
use clicktally_proto::click_log::{LogRecord, OutRecord};
use clicktally_proto::counts::cell_block::CellBlock;
use clicktally_proto::counts::window_cells::WindowCells;
use clicktally_proto::event_time::{EventTimeRules, Minute, UnixMillis};
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_proto::identity::seen_ids::{DamagedBlock, SeenBlock};
use clicktally_proto::identity::shard_key::{Partitioner, Place, ShardId};
use clicktally_proto::limits::ID_MAX;
use clicktally_state::shards::ShardEntry;

use super::aggregator::Aggregators;
use super::dedup::{Horizon, SeenIds};
use super::out_records;
use super::watermark::WatermarkTracker;

/// A shard that has counted this many clicks since the last cut stops reading until its checkpoint is committed. This
/// bounds a checkpoint to some 2 MB, and the clicks that a successor must read again.
pub const PENDING_CLICKS_MAX: u64 = 200_000;
/// The same limit for records that wait to be sent elsewhere.
pub const PENDING_OUT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The identity of a shard and the rules it follows. They are fixed for the life of one ownership.
#[derive(Debug, Clone, Copy)]
pub struct ShardTerms {
    pub shard: ShardId,
    pub epoch: Epoch,
    pub partitioner: Partitioner,
    pub event_time: EventTimeRules,
}

/// A checkpoint ready to be proposed, and the records that must be durable before it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    pub checkpoint: Checkpoint,
    /// Partial counts in it: one for each (campaign, ad, minute), however many clicks.
    pub partials: u64,
    /// When its oldest record arrived in the log; `None` if it has no record.
    pub oldest_arrival_ms: Option<UnixMillis>,
    pub out_records: Vec<OutRecord>,
}

/// Why a click leaves the counting path.
enum Detour {
    Misrouted(ShardId),
    Quarantined(&'static str),
}

#[derive(Debug)]
pub struct ShardState {
    terms: ShardTerms,
    watermark: WatermarkTracker,
    complete_to_ms: UnixMillis,
    seen: SeenIds,
    /// The fields from here to `out_bytes` describe the time since the last cut.
    from: u64,
    /// The next offset to read.
    position: u64,
    aggregators: Aggregators,
    /// Covers a few minutes. The newest is nearly always the last.
    fresh_ids: Vec<(Minute, Vec<Place>)>,
    outcomes: OutcomeCounts,
    oldest_arrival_ms: Option<UnixMillis>,
    out_records: Vec<OutRecord>,
    out_bytes: usize,
    /// Watermark and completeness at the last cut. The next cut compares them to find out whether there is news.
    last_cut: (UnixMillis, UnixMillis),
    views: Vec<ClickView>,
}

impl ShardState {
    /// Continues from replicated state: `entry` and `seen` must come from one reading of it. Unpacks every seen id, so
    /// call it off the counting threads.
    pub fn restore(terms: ShardTerms, entry: &ShardEntry, seen: &[Arc<SeenBlock>]) -> Result<ShardState, DamagedBlock> {
        let mut ids = SeenIds::default();
        let watermark_ms = if is_broken(Mutant::WatermarkGoesBack) { 0 } else { entry.watermark_ms };
        let horizon = Horizon { rules: terms.event_time, watermark_ms };
        for block in seen {
            for place in block.unpack()? {
                ids.insert(place, block.minute, &horizon);
            }
        }
        Ok(ShardState {
            terms,
            watermark: WatermarkTracker::new(terms.event_time.out_of_orderness_ms, watermark_ms),
            complete_to_ms: entry.complete_to_ms,
            seen: ids,
            from: entry.committed_offset,
            position: entry.committed_offset,
            aggregators: Aggregators::default(),
            fresh_ids: Vec::new(),
            outcomes: OutcomeCounts::default(),
            oldest_arrival_ms: None,
            out_records: Vec::new(),
            out_bytes: 0,
            last_cut: (entry.watermark_ms, entry.complete_to_ms),
            views: Vec::new(),
        })
    }

    pub fn shard(&self) -> ShardId {
        self.terms.shard
    }

    /// The next offset to read.
    pub fn position(&self) -> u64 {
        self.position
    }

    pub fn watermark_ms(&self) -> UnixMillis {
        self.watermark.get()
    }

    /// Outcomes since the last cut.
    pub fn outcomes(&self) -> &OutcomeCounts {
        &self.outcomes
    }

    pub fn seen(&self) -> &SeenIds {
        &self.seen
    }

    /// The shard must not read more before the next cut is taken.
    pub fn is_full(&self) -> bool {
        self.outcomes.read >= PENDING_CLICKS_MAX || self.out_bytes >= PENDING_OUT_BYTES_MAX
    }

    /// Folds the next record. Records must come in log order, from [`ShardState::position`] on.
    pub fn take(&mut self, record: LogRecord<'_>) {
        assert!(record.offset >= self.position, "offset {} was read before; {} is next", record.offset, self.position);
        self.position = record.offset + 1;
        self.complete_to_ms = self.complete_to_ms.max(record.arrival_ms);
        // Records are in the log in the order of their arrival, so the first one is the oldest.
        self.oldest_arrival_ms.get_or_insert(record.arrival_ms);
        let mut views = std::mem::take(&mut self.views);
        views.clear();
        match decode_record(record.value, &mut views) {
            Ok(()) => self.take_clicks(record, &views),
            Err(malformed) => {
                // It counts as one click read: the number of clicks in an unreadable record is unknown.
                self.outcomes.read += 1;
                if is_broken(Mutant::GarbageSkipped) {
                    self.outcomes.read -= 1;
                } else {
                    self.outcomes.quarantined += 1;
                }
                self.quarantine(record.offset, malformed.to_string(), record.value);
            }
        }
        self.views = views;
    }

    /// Notes how far the reader has come. It may have passed offsets that hold no readable record: the markers of
    /// transactions, aborted records, and what compaction removed.
    pub fn pass_to(&mut self, position: u64) {
        assert!(position >= self.position, "the reader is at {position}; {} was read", self.position);
        if !is_broken(Mutant::HolesUnread) {
            self.position = position;
        }
    }

    fn take_clicks(&mut self, record: LogRecord<'_>, clicks: &[ClickView]) {
        let newest_ms = self.terms.event_time.newest_ms(record.arrival_ms);
        let mut detours: Vec<(usize, Detour)> = Vec::new();
        self.outcomes.read += clicks.len() as u64;
        for (index, click) in clicks.iter().enumerate() {
            let own = self.terms.partitioner.shard(click.campaign_id, click.click_id);
            if own != self.terms.shard && !is_broken(Mutant::MisroutedCounted) {
                detours.push((index, Detour::Misrouted(own)));
            } else if click.event_time_ms > newest_ms && !is_broken(Mutant::FarAheadCounted) {
                detours.push((index, Detour::Quarantined("dated too far ahead of its arrival")));
            } else if click.ad_id > ID_MAX || click.campaign_id > ID_MAX {
                detours.push((index, Detour::Quarantined("ad or campaign id of 2^63 or more")));
            } else {
                self.decide(&record, click);
            }
        }
        if !detours.is_empty() {
            self.detour(record, detours);
        }
    }

    #[inline]
    fn decide(&mut self, record: &LogRecord<'_>, click: &ClickView) {
        self.watermark.observe(click.event_time_ms, record.arrival_ms);
        let horizon = self.horizon();
        let minute = Minute::of(click.event_time_ms);
        let place = Place::of(click.click_id);
        if horizon.rules.is_final(minute, horizon.watermark_ms) {
            if self.seen.contains(place, &horizon) {
                self.outcomes.duplicate += 1;
            } else {
                self.outcomes.late += 1;
                if !is_broken(Mutant::LateDropped) {
                    self.send(out_records::late(self.terms.shard, record.offset, horizon.watermark_ms, click));
                }
            }
            return;
        }
        let is_new = self.seen.insert(place, minute, &horizon) || is_broken(Mutant::Identity);
        if !is_new {
            self.outcomes.duplicate += 1;
            return;
        }
        if click.is_invalid {
            self.outcomes.invalid += 1;
        } else {
            self.outcomes.counted += 1;
        }
        self.aggregators.count(minute, click);
        match self.fresh_ids.iter_mut().rev().find(|(held, _)| *held == minute) {
            Some((_, places)) => places.push(place),
            None => self.fresh_ids.push((minute, vec![place])),
        }
    }

    #[inline]
    fn horizon(&self) -> Horizon {
        Horizon { rules: self.terms.event_time, watermark_ms: self.watermark.get() }
    }

    /// Handles the rare clicks that need every field: decodes the record again, with owned values.
    fn detour(&mut self, record: LogRecord<'_>, detours: Vec<(usize, Detour)>) {
        let owned = match decode_record_owned(record.value) {
            Ok(clicks) => clicks,
            Err(malformed) => {
                self.outcomes.quarantined += detours.len() as u64;
                self.quarantine(record.offset, malformed.to_string(), record.value);
                return;
            }
        };
        let mut elsewhere: BTreeMap<ShardId, Vec<Click>> = BTreeMap::new();
        for (index, detour) in detours {
            let click = &owned[index];
            match detour {
                Detour::Misrouted(own) => {
                    elsewhere.entry(own).or_default().push(click.clone());
                }
                Detour::Quarantined(reason) => {
                    self.outcomes.quarantined += 1;
                    self.quarantine(record.offset, reason.to_owned(), &prost::Message::encode_to_vec(click));
                }
            }
        }
        for (own, clicks) in elsewhere {
            let (records, too_large) = out_records::rerouted(own, &clicks);
            self.outcomes.misrouted += (clicks.len() - too_large.len()) as u64;
            self.outcomes.quarantined += too_large.len() as u64;
            records.into_iter().for_each(|record| self.send(record));
            for click in too_large {
                let reason = "belongs to another shard, and is too large to be sent there".to_owned();
                self.quarantine(record.offset, reason, &prost::Message::encode_to_vec(click));
            }
        }
    }

    fn quarantine(&mut self, offset: u64, reason: String, record: &[u8]) {
        self.send(out_records::quarantined(self.terms.shard, offset, reason, record));
    }

    fn send(&mut self, record: OutRecord) {
        self.out_bytes += record.key.len() + record.value.len();
        self.out_records.push(record);
    }

    /// Takes the log's answer to the question for its end. `asked_at_ms` is the log's time *before* the question,
    /// because the answer does not cover later arrivals.
    pub fn note_end(&mut self, asked_at_ms: UnixMillis, end: u64) {
        // If the end is *before* our position, the log has lost records. Such an end proves nothing, and the reader
        // halts the shard.
        let is_read = self.position == end || (self.position > end && is_broken(Mutant::LostTailProves));
        if is_read || is_broken(Mutant::WatermarkByTimer) {
            self.prove_empty(asked_at_ms);
        }
    }

    /// Records that everything that arrived before `proven_at_ms` has been read. The log's end, asked for after that
    /// moment, was not beyond [`ShardState::position`].
    pub fn prove_empty(&mut self, proven_at_ms: UnixMillis) {
        self.watermark.prove_empty(proven_at_ms);
        self.complete_to_ms = self.complete_to_ms.max(proven_at_ms);
    }

    /// Takes everything since the last cut; returns `None` if there is no news. The caller must commit each cut before
    /// it proposes the next.
    pub fn cut(&mut self) -> Option<Cut> {
        let news = (self.watermark.get(), self.complete_to_ms);
        if self.position == self.from && news == self.last_cut {
            return None;
        }
        let outcomes = std::mem::take(&mut self.outcomes);
        assert!(outcomes.is_conserved(), "outcomes must add up to the clicks read: {outcomes:?}");
        let cells = self.aggregators.take_cells();
        assert_eq!(cells.iter().map(WindowCells::all_clicks).sum::<u64>(), outcomes.counted + outcomes.invalid);
        let horizon = self.horizon();
        let seen = std::mem::take(&mut self.fresh_ids)
            .into_iter()
            // Replicas would drop these ids with this very entry.
            .filter(|(minute, _)| !horizon.rules.is_final(*minute, horizon.watermark_ms))
            .map(|(minute, mut places)| SeenBlock::pack(minute, &mut places))
            .collect();
        self.seen.sweep(&horizon);
        let partials = cells.iter().map(|window| window.len() as u64).sum();
        let checkpoint = Checkpoint {
            shard: self.terms.shard,
            epoch: self.terms.epoch,
            from: self.from,
            to: self.position,
            watermark_ms: horizon.watermark_ms,
            complete_to_ms: self.complete_to_ms,
            outcomes,
            cells: CellBlock::pack_windows(&cells),
            seen,
        };
        self.from = self.position;
        self.last_cut = news;
        self.out_bytes = 0;
        let oldest_arrival_ms = self.oldest_arrival_ms.take();
        Some(Cut { checkpoint, partials, oldest_arrival_ms, out_records: std::mem::take(&mut self.out_records) })
    }
}

#[cfg(test)]
mod tests {
    use clicktally_proto::click::encode::encode_record;
    use clicktally_proto::click::record::RECORD_BYTES_MAX;
    use clicktally_proto::event_time::WINDOW_MS;
    use clicktally_proto::identity::ids::ClickId;

    use super::*;

    fn terms() -> ShardTerms {
        ShardTerms {
            shard: ShardId(3),
            epoch: Epoch(1),
            partitioner: Partitioner::new(1),
            event_time: EventTimeRules::default(),
        }
    }

    #[test]
    fn clicks_dated_ahead_do_not_move_the_watermark_beyond_their_arrival() {
        let terms = terms();
        let mut state = ShardState::restore(terms, &ShardEntry::default(), &[]).unwrap();
        let arrival_ms = 100 * WINDOW_MS;
        let mut take = |event_time_ms: u64| {
            let is_own = |id: &u64| terms.partitioner.shard(7, ClickId(*id)) == terms.shard;
            let click_id = (event_time_ms..).find(is_own).unwrap();
            let click = Click { click_id, campaign_id: 7, ad_id: 1, event_time_ms, ..Click::default() };
            let (offset, value) = (state.position(), encode_record(&[click]));
            state.take(LogRecord { offset, arrival_ms, value: &value });
            state.watermark_ms()
        };
        let EventTimeRules { out_of_orderness_ms, allowed_lateness_ms, max_ahead_ms, .. } = terms.event_time;
        assert_eq!(take(arrival_ms + max_ahead_ms), arrival_ms - out_of_orderness_ms);
        assert_eq!(take(arrival_ms), arrival_ms - out_of_orderness_ms);
        // If the first click had moved the watermark, this one would be late.
        take(arrival_ms - allowed_lateness_ms);
        assert_eq!((state.outcomes().counted, state.outcomes().late), (3, 0));
    }

    /// Each of these once stopped its shard for good, because the log does not take a copy of it.
    #[test]
    fn no_record_is_too_large_to_be_set_aside_or_sent_on() {
        let terms = terms();
        let stray = |from: u64| {
            (from..).find(|id| terms.partitioner.shard(7, ClickId(*id)) != terms.shard).expect("ids of other shards")
        };
        let click = |n: u64, user_bytes: usize| {
            let user_id = "u".repeat(user_bytes);
            Click {
                click_id: stray(n * 1_000),
                campaign_id: 7,
                ad_id: 1,
                event_time_ms: 1,
                user_id,
                ..Click::default()
            }
        };
        let giant_text = format!("{{\"click_id\":1,\"campaign_id\":\"{}\"}}", "x".repeat(2_200_000));
        let cases: [(&str, Vec<u8>, u64, u64); 5] = [
            ("a giant JSON text", giant_text.into_bytes(), 0, 1),
            ("garbage above the producer's limit", vec![0xff; 5 << 20], 0, 1),
            ("a record above every limit", vec![0xff; RECORD_BYTES_MAX + 1], 0, 1),
            ("foreign clicks, packed", encode_record(&(1..=8).map(|n| click(n, 900_000)).collect::<Vec<_>>()), 8, 0),
            ("a giant foreign click", encode_record(&[click(1, 10), click(2, 5 << 20)]), 1, 1),
        ];
        for (case, value, misrouted, quarantined) in cases {
            let mut state = ShardState::restore(terms, &ShardEntry::default(), &[]).unwrap();
            state.take(LogRecord { offset: 0, arrival_ms: 1, value: &value });
            let outcomes = *state.outcomes();
            assert_eq!((outcomes.misrouted, outcomes.quarantined), (misrouted, quarantined), "{case}");
            let cut = state.cut().unwrap();
            assert!(!cut.out_records.is_empty() && cut.checkpoint.to == 1, "{case}");
            assert!(cut.out_records.iter().all(|out| out.value.len() <= 1 << 20), "{case}");
        }
    }

    /// A transaction ends with a marker, which no reader hands over.
    #[test]
    fn a_marker_at_the_end_of_a_partition_is_read_and_committed() {
        let terms = terms();
        let entry = ShardEntry { committed_offset: 10, ..ShardEntry::default() };
        let mut state = ShardState::restore(terms, &entry, &[]).unwrap();
        state.take(LogRecord { offset: 12, arrival_ms: 1, value: b"garbage" });
        state.pass_to(14);
        state.note_end(1_000_000, 14);
        assert_eq!(state.watermark_ms(), 1_000_000 - terms.event_time.out_of_orderness_ms);
        let range = |state: &mut ShardState| state.cut().map(|cut| (cut.checkpoint.from, cut.checkpoint.to));
        assert_eq!(range(&mut state), Some((10, 14)));
        // A partition may hold markers and aborted records only.
        state.pass_to(15);
        assert_eq!(range(&mut state), Some((14, 15)));
        assert_eq!(range(&mut state), None);
    }

    #[test]
    fn only_an_end_at_the_position_proves_a_shard_empty() {
        let terms = terms();
        let entry = ShardEntry { committed_offset: 10, ..ShardEntry::default() };
        let watermark_ms = |end: u64| {
            let mut state = ShardState::restore(terms, &entry, &[]).unwrap();
            state.note_end(1_000_000, end);
            state.watermark_ms()
        };
        assert_eq!(watermark_ms(10), 1_000_000 - terms.event_time.out_of_orderness_ms);
        assert_eq!(watermark_ms(11), 0, "there is more to read");
        assert_eq!(watermark_ms(9), 0, "the log has lost records");
    }
}
