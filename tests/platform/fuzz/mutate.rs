//! Neighbours of an input: bits, pieces, numbers, words, nesting; of a JSON text: its nodes.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value};

/// Numbers as texts, where limits and special cases are.
const NUMBERS: &[&str] = &[
    "0",
    "-0",
    "1",
    "-1",
    "1.5",
    "127",
    "255",
    "65536",
    "2147483648",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1152921504606846976",
    "170141183460469231731687303715884105728",
    "1e999999999",
    "1e-999999999",
    "1e308",
    "123456789012345678901234567890123456789012345678901234567890",
    "0.000000000000000000000000000000000000000000000000000000000001",
];
/// Numbers in bytes.
const INTEGERS: &[u64] =
    &[0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 60, i64::MAX as u64, u64::MAX];
/// Characters that texts are made of or broken by.
const CHARACTERS: &[&str] = &[
    "\"", "'", "\\", "{", "}", "[", "]", "(", ")", ",", ":", ";", ".", "%", "\n", "\r", "\0", "\u{7f}", "é", "😀",
    "\u{feff}", "\u{202e}",
];
/// Brackets that may stand in one another.
const BRACKETS: &[(&str, &str)] = &[("[", "]"), ("{\"a\":", "}"), ("(", ")"), ("((", "))"), ("not.", "")];

/// Makes neighbours by a seeded chance.
pub(super) struct Mutator<'a> {
    rng: &'a mut ChaCha8Rng,
}

impl<'a> Mutator<'a> {
    pub(super) fn new(rng: &'a mut ChaCha8Rng) -> Self {
        Self { rng }
    }

    /// How many more mutations to put on top of one.
    pub(super) fn more(&mut self) -> u32 {
        let halvings: u32 = self.rng.random::<u32>() & 0xff;
        halvings.trailing_ones()
    }

