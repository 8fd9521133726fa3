//! `[postgres]`: the database, whose address may hold a password.

use std::fmt;

use url::Url;

use super::bound::POSTGRES_URL;
use super::error::ConfigError;
use super::section::section;

/// The text shown instead of a secret.
pub(super) const MASK: &str = "********";

section! {
    ["postgres"] pub struct PostgresSection {
        /// The address of the database, `postgres://user:password@host:port/database`.
        pub url: String = "postgres://clicktally@127.0.0.1:5432/clicktally".into(), in POSTGRES_URL;
    }
}

impl PostgresSection {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.check_keys()
    }
}

/// Shows the address, never the password.
impl fmt::Debug for PostgresSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresSection({})", masked_url(&self.url))
    }
}

/// Hides the password of a URL, including a password in a parameter. A text that is not a URL is hidden as a whole,
/// because it may be a password after a typing mistake.
pub(super) fn masked_url(url: &str) -> String {
    if url.is_empty() {
        return String::new();
    }
    let Ok(mut masked) = Url::parse(url) else { return MASK.to_owned() };
    if masked.password().is_some() && masked.set_password(Some(MASK)).is_err() {
        return MASK.to_owned();
    }
    let hidden = |name: &str| name.to_ascii_lowercase().contains("password");
    if masked.query_pairs().any(|(name, _)| hidden(&name)) {
        let pairs: Vec<(String, String)> = masked
            .query_pairs()
            .map(|(name, value)| (name.to_string(), if hidden(&name) { MASK.to_owned() } else { value.to_string() }))
            .collect();
        masked.query_pairs_mut().clear().extend_pairs(pairs);
    }
    masked.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_hidden_wherever_a_url_holds_it() {
        for (url, shown) in [
            ("postgres://me:hunter2@db:5432/x", "postgres://me:********@db:5432/x"),
            ("postgres://me:hunt@er2@db/x", "postgres://me:********@db/x"),
            ("postgres://me@db/x?sslmode=require", "postgres://me@db/x?sslmode=require"),
            (
                "postgres://me@db/x?password=hunter2&sslmode=require",
                "postgres://me@db/x?password=********&sslmode=require",
            ),
            ("host=db password=hunter2", "********"),
            ("", ""),
        ] {
            assert_eq!(masked_url(url), shown, "{url}");
        }
    }
}
