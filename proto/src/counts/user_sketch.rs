//! Counts distinct users approximately: a HyperLogLog (Flajolet, Fusy, Gandouet, Meunier, 2007) of 4,096 four-bit
//! registers.
//!
//! A sketch holds the highest rank seen in each register. Merging takes the higher rank of each register. It is
//! associative, commutative and idempotent, so neither the order of checkpoints nor a repeat matters. A sketch has only
//! integers. The estimate needs fractions, so only readers compute it, and it is never part of replicated state.
//!
//! Each value has one encoding, whatever it was merged from, so that replicas stay byte-identical (CT-3):
//!
//! * up to [`MARKS_MAX`] registers in use: their marks, sorted, two bytes each, little-endian;
//! * more: all registers, two to a byte, the even one in the low half: [`DENSE_BYTES`].
//!
//! The length distinguishes the two. Without users it is empty.

use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::counts::user_estimate::estimate;
use crate::counts::user_mark::{RANK_BITS, RANK_MAX, REGISTERS, UserMark};

pub const DENSE_BYTES: usize = REGISTERS / 2;
/// The most marks that take fewer bytes than all registers.
pub const MARKS_MAX: usize = DENSE_BYTES / MARK_BYTES - 1;
const MARK_BYTES: usize = 2;
/// The most marks that fit into the sketch itself. Most cells have no more users, and so need no allocation.
const FEW_MAX: usize = 7;
/// Up to this many marks are merged one by one. More are merged in one pass over both sides.
const ONE_BY_ONE_MAX: usize = 16;

const RANK_MASK: u16 = (1 << RANK_BITS) - 1;

/// The distinct users of a cell, an hour or a campaign.
#[derive(Clone, PartialEq, Eq)]
pub struct UserSketch(Form);

/// The number of registers in use determines the form, so equal values are equal in memory too. Copies share the memory
/// behind a pointer until one of them changes.
#[derive(Clone, PartialEq, Eq)]
enum Form {
    /// Sorted, then zeros.
    Few {
        length: u8,
        marks: [u16; FEW_MAX],
    },
    /// Sorted.
    Some(Arc<Vec<u16>>),
    Many(Arc<[u8; DENSE_BYTES]>),
}

/// A cell of a window holds one of these.
const _: () = assert!(size_of::<UserSketch>() == 16);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0} bytes are not the encoding of a user sketch")]
pub struct DamagedSketch(pub usize);

impl Default for UserSketch {
    fn default() -> UserSketch {
        UserSketch::EMPTY
    }
}

impl UserSketch {
    /// No users.
    pub const EMPTY: UserSketch = UserSketch(Form::Few { length: 0, marks: [0; FEW_MAX] });

    pub fn is_empty(&self) -> bool {
        matches!(self.0, Form::Few { length: 0, .. })
    }

    /// The number of registers in use. There are at least as many users.
    pub fn marks(&self) -> usize {
        match &self.0 {
            Form::Many(registers) => registers.iter().map(|pair| in_use(*pair)).sum(),
            _ => self.sorted_marks().len(),
        }
    }

