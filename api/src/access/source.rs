//! Who sends clicks. The authenticated source scopes a producer's event ids, so that nobody can suppress another's click.

use std::collections::BTreeMap;
use std::fmt;

use axum::http::{HeaderMap, header};

/// Where no tokens are configured, everybody is this source.
pub const ANONYMOUS: &str = "anonymous";

/// Bearer tokens and the source each one stands for. Refuses to print its tokens.
#[derive(Clone, Default)]
pub struct Sources {
    by_token: BTreeMap<String, String>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("names", &self.by_token.values().collect::<Vec<_>>()).finish()
    }
}

impl Sources {
    pub fn new(by_token: BTreeMap<String, String>) -> Sources {
        Sources { by_token }
    }

    /// The source of a request; `None` where tokens are configured and the request has no known one.
    pub fn authenticate(&self, headers: &HeaderMap) -> Option<&str> {
        if self.by_token.is_empty() {
            return Some(ANONYMOUS);
        }
        let offered = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
        // Every token is compared, and each in full, so that the time taken says nothing about how near a guess was.
        self.by_token.iter().fold(None, |found, (token, source)| {
            if are_same(token.as_bytes(), offered.as_bytes()) { Some(source.as_str()) } else { found }
        })
    }
}

fn are_same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_token_names_its_source_and_no_other_gets_in() {
        let sources = Sources::new(BTreeMap::from([("secret".to_owned(), "shop".to_owned())]));
        let mut headers = HeaderMap::new();
        assert_eq!(sources.authenticate(&headers), None);
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer secret"));
        assert_eq!(sources.authenticate(&headers), Some("shop"));
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer secre"));
        assert_eq!(sources.authenticate(&headers), None);
        assert!(!format!("{sources:?}").contains("secret"));
    }

    #[test]
    fn without_tokens_everybody_is_anonymous() {
        assert_eq!(Sources::default().authenticate(&HeaderMap::new()), Some(ANONYMOUS));
    }
}
