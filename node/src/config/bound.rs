//! Which values a key may have. The check, its error and `docs/configuration.md` all come from here.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use url::Url;

use super::error::{ConfigError, invalid};

pub(super) trait Bound<T> {
    /// Completes "KEY must be …".
    fn allowed(&self) -> String;

    fn allows(&self, value: &T) -> bool;

    /// The refused value, for the error. `None`: it may be a secret.
    fn shown(&self, value: &T) -> Option<String>;
}

/// # Errors
/// Names the key and what it may be.
pub(super) fn check<T>(section: &str, key: &str, bound: &impl Bound<T>, value: &T) -> Result<(), ConfigError> {
    if bound.allows(value) {
        return Ok(());
    }
    let is = bound.shown(value).map(|shown| format!(", is {shown}")).unwrap_or_default();
    invalid(format!("{section}.{key} must be {}{is}", bound.allowed()))
}

/// A number within limits, both inclusive.
impl<T: PartialOrd + Display> Bound<T> for RangeInclusive<T> {
    fn allowed(&self) -> String {
        format!("{} to {}", self.start(), self.end())
    }

    fn allows(&self, value: &T) -> bool {
        self.contains(value)
    }

    fn shown(&self, value: &T) -> Option<String> {
        Some(value.to_string())
    }
}

/// `true` or `false`.
pub(super) struct Switch;

impl Bound<bool> for Switch {
    fn allowed(&self) -> String {
        "true or false".to_owned()
    }

    fn allows(&self, _: &bool) -> bool {
        true
    }

    fn shown(&self, value: &bool) -> Option<String> {
        Some(value.to_string())
    }
}

/// A text that the other texts below constrain: what is allowed, and the test for it.
pub(super) struct Text {
    allowed: &'static str,
    allows: fn(&str) -> bool,
    is_secret: bool,
}

impl Bound<String> for Text {
    fn allowed(&self) -> String {
        self.allowed.to_owned()
    }

    fn allows(&self, value: &String) -> bool {
        (self.allows)(value)
    }

    fn shown(&self, value: &String) -> Option<String> {
        (!self.is_secret).then(|| format!("'{}'", value.escape_debug()))
    }
}

/// The name of a cluster goes into the headers of peers.
pub(super) const CLUSTER_NAME: Text = Text {
    allowed: "1 to 64 printable ASCII characters",
    allows: |text| is_name(text) && text.is_ascii(),
    is_secret: false,
};

/// The name of a source is a part of the identity of its clicks.
pub(super) const SOURCE_NAME: Text =
    Text { allowed: "1 to 64 bytes without control characters", allows: is_name, is_secret: false };

/// An address to listen on.
pub(super) const LISTEN_ADDRESS: Text =
    Text { allowed: "IP:PORT with a port above 0", allows: is_listen_address, is_secret: false };

/// An address that others connect to; it may be left empty.
pub(super) const ADVERTISED_ADDRESS: Text =
    Text { allowed: "HOST:PORT, or empty", allows: |text| text.is_empty() || is_host_and_port(text), is_secret: false };

/// Kafka's bootstrap servers.
pub(super) const BROKERS: Text = Text {
    allowed: "HOST:PORT, or several separated by commas",
    allows: |text| text.split(',').all(|broker| is_host_and_port(broker.trim())),
    is_secret: false,
};

/// The address of PostgreSQL, which may hold a password.
pub(super) const POSTGRES_URL: Text =
    Text { allowed: "postgres://USER:PASSWORD@HOST:PORT/DATABASE", allows: is_postgres_url, is_secret: true };

/// Where the archive is.
pub(super) const ARCHIVE_LOCATION: Text = Text {
    allowed: "a folder, s3://BUCKET/PREFIX, or empty",
    allows: is_archive_location,
    // A location with credentials in it is refused, and must not be shown.
    is_secret: true,
};

/// A bearer token.
pub(super) const TOKEN: Text =
    Text { allowed: "16 to 512 visible ASCII characters", allows: is_token, is_secret: true };

fn is_token(text: &str) -> bool {
    (16..=512).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn is_listen_address(text: &str) -> bool {
    text.parse::<SocketAddr>().is_ok_and(|address| address.port() != 0)
}

pub(super) fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_name = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    let is_ipv6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    let is_port = port.parse::<u16>().is_ok_and(|port| port != 0) && port.bytes().all(|byte| byte.is_ascii_digit());
    !host.is_empty() && (is_name || is_ipv6) && is_port
}

fn is_postgres_url(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "postgres" | "postgresql"))
}

fn is_archive_location(text: &str) -> bool {
    match text.split_once("://") {
        None | Some(("file", _)) => !text.contains('\0'),
        Some(("s3", rest)) => {
            let bucket = rest.split('/').next().unwrap_or("");
            (3..=63).contains(&bucket.len())
                && bucket
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte))
        }
        Some(_) => false,
    }
}

/// A folder.
pub(super) struct Folder;

impl Bound<PathBuf> for Folder {
    fn allowed(&self) -> String {
        "a folder".to_owned()
    }

    fn allows(&self, value: &PathBuf) -> bool {
        !value.as_os_str().is_empty()
    }

    fn shown(&self, value: &PathBuf) -> Option<String> {
        Some(format!("'{}'", value.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_bound(bound: &Text, allowed: &[&str], refused: &[&str]) {
        for text in allowed {
            assert!((bound.allows)(text), "{} must take {text:?}", bound.allowed);
        }
        for text in refused {
            assert!(!(bound.allows)(text), "{} must refuse {text:?}", bound.allowed);
        }
    }

    #[test]
    fn each_kind_of_text_has_its_bound() {
        assert_bound(
            &BROKERS,
            &["k:9092", "10.0.0.1:1,b-1.x:65535", "[::1]:9092, k:1"],
            &[
                "",
                "k",
                ":9092",
                "k:",
                "k:0",
                "k:+1",
                "k:65536",
                "k:1,",
                "PLAINTEXT://k:1",
                "a b:1",
                "::1:9092",
                "a@b:1",
            ],
        );
        assert_bound(&LISTEN_ADDRESS, &["0.0.0.0:1", "[::]:80"], &["", "localhost:1", "127.0.0.1", "127.0.0.1:0"]);
        assert_bound(&ADVERTISED_ADDRESS, &["", "node-1.example:80"], &["node-1", "http://node-1:80"]);
        let locations = ["", "archive", "/a/b", "file:///a", "s3://bucket", "s3://my.bucket-1/a/b c"];
        assert_bound(
            &ARCHIVE_LOCATION,
            &locations,
            &["s3://", "s3:///p", "s3://k:s@bucket/p", "gs://bucket", "S3://b"],
        );
        assert_bound(
            &POSTGRES_URL,
            &["postgres://me@db/x", "postgresql:///x?host=/run"],
            &["", "me@db", "mysql://db/x"],
        );
        assert_bound(&TOKEN, &["0123456789abcdef"], &["", "0123456789abcde", "0123456789 abcdef", "0123456789abcdé"]);
        assert_bound(&CLUSTER_NAME, &["clicktally", "a/b c"], &["", "a\n", "é"]);
        assert_bound(&SOURCE_NAME, &["shop", "Café A"], &["", "a\n", "\u{9b}", &"x".repeat(65)]);
    }
}
