//! The one binary codec: bincode behind a version byte, a CRC and a length limit. Used for replicated commands, peer messages
//! and snapshots; never for topics, which are Protobuf.
//!
//! Frame: `version u8 ‖ crc32(payload) u32 LE ‖ payload`. An unknown version is an error, never a skip.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::fault::{Mutant, is_broken};

pub const CODEC_VERSION: u8 = 1;
const HEADER_BYTES: usize = 5;

/// The largest frame accepted; a snapshot chunk or a checkpoint stays far below.
pub const FRAME_BYTES_MAX: usize = 256 * 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CodecError {
    #[error("frame of {0} bytes is shorter than its header")]
    Short(usize),
    #[error("frame of {0} bytes exceeds the limit of {FRAME_BYTES_MAX}")]
    TooLong(usize),
    #[error("codec version {0} is not known to this build (it writes {CODEC_VERSION}): upgrade this node first")]
    Version(u8),
    #[error("checksum mismatch: the frame is damaged")]
    Checksum,
    #[error("undecodable payload: {0}")]
    Payload(String),
}

fn configuration() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<FRAME_BYTES_MAX>()
}

pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut frame = vec![0_u8; HEADER_BYTES];
    bincode::serde::encode_into_std_write(value, &mut frame, configuration())
        .map_err(|e| CodecError::Payload(e.to_string()))?;
    if frame.len() > FRAME_BYTES_MAX {
        return Err(CodecError::TooLong(frame.len()));
    }
    let checksum = crc32fast::hash(&frame[HEADER_BYTES..]);
    frame[0] = CODEC_VERSION;
    frame[1..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    Ok(frame)
}

pub fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T, CodecError> {
    if frame.len() > FRAME_BYTES_MAX {
        return Err(CodecError::TooLong(frame.len()));
    }
    let Some((header, payload)) = frame.split_at_checked(HEADER_BYTES) else {
        return Err(CodecError::Short(frame.len()));
    };
    if header[0] != CODEC_VERSION {
        return Err(CodecError::Version(header[0]));
    }
    if header[1..] != crc32fast::hash(payload).to_le_bytes() && !is_broken(Mutant::ChecksumUnchecked) {
        return Err(CodecError::Checksum);
    }
    let (value, used) =
        bincode::serde::decode_from_slice(payload, configuration()).map_err(|e| CodecError::Payload(e.to_string()))?;
    if used != payload.len() {
        return Err(CodecError::Payload(format!("{} bytes left over", payload.len() - used)));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_and_unknown_versions_are_refused() {
        let frame = encode(&(7_u64, "seven".to_owned())).unwrap();
        assert_eq!(decode::<(u64, String)>(&frame).unwrap(), (7, "seven".to_owned()));
        for at in 0..frame.len() {
            let mut damaged = frame.clone();
            damaged[at] ^= 0x40;
            assert!(decode::<(u64, String)>(&damaged).is_err(), "byte {at} flipped went unnoticed");
        }
        assert_eq!(decode::<u8>(&[9, 0, 0, 0, 0, 0]), Err(CodecError::Version(9)));
        assert_eq!(decode::<u8>(&[1, 0]), Err(CodecError::Short(2)));
    }
}
