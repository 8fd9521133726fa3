//! Who sends clicks. The authenticated source scopes a producer's event ids, so one producer cannot suppress the
//! clicks of another.

use std::collections::BTreeMap;
use std::fmt;

use axum::http::{HeaderMap, header};
use subtle::ConstantTimeEq;

/// The source of every caller when no tokens are configured.
pub const ANONYMOUS: &str = "anonymous";

/// Bearer tokens and the source that each one names. Refuses to print its tokens.
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

    /// The source of a request; `None` if tokens are configured and the request has no known one.
    pub fn authenticate(&self, headers: &HeaderMap) -> Option<&str> {
        if self.by_token.is_empty() {
            return Some(ANONYMOUS);
        }
        let (scheme, offered) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let offered = offered.trim_start();
        // Compares every token, each in full, so the time taken does not show how close a guess is. Lengths are no
        // secret.
        self.by_token.iter().fold(None, |found, (token, source)| {
            let is_same: bool = token.as_bytes().ct_eq(offered.as_bytes()).into();
            if is_same { Some(source.as_str()) } else { found }
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_token_names_its_source_and_no_other_gets_in() {
        let tokens = [("secret", "shop"), ("hidden", "news"), ("secret-too", "blog")];
        let sources =
            Sources::new(tokens.map(|(token, source)| (token.to_owned(), source.to_owned())).into_iter().collect());
        let authenticate = |value: &'static str| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(value))]);
            sources.authenticate(&headers).map(str::to_owned)
        };
        assert_eq!(sources.authenticate(&HeaderMap::new()), None);
        for (token, source) in [("Bearer secret", "shop"), ("Bearer hidden", "news"), ("Bearer secret-too", "blog")] {
            assert_eq!(authenticate(token).as_deref(), Some(source));
        }
        // The name of a scheme has no case (RFC 9110, 11.1); a token has.
        for scheme in ["bearer secret", "BEARER secret", "Bearer  secret", " bearer secret "] {
            assert_eq!(authenticate(scheme).as_deref(), Some("shop"), "{scheme}");
        }
        for refused in [
            "Bearer SECRET",
            "Bearersecret",
            "bearer",
            "Bearer secre",
            "Bearer secret2",
            "Bearer ",
            "secret",
            "Basic secret",
        ] {
            assert_eq!(authenticate(refused), None, "{refused}");
        }
        assert!(!format!("{sources:?}").contains("secret"));
    }

    #[test]
    fn without_tokens_every_caller_is_anonymous() {
        assert_eq!(Sources::default().authenticate(&HeaderMap::new()), Some(ANONYMOUS));
    }
}