    /// What the value needs beside its own 16 bytes: the same for equal sketches, regardless of their history. The
    /// memory allocated may be up to twice that, while it is below [`DENSE_BYTES`].
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Form::Few { .. } => 0,
            Form::Some(marks) => marks.len() * MARK_BYTES,
            Form::Many(_) => DENSE_BYTES,
        }
    }

    /// An upper bound of [`UserSketch::heap_bytes`] that merging keeps: a merged sketch never needs more than the
    /// bounds of both parts together.
    pub fn merged_bytes_max(&self) -> usize {
        if self.is_empty() {
            return 0;
        }
        // Marks held in the other sketch itself move to the heap once one does not fit.
        ((self.marks() + FEW_MAX) * MARK_BYTES).min(DENSE_BYTES)
    }

    /// Distinct users, by Ertl's estimator. The standard error is 1.04 / √4096 = 1.6 % up to 130 million users. Above
    /// that, the estimate is too low.
    pub fn estimate(&self) -> u64 {
        let mut of_rank = [0_u32; RANK_MAX as usize + 1];
        if let Form::Many(registers) = &self.0 {
            for pair in registers.iter() {
                of_rank[usize::from(pair & 0xf)] += 1;
                of_rank[usize::from(pair >> RANK_BITS)] += 1;
            }
        } else {
            for mark in self.sorted_marks() {
                of_rank[usize::from(mark & RANK_MASK)] += 1;
            }
            of_rank[0] = (REGISTERS - self.sorted_marks().len()) as u32;
        }
        estimate(&of_rank)
    }

    #[inline]
    pub fn insert(&mut self, mark: UserMark) {
        self.raise(mark.bits());
    }

    pub fn merge(&mut self, other: &UserSketch) {
        if self.is_empty() {
            self.0 = other.0.clone();
            return;
        }
        match (&mut self.0, &other.0) {
            (Form::Many(ours), Form::Many(theirs)) => {
                for (ours, theirs) in Arc::make_mut(ours).iter_mut().zip(theirs.iter()) {
                    *ours = (*ours & 0x0f).max(theirs & 0x0f) | (*ours & 0xf0).max(theirs & 0xf0);
                }
            }
            (_, Form::Many(_)) => {
                let ours = std::mem::replace(self, other.clone());
                ours.sorted_marks().iter().for_each(|mark| self.raise(*mark));
            }
            (Form::Some(ours), _) if other.sorted_marks().len() > ONE_BY_ONE_MAX => {
                *self = UserSketch::of_sorted(union(ours, other.sorted_marks()));
            }
            _ => other.sorted_marks().iter().for_each(|mark| self.raise(*mark)),
        }
    }

    fn raise(&mut self, mark: u16) {
        match &mut self.0 {
            Form::Few { length, marks } => {
                let held = usize::from(*length);
                match place(&marks[..held], mark) {
                    Ok(at) => marks[at] = marks[at].max(mark),
                    Err(at) if held < FEW_MAX => {
                        marks.copy_within(at..held, at + 1);
                        marks[at] = mark;
                        *length += 1;
                    }
                    Err(at) => {
                        let mut grown = Vec::with_capacity(2 * FEW_MAX);
                        grown.extend_from_slice(marks);
                        grown.insert(at, mark);
                        self.0 = Form::Some(Arc::new(grown));
                    }
                }
            }
            Form::Some(held) => match place(held, mark) {
                Ok(at) if held[at] >= mark => {}
                Ok(at) => Arc::make_mut(held)[at] = mark,
                Err(at) if held.len() < MARKS_MAX => Arc::make_mut(held).insert(at, mark),
                Err(_) => {
                    let mut registers = dense(held);
                    raise_register(&mut registers, mark);
                    self.0 = Form::Many(Arc::new(registers));
                }
            },
            Form::Many(registers) => {
                if register(registers, mark) < mark & RANK_MASK {
                    raise_register(Arc::make_mut(registers), mark);
                }
            }
        }
    }

    /// Empty for the form with all registers.
    fn sorted_marks(&self) -> &[u16] {
        match &self.0 {
            Form::Few { length, marks } => &marks[..usize::from(*length)],
            Form::Some(marks) => marks,
            Form::Many(_) => &[],
        }
    }

    /// `marks`: more than [`FEW_MAX`], sorted, each register at most once.
    fn of_sorted(marks: Vec<u16>) -> UserSketch {
        assert!(marks.len() > FEW_MAX, "fewer marks belong into the sketch itself");
        UserSketch(if marks.len() <= MARKS_MAX {
            Form::Some(Arc::new(marks))
        } else {
            Form::Many(Arc::new(dense(&marks)))
        })
    }

    /// Bytes of the encoding of a sketch with this many marks.
    pub(crate) fn bytes_of(marks: usize) -> usize {
        if marks <= MARKS_MAX { marks * MARK_BYTES } else { DENSE_BYTES }
    }

    /// Appends the encoding.
    pub fn write_to(&self, bytes: &mut Vec<u8>) {
        match &self.0 {
            Form::Many(registers) => bytes.extend_from_slice(registers.as_slice()),
            _ => self.sorted_marks().iter().for_each(|mark| bytes.extend_from_slice(&mark.to_le_bytes())),
        }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_to(&mut bytes);
        bytes
    }

    /// Accepts only what [`UserSketch::to_bytes`] writes, so that no value has two encodings.
    pub fn from_bytes(bytes: &[u8]) -> Result<UserSketch, DamagedSketch> {
        let damaged = Err(DamagedSketch(bytes.len()));
        if let Ok(registers) = <&[u8; DENSE_BYTES]>::try_from(bytes) {
            let sketch = UserSketch(Form::Many(Arc::new(*registers)));
            return if sketch.marks() > MARKS_MAX { Ok(sketch) } else { damaged };
        }
        let (marks, rest) = bytes.as_chunks::<MARK_BYTES>();
        if !rest.is_empty() || marks.len() > MARKS_MAX {
            return damaged;
        }
        let marks = marks.iter().map(|mark| u16::from_le_bytes(*mark));
        // One more than the register before, 0 at the start.
        let mut register_min = 0;
        for mark in marks.clone() {
            let (register, rank) = (mark >> RANK_BITS, mark & RANK_MASK);
            if register < register_min || rank == 0 {
                return damaged;
            }
            register_min = register + 1;
        }
        if marks.len() > FEW_MAX {
            return Ok(UserSketch(Form::Some(Arc::new(marks.collect()))));
        }
        let mut few = [0; FEW_MAX];
        few.iter_mut().zip(marks.clone()).for_each(|(held, mark)| *held = mark);
        Ok(UserSketch(Form::Few { length: marks.len() as u8, marks: few }))
    }
}

