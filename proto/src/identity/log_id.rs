//! Names one making of the raw topic.

use std::fmt::{self, Write};

use serde::{Deserialize, Serialize};

/// The topic id that the broker gives a topic when it is made. A topic that is deleted and made again has another one,
/// also under the same name. It is shown as Kafka's tools show it: URL-safe base64 without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogId(pub [u8; 16]);

const SEXTETS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for three in self.0.chunks(3) {
            let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
            for sextet in 0..=three.len() {
                f.write_char(char::from(SEXTETS[(bits >> (18 - 6 * sextet) & 63) as usize]))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_shown_as_kafkas_tools_show_it() {
        assert_eq!(LogId([0; 16]).to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        let bytes = [0xfb, 0xff, 0xbf, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13];
        assert_eq!(LogId(bytes).to_string(), "-_-_AQIDBAUGBwgJCgsMDQ");
    }
}
