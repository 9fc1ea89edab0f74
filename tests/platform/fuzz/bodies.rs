//! Compressed bodies: whatever they claim, what comes out is bounded, and so is the memory on the way.
//!
//! The first byte of an input says how it is compressed, the rest is the body.

use std::io::Write;

use bytes::Bytes;
use ingest::payload::{Encoding, inflate};

use super::Target;
use super::mutate::Mutator;

/// Bytes that a body may have after decompression.
const BODY_BYTES_MAX: usize = 1 << 20;

pub(super) struct Bodies;

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn with_kind(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], body].concat()
}

impl Target for Bodies {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let text = br#"{"id":"a","at":"2024-01-01T00:00:00Z"}"#.repeat(20);
        let bomb = vec![b'x'; 64 * BODY_BYTES_MAX];
        let compressed = |plain: &[u8], level| zstd::encode_all(plain, level).unwrap();
        let two = [gzip(b"one"), gzip(b"two")].concat();
        vec![
            with_kind(b'g', &gzip(&text)),
            with_kind(b'g', &two),
            with_kind(b'z', &compressed(&text, 1)),
            with_kind(b'z', &[compressed(b"one", 1), compressed(b"two", 1)].concat()),
            // 64 MiB in a few kilobytes, and in a few hundred bytes
            with_kind(b'g', &gzip(&bomb)),
            with_kind(b'z', &compressed(&bomb, 19)),
        ]
    }

    fn mutate(&self, mutator: &mut Mutator, input: &[u8], other: &[u8]) -> Vec<u8> {
        let (Some((kind, body)), Some((_, other))) = (input.split_first(), other.split_first()) else {
            return vec![b'g'];
        };
        let kind = if mutator.one_in(50) { *b"gz-".get(mutator.below(3)).unwrap_or(&b'g') } else { *kind };
        with_kind(kind, &mutator.bytes(body, other, &[]))
    }

    fn check(&mut self, input: &[u8]) -> Result<String, String> {
        let Some((kind, body)) = input.split_first() else { return Ok("nothing".into()) };
        let encoding = match kind {
            b'g' => Encoding::Gzip,
            b'z' => Encoding::Zstd,
            _ => Encoding::Identity,
        };
        match inflate(Bytes::copy_from_slice(body), encoding, BODY_BYTES_MAX) {
            Ok(plain) if plain.len() > BODY_BYTES_MAX => Err(format!("{} bytes came out", plain.len())),
            Ok(_) => Ok("read".into()),
            Err(problem) if problem.status < 500 => Ok(problem.detail),
            Err(problem) => Err(problem.detail),
        }
    }
}
