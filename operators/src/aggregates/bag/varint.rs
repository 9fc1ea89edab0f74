//! LEB128: seven bits a byte, lowest first, the top bit says that more follow. The shortest form only.

/// Appends a number.
pub(crate) fn write(mut value: u128, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a number from the front; None if it is damaged.
pub(crate) fn read(bytes: &mut &[u8]) -> Option<u128> {
    let mut value = 0_u128;
    for (index, byte) in bytes.iter().enumerate().take(19) {
        let part = u128::from(byte & 0x7f);
        let shift = 7 * index as u32;
        if part.checked_shl(shift)? >> shift != part {
            return None;
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            *bytes = &bytes[index + 1..];
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive() {
        for value in [0, 1, 127, 128, 300, u128::from(u64::MAX), u128::MAX, u128::MAX - 1, 1 << 127] {
            let mut bytes = vec![];
            write(value, &mut bytes);
            bytes.push(7);
            let mut rest = bytes.as_slice();
            assert_eq!((read(&mut rest), rest), (Some(value), &[7][..]));
        }
        assert_eq!(read(&mut &[0x80_u8, 0x80][..]), None, "cut off");
        assert_eq!(read(&mut &[0xff_u8; 19][..]), None, "too large");
    }
}
