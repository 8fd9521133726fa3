//! Which rows are clicks: what `--where` asks for, and the requests of an access log that a click can be.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::columns::Columns;
use crate::fields::{FieldValue, Fields};
use crate::skip::{Shown, SkipReason};

/// A condition with this value holds for every value that is there.
pub const ANY_VALUE: &str = "*";

/// The methods of a click's request. HEAD and OPTIONS are sent by programs that look first.
const CLICK_METHODS: [&[u8]; 2] = [b"GET", b"POST"];

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConditionFault {
    #[error("--where: '{0}' is not FIELD=VALUE")]
    NoPair(String),
    #[error("--where: the header has no column '{field}'; it has {header}")]
    NoColumn { field: String, header: String },
}

/// The wanted values by field. All fields must match, each with one of its values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions(BTreeMap<String, BTreeSet<String>>);

impl Conditions {
    pub fn parse<'a>(conditions: impl IntoIterator<Item = &'a str>) -> Result<Conditions, ConditionFault> {
        let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for condition in conditions {
            let (field, value) = condition
                .split_once('=')
                .filter(|(field, _)| !field.is_empty())
                .ok_or_else(|| ConditionFault::NoPair(condition.to_owned()))?;
            wanted.entry(field.to_owned()).or_default().insert(value.to_owned());
        }
        Ok(Conditions(wanted))
    }

    pub fn check_header(&self, header: &[String], columns: &Columns) -> Result<(), ConditionFault> {
        let is_there = |field: &String| columns.is_mapped(field) || header.contains(field);
        match self.0.keys().find(|field| !is_there(field)) {
            Some(field) => Err(ConditionFault::NoColumn { field: field.clone(), header: header.join(", ") }),
            None => Ok(()),
        }
    }

    /// Rows of an access log are checked for method and status, unless a condition names that field. In the other
    /// formats only a mapped `method` or `status` is known to be that of a request.
    pub fn check(&self, fields: &Fields<'_>, columns: &Columns, is_access_log: bool) -> Result<(), SkipReason> {
        for (field, wanted) in &self.0 {
            check_wanted(field, wanted, columns.value(field, fields))?;
        }
        let applies = |field: &str| (is_access_log || columns.is_mapped(field)) && !self.0.contains_key(field);
        if applies("method") {
            let is_click = |method: &[u8]| CLICK_METHODS.contains(&method);
            check_request("method", "GET or POST", columns.value("method", fields), is_click)?;
        }
        if applies("status") {
            let is_click = |status: &[u8]| status.len() == 3 && matches!(status[0], b'2' | b'3');
            check_request("status", "200 to 399", columns.value("status", fields), is_click)?;
        }
        Ok(())
    }
}

fn check_wanted(field: &str, wanted: &BTreeSet<String>, value: &FieldValue<'_>) -> Result<(), SkipReason> {
    let found: Option<&[u8]> = match value {
        FieldValue::Fault(fault) => return Err(SkipReason::Field { field: field.to_owned(), fault: fault.clone() }),
        FieldValue::Absent => None,
        FieldValue::Bytes(bytes) => Some(bytes),
        FieldValue::Float(text) => Some(text.as_bytes()),
    };
    // `--where FIELD=` asks for rows without that field.
    let matches =
        |text: &String| text.as_bytes() == found.unwrap_or_default() || (text == ANY_VALUE && found.is_some());
    if wanted.iter().any(matches) {
        return Ok(());
    }
    Err(SkipReason::Filtered { field: field.to_owned(), value: found.map(Shown::of) })
}

fn check_request(
    field: &'static str,
    clicks: &'static str,
    value: &FieldValue<'_>,
    is_click: impl Fn(&[u8]) -> bool,
) -> Result<(), SkipReason> {
    match value {
        FieldValue::Bytes(bytes) if is_click(bytes) => Ok(()),
        FieldValue::Bytes(bytes) => Err(SkipReason::NoClick { field, value: Some(Shown::of(bytes)), clicks }),
        FieldValue::Absent => Err(SkipReason::NoClick { field, value: None, clicks }),
        FieldValue::Float(text) => Err(SkipReason::NoClick { field, value: Some(Shown::of(text.as_bytes())), clicks }),
        FieldValue::Fault(fault) => Err(SkipReason::Field { field: field.to_owned(), fault: fault.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::combined_row;

    fn conditions(conditions: &[&str]) -> Conditions {
        Conditions::parse(conditions.iter().copied()).unwrap()
    }

    fn line(method: &str, status: &str) -> String {
        format!("1.2.3.4 - - [10/Oct/2000:13:55:36 -0700] \"{method} /c?ad_id=7 HTTP/1.1\" {status} 0 \"-\" \"x\"")
    }

    fn is_click(wanted: &[&str], method: &str, status: &str) -> bool {
        let line = line(method, status);
        let fields = combined_row::parse(line.as_bytes()).unwrap();
        conditions(wanted).check(&fields, &Columns::default(), true).is_ok()
    }

    #[test]
    fn a_condition_without_an_equals_sign_is_refused() {
        for wrong in ["click", "", "=1"] {
            assert_eq!(Conditions::parse([wrong]), Err(ConditionFault::NoPair(wrong.to_owned())));
        }
        let header = ["click".to_owned()];
        assert!(conditions(&["clicks=1"]).check_header(&header, &Columns::default()).is_err());
        assert_eq!(conditions(&["click=1"]).check_header(&header, &Columns::default()), Ok(()));
    }

    #[test]
    fn only_answered_gets_and_posts_are_clicks_by_default() {
        for (method, status) in [("GET", "302"), ("GET", "200"), ("POST", "204")] {
            assert!(is_click(&[], method, status), "{method} {status}");
        }
        for (method, status) in [("HEAD", "302"), ("OPTIONS", "200"), ("GET", "404"), ("GET", "503"), ("GET", "-")] {
            assert!(!is_click(&[], method, status), "{method} {status}");
        }
    }

    #[test]
    fn a_condition_on_method_or_status_replaces_the_default() {
        assert!(is_click(&["status=404"], "GET", "404"));
        assert!(!is_click(&["status=404"], "GET", "302"));
        assert!(!is_click(&["status=404"], "HEAD", "404"), "the default for the method still holds");
        assert!(is_click(&["method=*", "status=*"], "HEAD", "503"));
        assert!(is_click(&["status=301", "status=302"], "GET", "302"), "one of the values");
        assert!(!is_click(&["status=302", "ad_id=8"], "GET", "302"), "all of the fields");
    }

    #[test]
    fn other_formats_are_not_asked_for_a_method_unless_it_is_mapped() {
        let fields = crate::json_row::parse(br#"{"status": "paid", "code": 404}"#).unwrap();
        assert_eq!(Conditions::default().check(&fields, &Columns::default(), false), Ok(()));
        let columns = Columns::parse(["status=code"]).unwrap();
        assert!(Conditions::default().check(&fields, &columns, false).is_err());
        assert_eq!(conditions(&["status=404"]).check(&fields, &columns, false), Ok(()));
    }
}
