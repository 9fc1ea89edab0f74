//! The messages of PostgreSQL's protocol 3.0 that are needed here (PostgreSQL documentation, chapter "Message Formats").

/// A message that is being written: a byte that says what it is, its length, its fields.
pub(super) fn message(out: &mut Vec<u8>, kind: u8, fields: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    untagged(out, fields);
}

/// The first message has no kind.
pub(super) fn untagged(out: &mut Vec<u8>, fields: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    fields(out);
    let length = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// A text that ends with a zero byte. One within it would end it early: it is left out.
pub(super) fn text(out: &mut Vec<u8>, text: &str) {
    out.extend(text.bytes().filter(|byte| *byte != 0));
    out.push(0);
}

pub(super) fn int16(out: &mut Vec<u8>, number: usize) {
    out.extend_from_slice(&u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes());
}

/// A value, or none.
pub(super) fn value(out: &mut Vec<u8>, value: Option<&str>) {
    match value {
        None => out.extend_from_slice(&(-1_i32).to_be_bytes()),
        Some(value) => {
            out.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
            out.extend_from_slice(value.as_bytes());
        }
    }
}

/// A message that was read.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) kind: u8,
    pub(super) fields: Vec<u8>,
}

impl Message {
    /// The number at the beginning.
    pub(super) fn number(&self) -> u32 {
        self.fields.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
    }

    /// Of an error: severity, code and message.
    pub(super) fn error(&self) -> String {
        let (mut code, mut said, mut detail) = (String::new(), String::new(), String::new());
        for field in self.fields.split(|byte| *byte == 0) {
            let Some((kind, text)) = field.split_first() else { continue };
            let text = String::from_utf8_lossy(text).into_owned();
            match kind {
                b'C' => code = text,
                b'M' => said = text,
                b'D' => detail = format!(" ({text})"),
                _ => {}
            }
        }
        format!("{said}{detail} [{code}]")
    }

    /// The values of a row.
    pub(super) fn row(&self) -> Option<Vec<Option<String>>> {
        let (count, mut rest) = self.fields.split_first_chunk::<2>()?;
        let mut values = vec![];
        for _ in 0..u16::from_be_bytes(*count) {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let length = i32::from_be_bytes(*length);
            let Ok(length) = usize::try_from(length) else {
                values.push(None);
                rest = after;
                continue;
            };
            let (value, after) = after.split_at_checked(length)?;
            values.push(Some(String::from_utf8_lossy(value).into_owned()));
            rest = after;
        }
        Some(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_their_length() {
        let mut out = vec![];
        message(&mut out, b'Q', |out| text(out, "a\0b"));
        assert_eq!(out, b"Q\0\0\0\x07ab\0");
        let mut values = vec![0, 2];
        value(&mut values, Some("x"));
        value(&mut values, None);
        let row = Message { kind: b'D', fields: values };
        assert_eq!(row.row(), Some(vec![Some("x".to_owned()), None]));
        assert_eq!(Message { kind: b'D', fields: vec![0, 1, 0, 0, 0, 9, b'x'] }.row(), None);
        let error = Message { kind: b'E', fields: b"SERROR\0C42P01\0Mno table\0Dreally\0\0".to_vec() };
        assert_eq!(error.error(), "no table (really) [42P01]");
    }
}
