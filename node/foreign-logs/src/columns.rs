//! Which of the log's fields is which of ours.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::combined_row::OWN_FIELDS;
use crate::fields::{FieldValue, Fields};
use crate::skip::SkipReason;

/// Our fields. The last two are for filters only.
pub const FIELDS: [&str; 11] = [
    "timestamp",
    "ad_id",
    "campaign_id",
    "event_id",
    "user_agent",
    "ip_address",
    "country",
    "device_type",
    "user_id",
    "method",
    "status",
];

/// What is wrong with `--columns`, by itself or for the header of a CSV file. Nothing is sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ColumnsFault {
    #[error("--columns: '{0}' is not OURS=THEIRS")]
    NoPair(String),
    #[error("--columns: there is no field '{0}'; the fields are {fields}", fields = FIELDS.join(", "))]
    Unknown(String),
    #[error("--columns: {0} is mapped twice")]
    Twice(&'static str),
    #[error("--columns: an access log has its {0} at a place of its own, and it cannot be mapped")]
    Own(&'static str),
    #[error("--columns maps {ours} to '{theirs}', and the header has no such column; it has {header}")]
    NoColumn { ours: &'static str, theirs: String, header: String },
    #[error(
        "--columns maps {ours} to '{theirs}', and the header has a column '{ours}', too: leave it out by ={ours}, \
         or map it to another field"
    )]
    BothNames { ours: &'static str, theirs: String },
    #[error("the header has two columns '{0}'")]
    TwoColumns(String),
    #[error("the header has no column for {0}: name one by --columns {0}=THEIRS; the header has {1}")]
    NoneFor(&'static str, String),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    theirs: BTreeMap<&'static str, String>,
    left_out: BTreeSet<String>,
}

impl Columns {
    /// Parses `OURS=THEIRS`. Without OURS, the log's field THEIRS is left out.
    pub fn parse<'a>(mappings: impl IntoIterator<Item = &'a str>) -> Result<Columns, ColumnsFault> {
        let mut columns = Columns::default();
        for mapping in mappings {
            let (ours, theirs) = mapping
                .split_once('=')
                .map(|(ours, theirs)| (ours.trim(), theirs.trim()))
                .filter(|(_, theirs)| !theirs.is_empty())
                .ok_or_else(|| ColumnsFault::NoPair(mapping.to_owned()))?;
            if ours.is_empty() {
                columns.left_out.insert(theirs.to_owned());
                continue;
            }
            let ours = FIELDS.into_iter().find(|field| *field == ours);
            let ours = ours.ok_or_else(|| ColumnsFault::Unknown(mapping.to_owned()))?;
            if columns.theirs.insert(ours, theirs.to_owned()).is_some() {
                return Err(ColumnsFault::Twice(ours));
            }
        }
        Ok(columns)
    }

    pub fn is_mapped(&self, ours: &str) -> bool {
        self.theirs.contains_key(ours)
    }

    /// The log's name of one of our fields, or of a field that only a filter names.
    fn theirs<'a>(&'a self, ours: &'a str) -> Option<&'a str> {
        let theirs = self.theirs.get(ours).map_or(ours, String::as_str);
        (self.is_mapped(ours) || !self.left_out.contains(theirs)).then_some(theirs)
    }

    pub fn value<'a, 'b>(&self, ours: &str, fields: &'a Fields<'b>) -> &'a FieldValue<'b> {
        self.theirs(ours).map_or(&FieldValue::Absent, |theirs| fields.get(theirs))
    }

    /// Mapped fields whose own name the log uses as well, for something that no mapping explains.
    fn doubtful(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let explained = |name: &str| self.left_out.contains(name) || self.theirs.values().any(|theirs| theirs == name);
        self.theirs
            .iter()
            .map(|(ours, theirs)| (*ours, theirs.as_str()))
            .filter(move |(ours, theirs)| ours != theirs && !explained(ours))
    }

    pub fn check_row(&self, fields: &Fields<'_>) -> Result<(), SkipReason> {
        let has = |name| *fields.get(name) != FieldValue::Absent;
        match self.doubtful().find(|(ours, theirs)| has(ours) && has(theirs)) {
            Some((ours, theirs)) => Err(SkipReason::BothNames { ours, theirs: theirs.to_owned() }),
            None => Ok(()),
        }
    }

    pub fn check_access_log(&self) -> Result<(), ColumnsFault> {
        match self.theirs.keys().find(|ours| OWN_FIELDS.contains(ours)) {
            Some(ours) => Err(ColumnsFault::Own(ours)),
            None => Ok(()),
        }
    }

    /// Each mapped column is there once, and so are those that every click needs.
    pub fn check_header(&self, header: &[String]) -> Result<(), ColumnsFault> {
        let times = |name: &str| header.iter().filter(|column| *column == name).count();
        for (ours, theirs) in &self.theirs {
            if times(theirs) == 0 {
                let header = header.join(", ");
                return Err(ColumnsFault::NoColumn { ours, theirs: theirs.clone(), header });
            }
        }
        if let Some((ours, theirs)) = self.doubtful().find(|(ours, _)| times(ours) > 0) {
            return Err(ColumnsFault::BothNames { ours, theirs: theirs.to_owned() });
        }
        for ours in FIELDS {
            if let Some(theirs) = self.theirs(ours).filter(|theirs| times(theirs) > 1) {
                return Err(ColumnsFault::TwoColumns(theirs.to_owned()));
            }
        }
        for needed in ["timestamp", "ad_id"] {
            if self.theirs(needed).is_none_or(|theirs| times(theirs) == 0) {
                return Err(ColumnsFault::NoneFor(needed, header.join(", ")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn columns(mappings: &str) -> Result<Columns, ColumnsFault> {
        Columns::parse(mappings.split(','))
    }

    fn header(names: &str) -> Vec<String> {
        names.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn a_mapping_that_means_nothing_is_refused() {
        assert_eq!(columns("ad_id"), Err(ColumnsFault::NoPair("ad_id".into())));
        assert_eq!(columns("ad_id="), Err(ColumnsFault::NoPair("ad_id=".into())));
        let unknown = columns("adid=item").unwrap_err();
        assert_eq!(unknown, ColumnsFault::Unknown("adid=item".into()));
        assert!(unknown.to_string().contains("campaign_id"), "the message lists the fields");
        assert_eq!(columns("ad_id=a,ad_id=b"), Err(ColumnsFault::Twice("ad_id")));
        assert_eq!(columns("ip_address=x").unwrap().check_access_log(), Err(ColumnsFault::Own("ip_address")));
        assert_eq!(columns("ad_id=x").unwrap().check_access_log(), Ok(()));
    }

    #[test]
    fn a_mapped_name_that_also_exists_is_refused_until_it_is_left_out_or_explained() {
        let both = header("timestamp,item_id,ad_id");
        assert_eq!(
            columns("ad_id=item_id").unwrap().check_header(&both),
            Err(ColumnsFault::BothNames { ours: "ad_id", theirs: "item_id".into() })
        );
        assert_eq!(columns("ad_id=item_id,=ad_id").unwrap().check_header(&both), Ok(()));
        assert_eq!(columns("ad_id=item_id,campaign_id=ad_id").unwrap().check_header(&both), Ok(()));
        let mut row = Fields::default();
        row.push(Cow::Borrowed("item_id"), FieldValue::of(Cow::Borrowed(b"1")));
        row.push(Cow::Borrowed("ad_id"), FieldValue::Absent);
        assert_eq!(columns("ad_id=item_id").unwrap().check_row(&row), Ok(()), "null is absence");
        let mut row = Fields::default();
        row.push(Cow::Borrowed("item_id"), FieldValue::of(Cow::Borrowed(b"1")));
        row.push(Cow::Borrowed("ad_id"), FieldValue::of(Cow::Borrowed(b"2")));
        assert!(matches!(columns("ad_id=item_id").unwrap().check_row(&row), Err(SkipReason::BothNames { .. })));
    }

    #[test]
    fn a_header_lacks_nothing_and_repeats_nothing_that_is_used() {
        let checked = |mappings: &str, names: &str| {
            Columns::parse(mappings.split_terminator(',')).unwrap().check_header(&header(names))
        };
        assert_eq!(checked("", "timestamp,ad_id,x,x"), Ok(()));
        assert_eq!(checked("", "timestamp,ad_id,ad_id"), Err(ColumnsFault::TwoColumns("ad_id".into())));
        assert!(matches!(checked("", "timestamp,item_id"), Err(ColumnsFault::NoneFor("ad_id", _))));
        assert!(matches!(checked("=ad_id", "timestamp,ad_id"), Err(ColumnsFault::NoneFor("ad_id", _))));
        assert!(matches!(
            checked("user_id=who", "timestamp,ad_id"),
            Err(ColumnsFault::NoColumn { ours: "user_id", .. })
        ));
    }
}
