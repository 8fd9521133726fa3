//! The one binary codec: bincode behind a version byte, a CRC and a length limit. It encodes replicated commands, peer
//! messages and snapshots. Topics use Protobuf instead.
//!
//! Frame: `version u8 ‖ crc32 u32 LE ‖ payload`. The checksum covers the version and the payload (in version 1 the
//! payload alone), so a damaged version is not mistaken for one of a newer build. An unknown version is an error, never
//! a skip.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::fault::{Mutant, is_broken};

pub const CODEC_VERSION: u8 = 2;
/// Read, and no longer written. Its checksum does not cover the version.
const VERSION_UNCHECKED: u8 = 1;
const HEADER_BYTES: usize = 5;

/// The largest frame accepted. Snapshot chunks and checkpoints stay far below it.
pub const FRAME_BYTES_MAX: usize = 256 * 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CodecError {
    #[error("frame of {0} bytes is shorter than its header")]
    Short(usize),
    #[error("frame of {0} bytes exceeds the limit of {FRAME_BYTES_MAX}")]
    TooLong(usize),
    #[error("this build does not know codec version {0} (it writes {CODEC_VERSION}): upgrade this node first")]
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
    frame[0] = CODEC_VERSION;
    let checksum = checksum(CODEC_VERSION, &frame[HEADER_BYTES..]);
    frame[1..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    Ok(frame)
}

fn checksum(version: u8, payload: &[u8]) -> u32 {
    let mut checksum = crc32fast::Hasher::new();
    if version != VERSION_UNCHECKED {
        checksum.update(&[version]);
    }
    checksum.update(payload);
    checksum.finalize()
}

pub fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T, CodecError> {
    if frame.len() > FRAME_BYTES_MAX {
        return Err(CodecError::TooLong(frame.len()));
    }
    let Some((header, payload)) = frame.split_at_checked(HEADER_BYTES) else {
        return Err(CodecError::Short(frame.len()));
    };
    let version = header[0];
    if header[1..] != checksum(version, payload).to_le_bytes() && !is_broken(Mutant::ChecksumUnchecked) {
        return Err(CodecError::Checksum);
    }
    if ![VERSION_UNCHECKED, CODEC_VERSION].contains(&version) {
        return Err(CodecError::Version(version));
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
            assert_eq!(decode::<(u64, String)>(&damaged), Err(CodecError::Checksum), "byte {at} flipped");
        }
        assert_eq!(decode::<u8>(&[1, 0]), Err(CodecError::Short(2)));
    }

    #[test]
    fn older_frames_are_read_and_newer_frames_are_not_called_damaged() {
        let with_version = |version: u8| {
            let mut frame = encode(&7_u8).unwrap();
            let checksum = checksum(version, &frame[HEADER_BYTES..]).to_le_bytes();
            frame[0] = version;
            frame[1..HEADER_BYTES].copy_from_slice(&checksum);
            frame
        };
        assert_eq!(decode::<u8>(&with_version(1)), Ok(7));
        assert_eq!(decode::<u8>(&with_version(3)), Err(CodecError::Version(3)));
    }
}
