//! Ids that producers chose: 59 bits of hash. The position in the table encodes some bits, six bytes encode the rest.
//!
//! Each of the [`TABLES`] tables has a power of two of buckets, with some fifty ids in each. Each table doubles on its
//! own, so that growing moves only a part of the ids at once. A bucket is a run of entries: the six bytes that the
//! position does not encode, and the minute of event time, modulo 256. A search scans a few cache lines.

use std::hash::BuildHasher;

use clicktally_proto::event_time::{Minute, WINDOW_MS};

use super::{Horizon, LIVE_SPAN_MAX_MS};

pub(super) const TABLES: usize = 64;
const TABLE_BITS: u32 = TABLES.ilog2();
const HASH_BITS: u32 = 59;
/// The bits that one table distinguishes by position and remainder.
const KEY_BITS: u32 = HASH_BITS - TABLE_BITS;
/// The bits of a key that an entry holds. The bucket's number holds the others, so there are never fewer buckets.
const REST_BITS: u32 = 48;
const BUCKET_BITS_MIN: u32 = KEY_BITS - REST_BITS;
const ENTRY_BYTES: usize = 7;
/// A table doubles when its buckets hold more than this on average.
const MEAN_ENTRIES_MAX: usize = 64;
/// A full bucket grows by this many entries: rarely enough to be cheap, by few enough to waste little.
const ENTRIES_PER_GROWTH: usize = 4;

/// How many minutes a tag distinguishes: more than can be live at once.
const TAGS: u32 = 256;
const _: () = assert!(LIVE_SPAN_MAX_MS / WINDOW_MS + 2 < TAGS as u64);

#[derive(Debug)]
pub(super) struct ForeignIds {
    tables: Vec<Table>,
    /// The key is random, so that a producer cannot choose ids that collide in one bucket.
    key: [u64; 2],
    next_sweep: usize,
}

#[derive(Debug)]
struct Table {
    /// At least [`BUCKET_BITS_MIN`]. The buckets are allocated with the first id.
    bucket_bits: u32,
    buckets: Vec<Vec<u8>>,
    len: usize,
}

impl Default for ForeignIds {
    fn default() -> ForeignIds {
        let random = foldhash::fast::RandomState::default();
        let tables = (0..TABLES).map(|_| Table { bucket_bits: BUCKET_BITS_MIN, buckets: Vec::new(), len: 0 });
        ForeignIds { tables: tables.collect(), key: [random.hash_one(1_u8), random.hash_one(2_u8)], next_sweep: 0 }
    }
}

impl ForeignIds {
    /// A keyed bijection of 59 bits, so that no two hashes collide: multiplications by odd numbers and shifted
    /// exclusive ors.
    #[inline]
    fn scramble(&self, hash: u64) -> (usize, u64) {
        const MASK: u64 = (1 << HASH_BITS) - 1;
        let mut value = hash & MASK;
        for key in self.key {
            value = value.wrapping_mul(key | 1) & MASK;
            value ^= value >> (HASH_BITS / 2);
        }
        ((value >> KEY_BITS) as usize, value & ((1 << KEY_BITS) - 1))
    }

    #[inline]
    pub(super) fn insert(&mut self, hash: u64, minute: Minute, horizon: &Horizon) -> bool {
        let (table, key) = self.scramble(hash);
        self.tables[table].insert(key, minute, horizon)
    }

    pub(super) fn contains(&self, hash: u64, horizon: &Horizon) -> bool {
        let (table, key) = self.scramble(hash);
        let table = &self.tables[table];
        let Some(bucket) = table.buckets.get(table.bucket_of(key)) else { return false };
        find(bucket, key).is_some_and(|at| !horizon.is_forgotten(minute_of(bucket[at + ENTRY_BYTES - 1], horizon)))
    }

    /// Sweeps one table per call.
    pub(super) fn sweep(&mut self, horizon: &Horizon) {
        self.tables[self.next_sweep].sweep(horizon);
        self.next_sweep = (self.next_sweep + 1) % TABLES;
    }

    pub(super) fn len(&self) -> u64 {
        self.tables.iter().map(|table| table.len as u64).sum()
    }

    pub(super) fn bytes(&self) -> usize {
        let of_table = |table: &Table| {
            let entries: usize = table.buckets.iter().map(Vec::capacity).sum();
            entries + table.buckets.capacity() * size_of::<Vec<u8>>()
        };
        self.tables.iter().map(of_table).sum()
    }
}

impl Table {
    #[inline]
    fn bucket_of(&self, key: u64) -> usize {
        (key >> (KEY_BITS - self.bucket_bits)) as usize
    }

