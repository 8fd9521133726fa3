//! `[[sources]]`: who may send clicks.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::{ConfigError, invalid};

const TOKEN_CHARACTERS_MIN: usize = 16;

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
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.token.len() < TOKEN_CHARACTERS_MIN {
            return invalid(format!("sources: a token must have at least {TOKEN_CHARACTERS_MIN} characters"));
        }
        Ok(())
    }
}
