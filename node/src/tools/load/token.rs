//! The bearer token of a source.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use reqwest::header::HeaderValue;

#[derive(Debug, Clone, Default, Args)]
pub struct TokenOptions {
    /// Bearer token of the source that sends the clicks. Other users of the machine can read command lines: rather
    /// set CLICKTALLY_TOKEN, or give --token-file.
    #[arg(long, env = "CLICKTALLY_TOKEN", hide_env_values = true, value_parser = parse_token)]
    pub token: Option<Token>,
    /// A file with the token; it takes precedence.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// Refuses to print itself.
#[derive(Clone)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// Checks nothing: clap would print the value that it refuses.
#[allow(clippy::unnecessary_wraps)] // clap wants a result.
fn parse_token(text: &str) -> Result<Token, std::convert::Infallible> {
    Ok(Token(text.to_owned()))
}

impl TokenOptions {
    /// The header that names the source. `None` without a token.
    pub(super) fn authorization(&self) -> anyhow::Result<Option<HeaderValue>> {
        let from_file = |path: &PathBuf| {
            std::fs::read_to_string(path).with_context(|| format!("cannot read the token in {}", path.display()))
        };
        let token = match (&self.token_file, &self.token) {
            (Some(path), _) => from_file(path)?,
            (None, Some(Token(token))) => token.clone(),
            (None, None) => return Ok(None),
        };
        let token = token.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!("the token is empty, or has characters that no token has");
        }
        let mut header = HeaderValue::from_str(&format!("Bearer {token}")).ok().context("the token fits no header")?;
        header.set_sensitive(true);
        Ok(Some(header))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_from_its_option_or_a_file_and_never_prints_itself() {
        assert_eq!(TokenOptions::default().authorization().unwrap(), None);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "from-the-file\n").unwrap();
        let given = parse_token("given-0123").unwrap();
        let options = TokenOptions { token: Some(given), token_file: None };
        assert_eq!(options.authorization().unwrap().unwrap(), "Bearer given-0123");
        let both = TokenOptions { token_file: Some(file), ..options };
        let header = both.authorization().unwrap().unwrap();
        assert_eq!(header, "Bearer from-the-file");
        for printed in [format!("{both:?}"), format!("{header:?}")] {
            assert!(!printed.contains("0123") && !printed.contains("from-the-file"), "{printed}");
        }
    }

    #[test]
    fn a_token_that_cannot_be_sent_is_refused_without_printing_it() {
        for wrong in ["", " ", "se cret", "se\ncret"] {
            let options = TokenOptions { token: Some(parse_token(wrong).unwrap()), token_file: None };
            assert!(!options.authorization().unwrap_err().to_string().contains("cret"));
        }
    }
}