/// The index of the register of `mark`, or where it would be inserted.
#[inline]
fn place(held: &[u16], mark: u16) -> Result<usize, usize> {
    held.binary_search_by_key(&(mark >> RANK_BITS), |held| held >> RANK_BITS)
}

fn union(left: &[u16], right: &[u16]) -> Vec<u16> {
    let mut both = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.iter().copied().peekable(), right.iter().copied().peekable());
    while let (Some(&a), Some(&b)) = (left.peek(), right.peek()) {
        both.push(match (a >> RANK_BITS).cmp(&(b >> RANK_BITS)) {
            std::cmp::Ordering::Less => left.next().unwrap_or(a),
            std::cmp::Ordering::Greater => right.next().unwrap_or(b),
            std::cmp::Ordering::Equal => left.next().max(right.next()).unwrap_or(a),
        });
    }
    both.extend(left.chain(right));
    both
}

fn dense(marks: &[u16]) -> [u8; DENSE_BYTES] {
    let mut registers = [0; DENSE_BYTES];
    marks.iter().for_each(|mark| raise_register(&mut registers, *mark));
    registers
}

/// The rank held in the register of `mark`.
fn register(registers: &[u8; DENSE_BYTES], mark: u16) -> u16 {
    let (at, shift) = nibble(mark);
    u16::from(registers[at] >> shift) & RANK_MASK
}

fn raise_register(registers: &mut [u8; DENSE_BYTES], mark: u16) {
    let rank = register(registers, mark).max(mark & RANK_MASK) as u8;
    let (at, shift) = nibble(mark);
    registers[at] = registers[at] & !(0xf << shift) | rank << shift;
}

fn nibble(mark: u16) -> (usize, u32) {
    let register = usize::from(mark >> RANK_BITS);
    (register / 2, if register.is_multiple_of(2) { 0 } else { RANK_BITS })
}

fn in_use(pair: u8) -> usize {
    usize::from(pair & 0x0f != 0) + usize::from(pair & 0xf0 != 0)
}

impl std::fmt::Debug for UserSketch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UserSketch({} marks)", self.marks())
    }
}

impl Serialize for UserSketch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.to_bytes())
    }
}

impl<'de> Deserialize<'de> for UserSketch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<UserSketch, D::Error> {
        let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?;
        UserSketch::from_bytes(&bytes).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mark(user: u64) -> UserMark {
        UserMark::of(&user.to_le_bytes()).unwrap()
    }

