//! How far the windows of a group are published.

use crate::check::{BrokenInvariant, require};
use crate::head::{Field, HeadError, HeadReader, HeadWriter, Tag};

const NEWEST_REVISION: Field<u64> = Field { tag: Tag::NewestRevision, before: u64::default };
const PUBLISHED_REVISION: Field<u64> = Field { tag: Tag::PublishedRevision, before: u64::default };

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Publication {
    /// Log index of the newest entry that changed a fired window: the newest revision that exists.
    newest_revision: u64,
    /// The `window_counts` topic holds every revision up to this one.
    published_revision: u64,
}

impl Publication {
    pub(crate) fn newest_revision(&self) -> u64 {
        self.newest_revision
    }

    pub(crate) fn published_revision(&self) -> u64 {
        self.published_revision
    }

    /// The entry at `index` changed a fired window.
    pub(crate) fn revised(&mut self, index: u64) {
        self.newest_revision = index;
    }

    /// Records what a sink has published. Returns whether that is more than was known.
    ///
    /// Two sinks may overlap for a moment after a change of leaders. The topic holds what either of them reports.
    pub(crate) fn published(&mut self, revision: u64) -> bool {
        let reported = revision.min(self.newest_revision);
        let has_moved = reported > self.published_revision;
        if has_moved {
            self.published_revision = reported;
        }
        has_moved
    }

    pub(crate) fn check(&self) -> Result<(), BrokenInvariant> {
        let (newest, published) = (self.newest_revision, self.published_revision);
        let told = || format!("{published} above {newest}");
        require(published <= newest, "only revisions that exist are published", told)
    }

    pub(crate) fn put(&self, head: &mut HeadWriter) -> Result<(), HeadError> {
        let Publication { newest_revision, published_revision } = self;
        head.put(&NEWEST_REVISION, newest_revision)?;
        head.put(&PUBLISHED_REVISION, published_revision)
    }

    pub(crate) fn take(head: &mut HeadReader) -> Result<Publication, HeadError> {
        let (newest_revision, published_revision) = (head.take(&NEWEST_REVISION)?, head.take(&PUBLISHED_REVISION)?);
        Ok(Publication { newest_revision, published_revision })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::assert_breaks;

    #[test]
    fn a_report_beyond_the_newest_revision_counts_up_to_it() {
        let mut publication = Publication::default();
        publication.revised(7);
        assert!(publication.published(9));
        assert_eq!(publication.published_revision(), 7);
        assert!(!publication.published(6), "an older report changes nothing");
        publication.check().unwrap();
    }

    #[test]
    fn each_rule_is_broken_once() {
        let ahead = Publication { newest_revision: 0, published_revision: 1 };
        assert_breaks(ahead.check(), "only revisions that exist are published");
    }
}