    /// True once in so many times.
    pub(super) fn one_in(&mut self, times: u32) -> bool {
        self.rng.random_range(0..times) == 0
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        self.rng.random_range(0..end.max(1))
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn range(&mut self, length: usize, longest: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let end = (start + self.below(longest) + 1).min(length);
        start.min(end)..end
    }

    /// A neighbour of any bytes; `words` are of their language.
    pub(super) fn bytes(&mut self, input: &[u8], other: &[u8], words: &[&str]) -> Vec<u8> {
        let mut bytes = input.to_vec();
        match self.below(18) {
            0 | 1 => self.flip(&mut bytes),
            2 => {
                let (at, byte) = (self.below(bytes.len()), self.rng.random());
                put(&mut bytes, at..at, [byte]);
            }
            3 => {
                let cut = self.range(bytes.len(), 16);
                drop(bytes.drain(cut));
            }
            4 => {
                let cut = self.range(bytes.len(), bytes.len());
                drop(bytes.drain(cut));
            }
            5 => {
                let piece = self.range(bytes.len(), 64);
                let (piece, at) = (bytes[piece].to_vec(), self.below(bytes.len() + 1));
                put(&mut bytes, at..at, piece);
            }
            6 | 7 => {
                let (from, to) = (self.range(other.len(), 200), self.range(bytes.len(), 40));
                put(&mut bytes, to, other[from].to_vec());
            }
            8 => self.integer(&mut bytes),
            9 | 10 => self.number(&mut bytes),
            11 | 12 if !words.is_empty() => self.word(&mut bytes, words),
            13 => self.repeat(&mut bytes),
            14 => self.nest(&mut bytes),
            15 => {
                let at = self.below(bytes.len());
                bytes.truncate(at);
            }
            _ => {
                let (at, text) = (self.below(bytes.len() + 1), self.pick(CHARACTERS));
                put(&mut bytes, at..at, text.bytes());
            }
        }
        bytes
    }

    /// A neighbour of a text by its words: one another, one more, one less, one in the place of another.
    pub(super) fn tokens(&mut self, input: &[u8], other: &[u8], words: &[&str]) -> Vec<u8> {
        let split = |bytes: &[u8]| -> Vec<Vec<u8>> {
            bytes
                .split_inclusive(|byte| matches!(byte, b' ' | b'(' | b')' | b',' | b'\n'))
                .map(<[u8]>::to_vec)
                .collect()
        };
        let (mut tokens, others) = (split(input), split(other));
        if tokens.is_empty() {
            tokens.push(b" ".to_vec());
        }
        let at = self.below(tokens.len());
        match self.below(5) {
            0 => drop(tokens.remove(at)),
            1 => tokens.insert(at, [self.pick(words).as_bytes(), b" "].concat()),
            2 => tokens[at] = [self.pick(words).as_bytes(), b" "].concat(),
            3 if !others.is_empty() => {
                let from = self.below(others.len());
                let to = (from + 1 + self.below(6)).min(others.len());
                drop(tokens.splice(at..=at, others[from..to].to_vec()));
            }
            _ => {
                let with = self.below(tokens.len());
                tokens.swap(at, with);
            }
        }
        tokens.concat()
    }

    fn flip(&mut self, bytes: &mut [u8]) {
        if !bytes.is_empty() {
            let at = self.below(bytes.len());
            bytes[at] ^= 1 << self.below(8);
        }
    }

    /// A number in bytes, little-endian, as lengths and offsets stand in binary formats.
    fn integer(&mut self, bytes: &mut [u8]) {
        let width = self.pick(&[1, 2, 4, 8]);
        if bytes.len() >= width {
            let aligned = self.one_in(2);
            let at = self.below(bytes.len() - width + 1);
            let at = if aligned { at / width * width } else { at };
            let value = self.pick(INTEGERS).to_le_bytes();
            bytes[at..at + width].copy_from_slice(&value[..width]);
        }
    }

    /// Another number in the place of one that stands there in digits, or anywhere.
    fn number(&mut self, bytes: &mut Vec<u8>) {
        let from = self.below(bytes.len());
        let digit = |byte: &u8| byte.is_ascii_digit();
        let at = bytes[from.min(bytes.len())..].iter().position(digit).map_or(from, |next| from + next);
        let end = at + bytes[at.min(bytes.len())..].iter().take_while(|byte| digit(byte)).count();
        if self.one_in(3) {
            bytes[at.min(end)..end].fill(b'9');
            return;
        }
        let number = self.pick(NUMBERS);
        put(bytes, at.min(end)..end, number.bytes());
    }

    fn word(&mut self, bytes: &mut Vec<u8>, words: &[&str]) {
        let word = self.pick(words);
        let at = self.range(bytes.len(), 8);
        let at = if self.one_in(2) { at.start..at.start } else { at };
        put(bytes, at, word.bytes());
    }

    /// A piece so often that anything quadratic shows.
    fn repeat(&mut self, bytes: &mut Vec<u8>) {
        let piece = self.range(bytes.len(), 30);
        let at = piece.end;
        let times = self.pick(&[2, 10, 100, 1_000, 10_000]);
        let piece = bytes[piece].repeat(times);
        put(bytes, at..at, piece);
    }

    fn nest(&mut self, bytes: &mut Vec<u8>) {
        let (open, close) = self.pick(BRACKETS);
        let depth = self.pick(&[1, 8, 70, 200, 5_000]);
        let inside = self.range(bytes.len(), 20);
        put(bytes, inside.end..inside.end, close.repeat(depth).bytes());
        put(bytes, inside.start..inside.start, open.repeat(depth).bytes());
    }

    /// A neighbour of a JSON text by its nodes: another value, another kind, one less, one twice.
    pub(super) fn json(&mut self, input: &[u8], other: &[u8]) -> Option<Vec<u8>> {
        let mut document: Value = serde_json::from_slice(input).ok()?;
        let donor: Value = serde_json::from_slice(other).unwrap_or(Value::Null);
        let places = nodes(&document);
        let place = self.below(places);
        let value = self.value(&donor);
        let how = self.below(6);
        edit(&mut document, &mut { place }, &mut |node| match (how, node) {
            (0, Value::Array(items)) if !items.is_empty() => {
                items.remove(place % items.len());
            }
            (1, Value::Array(items)) if !items.is_empty() => items.push(items[place % items.len()].clone()),
            (0 | 1, Value::Object(fields)) if !fields.is_empty() => {
                let name = fields.keys().nth(place % fields.len()).cloned().unwrap_or_default();
                fields.remove(&name);
            }
            (2, Value::Object(fields)) => {
                fields.insert("another".into(), value.clone());
            }
            (_, node) => *node = value.clone(),
        });
        serde_json::to_vec(&document).ok()
    }

    fn value(&mut self, donor: &Value) -> Value {
        match self.below(9) {
            0 => Value::Null,
            1 => Value::Bool(self.one_in(2)),
            2..=4 => serde_json::from_str(self.pick(NUMBERS)).unwrap_or(Value::Null),
            5 => Value::from(self.pick(CHARACTERS).repeat(self.below(3))),
            6 => Value::Array(vec![]),
            7 => Value::Object(Map::new()),
            _ => {
                let (places, mut found) = (nodes(donor), Value::Null);
                let mut place = self.below(places);
                edit(&mut donor.clone(), &mut place, &mut |node| found = node.clone());
                found
            }
        }
    }
}

fn put(bytes: &mut Vec<u8>, place: std::ops::Range<usize>, with: impl IntoIterator<Item = u8>) {
    drop(bytes.splice(place, with));
}

fn nodes(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(nodes).sum(),
        Value::Object(fields) => fields.values().map(nodes).sum(),
        _ => 0,
    }
}

/// Calls `change` on the node with that number, counted from the root downwards.
fn edit(value: &mut Value, place: &mut usize, change: &mut dyn FnMut(&mut Value)) -> bool {
    if *place == 0 {
        change(value);
        return true;
    }
    *place -= 1;
    match value {
        Value::Array(items) => items.iter_mut().any(|item| edit(item, place, change)),
        Value::Object(fields) => fields.values_mut().any(|field| edit(field, place, change)),
        _ => false,
    }
}
