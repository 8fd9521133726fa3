//! A row as fields, by the names that the log gives them.

use std::borrow::Cow;

use crate::skip::FieldFault;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldValue<'a> {
    /// No value: an empty text, `-` in an access log, `null` in JSON.
    Absent,
    Bytes(Cow<'a, [u8]>),
    /// A number of JSON that a float holds: good enough for a time, but not for an identity.
    Float(String),
    /// Matters only if the field is needed.
    Fault(FieldFault),
}

impl FieldValue<'_> {
    pub fn of(bytes: Cow<'_, [u8]>) -> FieldValue<'_> {
        if bytes.is_empty() { FieldValue::Absent } else { FieldValue::Bytes(bytes) }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fields<'a>(Vec<(Cow<'a, str>, FieldValue<'a>)>);

impl<'a> Fields<'a> {
    pub fn push(&mut self, name: Cow<'a, str>, value: FieldValue<'a>) {
        self.0.push((name, value));
    }

    /// A repeated name becomes a fault of that field: no value of it is better than another.
    pub fn push_once(&mut self, name: Cow<'a, str>, value: FieldValue<'a>) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = FieldValue::Fault(FieldFault::Repeated),
            None => self.0.push((name, value)),
        }
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    pub fn get(&self, name: &str) -> &FieldValue<'a> {
        self.0.iter().find(|(known, _)| known == name).map_or(&FieldValue::Absent, |(_, value)| value)
    }
}