    fn insert(&mut self, key: u64, minute: Minute, horizon: &Horizon) -> bool {
        if self.buckets.is_empty() {
            self.buckets.resize(1 << self.bucket_bits, Vec::new());
        }
        let bucket_of = self.bucket_of(key);
        let bucket = &mut self.buckets[bucket_of];
        let tag = (minute.0 % TAGS) as u8;
        if let Some(at) = find(bucket, key) {
            let held = &mut bucket[at + ENTRY_BYTES - 1];
            let is_forgotten = horizon.is_forgotten(minute_of(*held, horizon));
            if is_forgotten {
                *held = tag;
            }
            return is_forgotten;
        }
        if bucket.len() == bucket.capacity() {
            bucket.reserve_exact(ENTRIES_PER_GROWTH * ENTRY_BYTES);
        }
        bucket.extend_from_slice(&entry(key, tag));
        self.len += 1;
        if self.len > MEAN_ENTRIES_MAX << self.bucket_bits {
            self.resize(self.bucket_bits + 1);
        }
        true
    }

    /// Each entry holds the low [`REST_BITS`] of its key, and its bucket's number the high ones. Bits that both hold
    /// are equal.
    fn resize(&mut self, bucket_bits: u32) {
        let old_bits = std::mem::replace(&mut self.bucket_bits, bucket_bits);
        let old = std::mem::replace(&mut self.buckets, vec![Vec::new(); 1 << bucket_bits]);
        for (number, entries) in (0_u64..).zip(old) {
            let high = number >> (old_bits - BUCKET_BITS_MIN) << REST_BITS;
            for entry in entries.chunks_exact(ENTRY_BYTES) {
                let bucket = self.bucket_of(high | rest_of(entry));
                let bucket = &mut self.buckets[bucket];
                if bucket.len() == bucket.capacity() {
                    bucket.reserve_exact(ENTRIES_PER_GROWTH * ENTRY_BYTES);
                }
                bucket.extend_from_slice(entry);
            }
        }
    }

    fn sweep(&mut self, horizon: &Horizon) {
        for bucket in &mut self.buckets {
            let mut kept = 0;
            for at in (0..bucket.len()).step_by(ENTRY_BYTES) {
                if !horizon.is_forgotten(minute_of(bucket[at + ENTRY_BYTES - 1], horizon)) {
                    bucket.copy_within(at..at + ENTRY_BYTES, kept);
                    kept += ENTRY_BYTES;
                }
            }
            self.len -= (bucket.len() - kept) / ENTRY_BYTES;
            bucket.truncate(kept);
            if bucket.capacity() > 2 * kept + ENTRIES_PER_GROWTH * ENTRY_BYTES {
                bucket.shrink_to_fit();
            }
        }
        let mut bucket_bits = self.bucket_bits;
        while bucket_bits > BUCKET_BITS_MIN && self.len * 4 < MEAN_ENTRIES_MAX << bucket_bits {
            bucket_bits -= 1;
        }
        if self.len == 0 {
            *self = Table { bucket_bits: BUCKET_BITS_MIN, buckets: Vec::new(), len: 0 };
        } else if bucket_bits < self.bucket_bits {
            self.resize(bucket_bits);
        }
    }
}

#[inline]
fn entry(key: u64, tag: u8) -> [u8; ENTRY_BYTES] {
    let rest = key.to_le_bytes();
    [rest[0], rest[1], rest[2], rest[3], rest[4], rest[5], tag]
}

fn rest_of(entry: &[u8]) -> u64 {
    u64::from_le_bytes([entry[0], entry[1], entry[2], entry[3], entry[4], entry[5], 0, 0])
}

/// Returns the position of the key's entry in the bucket.
#[inline]
fn find(bucket: &[u8], key: u64) -> Option<usize> {
    let wanted = entry(key, 0);
    let is_wanted = |held: &[u8]| held[..4] == wanted[..4] && held[4..6] == wanted[4..6];
    bucket.chunks_exact(ENTRY_BYTES).position(is_wanted).map(|index| index * ENTRY_BYTES)
}

/// Returns the newest minute with this tag that a click can have under the present watermark. Entries older than
/// [`TAGS`] minutes were swept long ago.
#[inline]
fn minute_of(tag: u8, horizon: &Horizon) -> Minute {
    let newest = horizon.newest_minute();
    let behind = (newest.0 % TAGS + TAGS - u32::from(tag)) % TAGS;
    Minute(newest.0.saturating_sub(behind))
}
