//! A request's body: inflated within its bound, split into records.

use std::io::Read;
use std::ops::Range;

use bytes::Bytes;
use memchr::{memchr_iter, memchr2};
use schemas::limits::RECORDS_MAX;
use schemas::{Code, Problem};

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// Not at all.
    #[default]
    Identity,
    /// RFC 1952, one or more members.
    Gzip,
    /// RFC 8878, one or more frames.
    Zstd,
}

/// How the records of a body are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One JSON object a line; blank lines do not count.
    #[default]
    Ndjson,
    /// An array of objects, one object over any number of lines, or NDJSON: the text says which.
    Json,
}

/// The body as it was before it was compressed.
///
/// # Errors
/// `payload_too_large` past `bytes_max`; `bad_request` if it cannot be inflated.
pub fn inflate(body: Bytes, encoding: Encoding, bytes_max: usize) -> Result<Bytes, Problem> {
    if body.len() > bytes_max {
        return Err(too_large(bytes_max));
    }
    match encoding {
        Encoding::Identity => Ok(body),
        Encoding::Gzip => read_bounded(flate2::bufread::MultiGzDecoder::new(&body[..]), body.len(), bytes_max),
        Encoding::Zstd => {
            let mut reader = zstd::stream::read::Decoder::with_buffer(&body[..]).map_err(|e| cannot_inflate(&e))?;
            // a frame of a few bytes may ask for a window of any size
            reader.window_log_max(window_log(bytes_max)).map_err(|e| cannot_inflate(&e))?;
            read_bounded(reader, body.len(), bytes_max)
        }
    }
}

/// The smallest window, as a power of two, that a whole body fits in.
fn window_log(bytes_max: usize) -> u32 {
    const SMALLEST: u32 = 20;
    const LARGEST: u32 = 27;
    bytes_max.next_power_of_two().ilog2().clamp(SMALLEST, LARGEST)
}

fn read_bounded(reader: impl Read, compressed_bytes: usize, bytes_max: usize) -> Result<Bytes, Problem> {
    let mut plain = Vec::with_capacity(compressed_bytes.saturating_mul(4).min(bytes_max));
    reader.take(bytes_max as u64 + 1).read_to_end(&mut plain).map_err(|error| cannot_inflate(&error))?;
    if plain.len() > bytes_max {
        return Err(too_large(bytes_max));
    }
    Ok(plain.into())
}

fn cannot_inflate(error: &std::io::Error) -> Problem {
    Problem::new(Code::BadRequest, format!("body: cannot be decompressed: {error}"))
}

/// The answer to a body past its limit.
pub(crate) fn too_large(bytes_max: usize) -> Problem {
    Problem::new(Code::PayloadTooLarge, format!("body: more than {bytes_max} bytes after decompression"))
        .with_hint("send the events in several requests")
}

/// Where each record stands in `payload`, in order.
///
/// # Errors
/// `payload_too_large` past [`RECORDS_MAX`] records; `bad_request` for an array that has no end or
/// whose elements cannot be told apart.
pub fn split(payload: &[u8], format: Format) -> Result<Vec<Range<usize>>, Problem> {
    let start = skip_space(payload, 0);
    let records = match (format, payload.get(start)) {
        (Format::Json, Some(b'[')) => split_array(payload, start + 1)?,
        (Format::Json, Some(b'{')) if !first_line_is_whole(payload, start) => {
            let whole = start..trim_end(payload, start);
            vec![whole]
        }
        _ => split_lines(payload),
    };
    if records.len() > RECORDS_MAX {
        return Err(Problem::new(Code::PayloadTooLarge, format!("body: more than {RECORDS_MAX} records"))
            .with_hint("send the events in several requests"));
    }
    Ok(records)
}

fn split_lines(payload: &[u8]) -> Vec<Range<usize>> {
    let mut records = Vec::new();
    let mut start = 0;
    for end in memchr_iter(b'\n', payload).chain([payload.len()]) {
        let from = start + payload[start..end].iter().take_while(|b| b.is_ascii_whitespace()).count();
        if from < end {
            records.push(from..trim_end(&payload[..end], from));
        }
        start = end + 1;
        if records.len() > RECORDS_MAX || start > payload.len() {
            break;
        }
    }
    records
}

/// True if the brackets of the first line balance: then the text is NDJSON, else one object.
fn first_line_is_whole(payload: &[u8], start: usize) -> bool {
    balance(payload[start..].split(|b| *b == b'\n').next().unwrap_or_default()) == 0
}

/// Opening less closing brackets outside of strings.
fn balance(text: &[u8]) -> i64 {
    let mut depth = 0;
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b'"' => match string_end(text, at) {
                Some(end) => at = end - 1,
                None => break,
            },
            _ => {}
        }
        at += 1;
    }
    depth
}

/// The elements of an array whose bracket ends before `at`.
fn split_array(payload: &[u8], at: usize) -> Result<Vec<Range<usize>>, Problem> {
    let unreadable =
        |what: &str, at: usize| Problem::new(Code::BadRequest, format!("body: JSON array: {what} at byte {at}"));
    let mut records = Vec::new();
    let mut start = skip_space(payload, at);
    if payload.get(start) == Some(&b']') {
        return end_of_array(payload, start, records);
    }
    loop {
        let end = element_end(payload, start).ok_or_else(|| unreadable("no end of the element", start))?;
        let trimmed = trim_end(&payload[..end], start);
        if trimmed == start {
            return Err(unreadable("expected a value", start));
        }
        records.push(start..trimmed);
        if payload[end] == b']' || records.len() > RECORDS_MAX {
            return end_of_array(payload, end, records);
        }
        start = skip_space(payload, end + 1);
    }
}