    fn sketch_of(users: impl IntoIterator<Item = u64>) -> UserSketch {
        let mut sketch = UserSketch::default();
        users.into_iter().for_each(|user| sketch.insert(mark(user)));
        sketch
    }

    fn merged(mut left: UserSketch, right: &UserSketch) -> UserSketch {
        left.merge(right);
        left
    }

    /// Sets of every form: few, some and many users, some of them overlapping.
    fn users() -> impl Strategy<Value = std::ops::Range<u64>> {
        let length = prop_oneof![0_u64..12, 0_u64..100, 900_u64..1_600, 1_500_u64..20_000];
        (0_u64..2_000, length).prop_map(|(from, length)| from..from + length)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn merging_is_associative_commutative_idempotent_and_equals_one_pass(a in users(), b in users(), c in users()) {
            let [of_a, of_b, of_c] = [&a, &b, &c].map(|users| sketch_of(users.clone()));
            let all = sketch_of(a.chain(b).chain(c));
            prop_assert_eq!(&merged(merged(of_a.clone(), &of_b), &of_c), &all);
            prop_assert_eq!(&merged(of_a.clone(), &merged(of_b.clone(), &of_c)), &all);
            prop_assert_eq!(merged(of_a.clone(), &of_b), merged(of_b.clone(), &of_a));
            prop_assert_eq!(merged(all.clone(), &of_b), all.clone());
            prop_assert_eq!(merged(UserSketch::default(), &all).to_bytes(), merged(all.clone(), &UserSketch::default()).to_bytes());
        }

        #[test]
        fn each_sketch_has_exactly_one_encoding(users in users()) {
            let sketch = sketch_of(users);
            let bytes = sketch.to_bytes();
            prop_assert_eq!(bytes.len(), UserSketch::bytes_of(sketch.marks()));
            prop_assert!(bytes.len() <= DENSE_BYTES);
            prop_assert_eq!(UserSketch::from_bytes(&bytes), Ok(sketch));
        }

        #[test]
        fn damage_is_an_error_or_another_sketch_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(sketch) = UserSketch::from_bytes(&bytes) {
                prop_assert_eq!(sketch.to_bytes(), bytes);
            }
        }

        #[test]
        fn order_of_arrival_does_not_matter(mut users in proptest::collection::vec(0_u64..3_000, 0..2_500), seed in any::<u64>()) {
            let straight = sketch_of(users.iter().copied());
            users.sort_by_key(|user| (user ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            prop_assert_eq!(sketch_of(users), straight);
        }
    }

    #[test]
    fn other_encodings_of_a_value_are_refused() {
        let mut few = [0_u8; DENSE_BYTES];
        few[3] = 1;
        assert!(UserSketch::from_bytes(&few).is_err(), "a dense form of one mark");
        assert!(UserSketch::from_bytes(&[0x11, 0, 0x12, 0]).is_err(), "one register twice");
        assert!(UserSketch::from_bytes(&[0x21, 0, 0x11, 0]).is_err(), "registers out of order");
        assert!(UserSketch::from_bytes(&[0x10, 0]).is_err(), "a rank of zero");
        assert!(UserSketch::from_bytes(&[0x11]).is_err(), "half a mark");
        assert!(UserSketch::from_bytes(&vec![0x11; DENSE_BYTES + 2]).is_err(), "longer than any sketch");
    }

    #[test]
    fn copies_share_what_they_hold_until_one_changes() {
        let original = sketch_of(0..500);
        let mut copy = original.clone();
        copy.merge(&sketch_of(0..10));
        let (Form::Some(ours), Form::Some(theirs)) = (&original.0, &copy.0) else {
            panic!("both have the sorted form")
        };
        assert!(Arc::ptr_eq(ours, theirs), "the merge brought no new user");
        copy.merge(&sketch_of(5_000..5_003));
        assert_eq!(original, sketch_of(0..500));
        assert_ne!(copy, original);
    }
}
