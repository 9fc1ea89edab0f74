//! The tokens of one JSON text (RFC 8259), strict but for raw control characters in strings.
//!
//! No recursion: nesting costs heap, never stack, and is bounded by the caller.

use memchr::memchr2;

/// Why a text is no JSON, or too deep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// What was due at which byte.
    Syntax {
        /// What was due.
        expected: &'static str,
        /// Byte of the text, from 0.
        at: usize,
    },
    /// Nested deeper than the limit.
    TooDeep,
}

/// A string as it stands between its quotes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawString<'a> {
    /// Without the quotes.
    pub(crate) text: &'a str,
    /// True if it holds escapes.
    pub(crate) escaped: bool,
    /// Byte after the opening quote.
    pub(crate) at: usize,
}

/// A number as it stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawNumber<'a> {
    /// Its characters.
    pub(crate) text: &'a str,
    /// The value, where it is written as a plain integer of at most 18 digits.
    pub(crate) integer: Option<i64>,
}

/// A place in a text.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Goes back to where it was before.
    pub(crate) fn back_to(&mut self, at: usize) {
        self.at = at;
    }

    /// What was read since `from`.
    pub(crate) fn since(&self, from: usize) -> &'a str {
        &self.text[from..self.at]
    }

    pub(crate) fn broken<T>(&self, expected: &'static str) -> Result<T, Broken> {
        Err(Broken::Syntax { expected, at: self.at })
    }

    #[inline]
    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    pub(crate) fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// Reads one byte if it is `byte`, which is ASCII.
    #[inline]
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Reads `token`, which is ASCII, if it is next.
    #[inline]
    pub(crate) fn take_all(&mut self, token: &[u8]) -> bool {
        let found = self.text.as_bytes().get(self.at..).is_some_and(|rest| rest.starts_with(token));
        self.at += if found { token.len() } else { 0 };
        found
    }

    /// True if nothing is left.
    pub(crate) fn is_done(&self) -> bool {
        self.at >= self.text.len()
    }

    /// A string; the cursor stands before its quote.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<RawString<'a>, Broken> {
        if !self.take(b'"') {
            return self.broken("a string");
        }
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut escaped = false;
        let mut from = start;
        while let Some(found) = bytes.get(from..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
            let stop = from + found;
            if bytes[stop] == b'"' {
                self.at = stop + 1;
                return Ok(RawString { text: &self.text[start..stop], escaped, at: start });
            }
            escaped = true;
            from = stop + 2;
        }
        self.at = self.text.len();
        self.broken("the end of a string")
    }

    /// A number; the cursor stands before its first character.
    #[inline]
    pub(crate) fn number(&mut self) -> Result<RawNumber<'a>, Broken> {
        let start = self.at;
        let negative = self.take(b'-');
        let first_digit = self.at;
        let mut value = 0_i64;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            value = value.wrapping_mul(10).wrapping_add(i64::from(digit - b'0'));
            self.at += 1;
        }
        let digits = self.at - first_digit;
        let leading_zero = digits > 1 && self.text.as_bytes()[first_digit] == b'0';
        if digits == 0 || leading_zero {
            return self.broken("a number without leading zeros");
        }
        let mut integer = (digits <= 18).then_some(if negative { value.wrapping_neg() } else { value });
        if matches!(self.peek(), Some(b'.' | b'e' | b'E')) {
            self.fraction_and_exponent()?;
            integer = None;
        }
        Ok(RawNumber { text: &self.text[start..self.at], integer })
    }

    fn fraction_and_exponent(&mut self) -> Result<(), Broken> {
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _signed = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Broken> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { self.broken("a digit") } else { Ok(()) }
    }

    /// Reads one value of any kind that stands `depth` levels deep.
    pub(crate) fn skip_value(&mut self, depth: usize, depth_max: usize) -> Result<(), Broken> {
        let mut open: Vec<u8> = Vec::new();
        loop {
            self.space();
            match self.peek() {
                Some(bracket @ (b'{' | b'[')) => {
                    if depth + open.len() >= depth_max {
                        return Err(Broken::TooDeep);
                    }
                    self.at += 1;
                    open.push(bracket);
                    self.space();
                    let empty = self.take(if bracket == b'{' { b'}' } else { b']' });
                    if !empty {
                        self.key_if_in_object(bracket)?;
                        continue;
                    }
                    open.pop();
                }
                _ => self.skip_scalar()?,
            }
            if self.close(&mut open)? {
                return Ok(());
            }
        }
    }

    fn skip_scalar(&mut self) -> Result<(), Broken> {
        match self.peek() {
            Some(b'"') => self.string().and_then(|string| super::value::check_escapes(&string)),
            Some(b'-' | b'0'..=b'9') => self.number().map(|_| ()),
            _ if self.take_all(b"true") || self.take_all(b"false") || self.take_all(b"null") => Ok(()),
            _ => self.broken("a value"),
        }
    }

    /// After a value: closes what ends here. True when nothing is open any more.
    fn close(&mut self, open: &mut Vec<u8>) -> Result<bool, Broken> {
        while let Some(&bracket) = open.last() {
            self.space();
            if self.take(b',') {
                self.space();
                self.key_if_in_object(bracket)?;
                return Ok(false);
            }
            if !self.take(if bracket == b'{' { b'}' } else { b']' }) {
                return self.broken(if bracket == b'{' { "\",\" or \"}\"" } else { "\",\" or \"]\"" });
            }
            open.pop();
        }
        Ok(true)
    }

    fn key_if_in_object(&mut self, bracket: u8) -> Result<(), Broken> {
        if bracket == b'{' {
            let key = self.string()?;
            super::value::check_escapes(&key)?;
            self.colon()?;
        }
        Ok(())
    }

    /// The colon after a key, with the space around it.
    #[inline]
    pub(crate) fn colon(&mut self) -> Result<(), Broken> {
        self.space();
        if !self.take(b':') {
            return self.broken("\":\"");
        }
        self.space();
        Ok(())
    }
}
