//! `[[sources]]`: who may send clicks.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::bound::{SOURCE_NAME, TOKEN, check};
use super::error::{ConfigError, invalid};

/// It has no defaults: a source without a name or a token means nothing.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSection {
    pub name: String,
    pub token: String,
}

impl fmt::Debug for SourceSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceSection({})", self.name)
    }
}

impl SourceSection {
    fn check(&self) -> Result<(), ConfigError> {
        check("sources", "name", &SOURCE_NAME, &self.name)?;
        check("sources", "token", &TOKEN, &self.token)
    }
}

/// One source may have several tokens, so that a token can be replaced without a pause.
///
/// # Errors
/// Two sources have one token: one of them would get the clicks of both.
pub(super) fn check_all(sources: &[SourceSection]) -> Result<(), ConfigError> {
    let mut by_token: BTreeMap<&str, &str> = BTreeMap::new();
    for source in sources {
        source.check()?;
        if let Some(other) = by_token.insert(&source.token, &source.name) {
            return invalid(format!("sources: '{other}' and '{}' have the same token: give each its own", source.name));
        }
    }
    Ok(())
}
