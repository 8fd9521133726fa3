//! LEB128 integers as Protobuf and Kafka write them, read within bounds.

/// Reads one integer at `at` and moves `at` past it. `None`: the bytes are cut off, or the integer has more than 64
/// bits.
#[inline]
pub fn read(bytes: &[u8], at: &mut usize) -> Option<u64> {
    // Most integers take one byte.
    if let Some(&byte) = bytes.get(*at)
        && byte < 0x80
    {
        *at += 1;
        return Some(u64::from(byte));
    }
    read_long(bytes, at)
}

/// Reads one integer of the signed form, in which small numbers of either sign are short. Otherwise as [`read`].
#[inline]
pub fn read_signed(bytes: &[u8], at: &mut usize) -> Option<i64> {
    read(bytes, at).map(zigzag)
}

/// The signed number that an unsigned one encodes: 0, −1, 1, −2, 2, …
#[inline]
pub fn zigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

/// Reads eight bytes at once where so many are left. Ids and times take five to nine bytes, and a loop over them costs
/// several times as much, because its length is never as predicted.
#[inline]
fn read_long(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let Some(chunk) = bytes.get(*at..).and_then(<[u8]>::first_chunk::<8>) else {
        return read_bytewise(bytes, at, 0, 0);
    };
    let chunk = u64::from_le_bytes(*chunk);
    let ends = !chunk & 0x8080_8080_8080_8080;
    if ends == 0 {
        *at += 8;
        // Minted ids take nine bytes.
        if let Some(&byte) = bytes.get(*at)
            && byte < 0x80
        {
            *at += 1;
            return Some(seven_bits_of_each(chunk) | u64::from(byte) << 56);
        }
        return read_bytewise(bytes, at, seven_bits_of_each(chunk), 56);
    }
    // Bits up to and including the last byte of the integer.
    let bits = ends.trailing_zeros() + 1;
    *at += bits as usize / 8;
    Some(seven_bits_of_each(chunk & u64::MAX >> (u64::BITS - bits)))
}

/// Joins the low seven bits of eight bytes: in pairs first, then in fours, then all eight.
#[inline]
fn seven_bits_of_each(chunk: u64) -> u64 {
    let chunk = chunk & 0x7f7f_7f7f_7f7f_7f7f;
    let chunk = chunk & 0x007f_007f_007f_007f | (chunk & 0x7f00_7f00_7f00_7f00) >> 1;
    let chunk = chunk & 0x0000_3fff_0000_3fff | (chunk & 0x3fff_0000_3fff_0000) >> 2;
    chunk & 0x0000_0000_0fff_ffff | (chunk & 0x0fff_ffff_0000_0000) >> 4
}

/// Continues from a `value` that already has the bits below `shift`.
#[cold]
fn read_bytewise(bytes: &[u8], at: &mut usize, mut value: u64, shift: u32) -> Option<u64> {
    for shift in (shift..70).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        // The tenth byte may carry only one bit.
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
        fn a_written_integer_is_read_back(value in any::<u64>()) {
            let mut bytes = Vec::new();
            write(value, &mut bytes);
            let mut at = 0;
            prop_assert_eq!(read(&bytes, &mut at), Some(value));
            prop_assert_eq!(at, bytes.len());
        }

        #[test]
        fn a_signed_number_is_read_as_others_write_it(value in any::<i64>()) {
            let mut bytes = Vec::new();
            prost::encoding::sint64::encode_packed(1, &[value], &mut bytes);
            // After the field's tag and length, one byte each.
            let mut at = 2;
            prop_assert_eq!(read_signed(&bytes, &mut at), Some(value));
            prop_assert_eq!(at, bytes.len());
        }

        /// Over-long forms, bytes cut off, and more than 64 bits are among the cases.
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