fn end_of_array(payload: &[u8], end: usize, records: Vec<Range<usize>>) -> Result<Vec<Range<usize>>, Problem> {
    let rest = skip_space(payload, end + 1);
    if rest < payload.len() && records.len() <= RECORDS_MAX {
        return Err(Problem::new(Code::BadRequest, format!("body: JSON array: something follows it at byte {rest}")));
    }
    Ok(records)
}

/// The comma or the bracket that ends the element at `start`.
fn element_end(text: &[u8], start: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = start;
    loop {
        match text.get(at)? {
            b'{' | b'[' => depth += 1,
            b',' | b']' if depth == 0 => return Some(at),
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b'"' => at = string_end(text, at)? - 1,
            _ => {}
        }
        at += 1;
    }
}

/// First byte beyond the string whose quote is at `quote`.
fn string_end(text: &[u8], quote: usize) -> Option<usize> {
    let mut at = quote + 1;
    loop {
        let stop = at + memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[stop] == b'"' {
            return Some(stop + 1);
        }
        at = stop + 2;
    }
}

fn skip_space(text: &[u8], at: usize) -> usize {
    at + text.get(at..).unwrap_or_default().iter().take_while(|b| b.is_ascii_whitespace()).count()
}

fn trim_end(text: &[u8], start: usize) -> usize {
    start + text[start..].trim_ascii_end().len()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rstest::rstest;

    use super::*;

    fn parts(payload: &str, format: Format) -> Vec<&str> {
        split(payload.as_bytes(), format).unwrap().into_iter().map(|range| &payload[range]).collect()
    }

    #[rstest]
    #[case("", &[])]
    #[case("\n \r\n\n", &[])]
    #[case("{}\n{}", &["{}", "{}"])]
    #[case(" {}\r\n\t\r\n{} \n", &["{}", "{}"])]
    #[case("[{}]\n", &["[{}]"])]
    fn lines_are_records(#[case] payload: &str, #[case] expected: &[&str]) {
        assert_eq!(parts(payload, Format::Ndjson), expected);
    }

    #[rstest]
    #[case::array(r#" [ {"a":"],{\"" } , 7,[1,2] ] "#, &[r#"{"a":"],{\"" }"#, "7", "[1,2]"])]
    #[case::empty_array("[ ]", &[])]
    #[case::empty("", &[])]
    #[case::object("{\"a\":1}", &["{\"a\":1}"])]
    #[case::pretty_object("{\n \"a\": [\n1]\n}\n", &["{\n \"a\": [\n1]\n}"])]
    #[case::lines("{\"a\":\"{\"}\n{\"a\":2}\n", &["{\"a\":\"{\"}", "{\"a\":2}"])]
    fn json_is_told_apart(#[case] payload: &str, #[case] expected: &[&str]) {
        assert_eq!(parts(payload, Format::Json), expected);
    }

    #[rstest]
    #[case("[")]
    #[case("[{}")]
    #[case("[{},")]
    #[case("[{},]")]
    #[case("[,{}]")]
    #[case("[{}]]")]
    #[case("[{}] {}")]
    #[case("[{\"a\":\"]")]
    #[case("[}]")]
    fn an_array_without_shape_is_a_bad_request(#[case] payload: &str) {
        assert_eq!(split(payload.as_bytes(), Format::Json).unwrap_err().code, Code::BadRequest);
    }

    #[test]
    fn too_many_records_are_too_large() {
        for (payload, format) in [
            ("1\n".repeat(RECORDS_MAX + 1), Format::Ndjson),
            (format!("[1{}]", ",1".repeat(RECORDS_MAX)), Format::Json),
        ] {
            assert_eq!(split(payload.as_bytes(), format).unwrap_err().code, Code::PayloadTooLarge);
        }
    }

    fn gzip(bytes: &[u8]) -> Bytes {
        let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap().into()
    }

    #[test]
    fn compressed_bodies_are_inflated_within_the_limit() {
        let plain = vec![b'x'; 10_000];
        let zstd: Bytes = zstd::encode_all(&plain[..], 1).unwrap().into();
        for (body, encoding) in
            [(gzip(&plain), Encoding::Gzip), (zstd, Encoding::Zstd), (plain.clone().into(), Encoding::Identity)]
        {
            assert_eq!(inflate(body.clone(), encoding, 10_000).unwrap(), plain);
            assert_eq!(inflate(body, encoding, 9_999).unwrap_err().code, Code::PayloadTooLarge, "{encoding:?}");
        }
        let two_members: Bytes = [gzip(b"a"), gzip(b"b")].concat().into();
        assert_eq!(inflate(two_members, Encoding::Gzip, 1_000).unwrap(), "ab");
        for (body, encoding) in
            [(&b"nonsense"[..], Encoding::Gzip), (b"nonsense", Encoding::Zstd), (&gzip(&plain)[..20], Encoding::Gzip)]
        {
            assert_eq!(inflate(Bytes::copy_from_slice(body), encoding, 10_000).unwrap_err().code, Code::BadRequest);
        }
    }
}
