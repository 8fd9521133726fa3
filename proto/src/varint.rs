//! LEB128 integers as Protobuf and Kafka write them, read with bounds.

/// Reads one at `at` and moves `at` behind it. `None`: the bytes end in its middle, or it has more than 64 bits.
#[inline]
pub fn read(bytes: &[u8], at: &mut usize) -> Option<u64> {
    // Most are one byte long.
    if let Some(&byte) = bytes.get(*at)
        && byte < 0x80
    {
        *at += 1;
        return Some(u64::from(byte));
    }
    read_long(bytes, at)
}

/// Eight bytes at once where so many are left: ids and times take five to nine, and a loop of as many steps, which is never as long as
/// predicted, costs several times as much.
#[inline]
fn read_long(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let Some(chunk) = bytes.get(*at..).and_then(<[u8]>::first_chunk::<8>) else {
        return read_bytewise(bytes, at, 0, 0);
    };
    let chunk = u64::from_le_bytes(*chunk);
    let ends = !chunk & 0x8080_8080_8080_8080;
    if ends == 0 {
        *at += 8;
        // Minted ids have nine bytes.
        if let Some(&byte) = bytes.get(*at)
            && byte < 0x80
        {
            *at += 1;
            return Some(seven_bits_of_each(chunk) | u64::from(byte) << 56);
        }
        return read_bytewise(bytes, at, seven_bits_of_each(chunk), 56);
    }
    // Bits up to and with that which ends it.
    let bits = ends.trailing_zeros() + 1;
    *at += bits as usize / 8;
    Some(seven_bits_of_each(chunk & u64::MAX >> (u64::BITS - bits)))
}

/// The low seven bits of eight bytes, side by side: halves are joined, then quarters, then eighths.
#[inline]
fn seven_bits_of_each(chunk: u64) -> u64 {
    let chunk = chunk & 0x7f7f_7f7f_7f7f_7f7f;
    let chunk = chunk & 0x007f_007f_007f_007f | (chunk & 0x7f00_7f00_7f00_7f00) >> 1;
    let chunk = chunk & 0x0000_3fff_0000_3fff | (chunk & 0x3fff_0000_3fff_0000) >> 2;
    chunk & 0x0000_0000_0fff_ffff | (chunk & 0x0fff_ffff_0000_0000) >> 4
}

/// Goes on where `value` already has the bits below `shift`.
#[cold]
fn read_bytewise(bytes: &[u8], at: &mut usize, mut value: u64, shift: u32) -> Option<u64> {
    for shift in (shift..70).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        // The tenth byte may carry one bit only.
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

pub(crate) fn write(mut value: u64, into: &mut Vec<u8>) {
    while value >= 0x80 {
        into.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(value in any::<u64>()) {
            let mut bytes = Vec::new();
            write(value, &mut bytes);
            let mut at = 0;
            prop_assert_eq!(read(&bytes, &mut at), Some(value));
            prop_assert_eq!(at, bytes.len());
        }

        /// Whatever follows, and however much of it: over-long forms, ends in the middle, more than 64 bits.
        #[test]
        fn many_bytes_at_once_are_read_as_one_by_one(
            value in any::<u64>(), bits in 0_u32..64, noise in proptest::collection::vec(prop_oneof![Just(0x80_u8), Just(0xff), any::<u8>()], 0..16)
        ) {
            let mut written = Vec::new();
            write(value >> bits, &mut written);
            written.extend(&noise);
            for bytes in [&written[..], &noise[..]] {
                let (mut at, mut expected_at) = (0, 0);
                let expected = read_bytewise(bytes, &mut expected_at, 0, 0);
                prop_assert_eq!(read(bytes, &mut at), expected);
                prop_assert!(expected.is_none() || at == expected_at);
            }
        }
    }
}
