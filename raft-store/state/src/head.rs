//! The head of a snapshot: everything small in a state, as fields with tags.
//!
//! A part of the state puts each of its fields under a tag of its own and takes it back by the same tag. So a field
//! can be added without a reader for each older layout: an older snapshot lacks the tag, and the reader uses the value
//! that the field had before it existed.
//!
//! **To add a field of the state**: append a tag here with the format that introduces it, declare a [`Field`] in the
//! part, and name it in the part's `put` and `take`; both do not compile without it. To change the type of a field,
//! add a field with a new tag, and keep reading the old one. Never reuse a tag.

use std::collections::BTreeMap;

use clicktally_proto::codec::{self, CodecError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub(crate) enum Tag {
    Group = 1,
    Settings = 2,
    Nodes = 3,
    Draining = 4,
    Levels = 5,
    Workers = 6,
    Shards = 7,
    WatermarkMs = 8,
    NewestRevision = 9,
    PublishedRevision = 10,
    ExportedTerms = 11,
    ReplacedTerms = 12,
    LogId = 13,
}

impl Tag {
    /// The first format of snapshots that has this field.
    pub(crate) fn since(self) -> u16 {
        match self {
            Tag::Group
            | Tag::Settings
            | Tag::Nodes
            | Tag::Draining
            | Tag::Levels
            | Tag::Workers
            | Tag::Shards
            | Tag::WatermarkMs
            | Tag::NewestRevision
            | Tag::PublishedRevision => 3,
            Tag::ExportedTerms | Tag::ReplacedTerms | Tag::LogId => 4,
        }
    }
}

/// One field of one part of the state.
pub(crate) struct Field<T> {
    pub(crate) tag: Tag,
    /// The value of the field in a state that was written before the field existed.
    pub(crate) before: fn() -> T,
}

#[derive(Debug, Error)]
pub(crate) enum HeadError {
    #[error("its head has no field {0:?}")]
    Missing(Tag),
    #[error("its head has fields that this format does not have: {0:?}")]
    Unknown(Vec<u16>),
    #[error("field {tag:?} of its head: {error}")]
    Codec { tag: Tag, error: CodecError },
}

/// Fields by tag, each as one frame of the codec.
pub(crate) type Frames = BTreeMap<u16, Vec<u8>>;

/// Collects the fields of a state.
#[derive(Debug)]
pub(crate) struct HeadWriter {
    format: u16,
    fields: BTreeMap<Tag, Vec<u8>>,
}

impl HeadWriter {
    /// The head will be written in `format`, or in a later one if only that has every value of the state. That happens
    /// if a member is set back to an older build after newer commands were applied. Writing less than the state holds
    /// would lose data.
    pub(crate) fn new(format: u16) -> HeadWriter {
        HeadWriter { format, fields: BTreeMap::new() }
    }

    pub(crate) fn put<T: Serialize + PartialEq>(&mut self, field: &Field<T>, value: &T) -> Result<(), HeadError> {
        let Field { tag, before } = field;
        if *value != before() {
            self.format = self.format.max(tag.since());
        }
        let frame = codec::encode(value).map_err(|error| HeadError::Codec { tag: *tag, error })?;
        let replaced = self.fields.insert(*tag, frame);
        assert!(replaced.is_none(), "two fields of the state have the tag {tag:?}");
        Ok(())
    }

    /// The format, and the fields that it has.
    pub(crate) fn finish(self) -> (u16, Frames) {
        let is_in = |tag: &Tag| tag.since() <= self.format;
        let fields = self.fields.into_iter().filter(|(tag, _)| is_in(tag)).map(|(tag, frame)| (tag as u16, frame));
        (self.format, fields.collect())
    }
}

/// Gives the fields of a snapshot back.
#[derive(Debug)]
pub(crate) struct HeadReader {
    format: u16,
    fields: Frames,
}

impl HeadReader {
    /// The fields of a snapshot that was written in `format`.
    pub(crate) fn new(format: u16, fields: Frames) -> HeadReader {
        HeadReader { format, fields }
    }

    pub(crate) fn take<T: DeserializeOwned>(&mut self, field: &Field<T>) -> Result<T, HeadError> {
        let Field { tag, before } = field;
        match self.fields.remove(&(*tag as u16)) {
            Some(frame) => codec::decode(&frame).map_err(|error| HeadError::Codec { tag: *tag, error }),
            None if tag.since() > self.format => Ok(before()),
            None => Err(HeadError::Missing(*tag)),
        }
    }

    /// Every field must have been taken: a field that is left over would be lost.
    pub(crate) fn finish(self) -> Result<(), HeadError> {
        let left: Vec<u16> = self.fields.into_keys().collect();
        if left.is_empty() { Ok(()) } else { Err(HeadError::Unknown(left)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELD: Field<u64> = Field { tag: Tag::NewestRevision, before: u64::default };

    fn written(format: u16, value: u64) -> (u16, Frames) {
        let mut head = HeadWriter::new(format);
        head.put(&FIELD, &value).unwrap();
        head.finish()
    }

    #[test]
    fn a_missing_field_has_its_earlier_value_only_in_formats_before_it() {
        let since = FIELD.tag.since();
        let read = |format| HeadReader::new(format, Frames::new()).take(&FIELD);
        assert_eq!(read(since - 1).unwrap(), 0);
        assert!(matches!(read(since), Err(HeadError::Missing(Tag::NewestRevision))));
    }

    #[test]
    fn a_value_that_an_older_format_lacks_raises_the_format_and_the_earlier_value_does_not() {
        let since = FIELD.tag.since();
        let (format, frames) = written(since - 1, 0);
        assert_eq!((format, frames.len()), (since - 1, 0));
        let (format, frames) = written(since - 1, 7);
        assert_eq!((format, frames.len()), (since, 1));
        let (format, frames) = written(since, 0);
        assert_eq!((format, frames.len()), (since, 1), "a format has all its fields");
    }

    #[test]
    fn a_field_that_nothing_takes_is_an_error() {
        let (format, frames) = written(FIELD.tag.since(), 7);
        let left = HeadReader::new(format, frames).finish();
        assert!(matches!(left, Err(HeadError::Unknown(left)) if left == [FIELD.tag as u16]));
    }
}
