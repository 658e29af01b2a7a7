//! Compression, whole or from parts that are compressed by themselves.
//!
//! In a list of a thousand guests a handful change each second. Each guest's part is compressed for itself, up to a point
//! from which another can follow (a full flush, RFC 1951), and the list is put together from such parts.

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// Quick rather than small: it is for the administrators' network.
const LEVEL: Compression = Compression::fast();

/// The beginning of a gzip file (RFC 1952): deflate, no name, no time, unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// An empty last block.
const END: [u8; 2] = [3, 0];

/// A piece of a text, compressed so that others can stand before and behind it.
#[derive(Debug)]
pub(crate) struct Part {
    compressed: Vec<u8>,
    sum: Crc,
}

impl Part {
    pub(crate) fn new(text: &[u8]) -> Part {
        let mut sum = Crc::new();
        sum.update(text);
        Part {
            compressed: deflate(text),
            sum,
        }
    }

    /// How many bytes it takes.
    pub(crate) fn len(&self) -> usize {
        self.compressed.len()
    }
}

/// The text of these parts, one after another.
pub(crate) fn join<'a>(parts: impl Iterator<Item = &'a Part> + Clone) -> Vec<u8> {
    let length: usize = parts.clone().map(Part::len).sum();
    let mut file = Vec::with_capacity(length + HEADER.len() + END.len() + 8);
    file.extend_from_slice(&HEADER);
    let mut sum = Crc::new();
    for part in parts {
        file.extend_from_slice(&part.compressed);
        sum.combine(&part.sum);
    }
    file.extend_from_slice(&END);
    file.extend_from_slice(&sum.sum().to_le_bytes());
    file.extend_from_slice(&sum.amount().to_le_bytes());
    file
}

/// A text compressed as one.
pub(crate) fn whole(text: &[u8]) -> Vec<u8> {
    join([Part::new(text)].iter())
}

/// Blocks of which none is the last, ending at a byte's border.
fn deflate(text: &[u8]) -> Vec<u8> {
    let mut compress = Compress::new(LEVEL, false);
    let mut out = Vec::with_capacity(text.len() / 3 + 64);
    let mut rest = text;
    loop {
        let before = compress.total_in();
        let status = compress.compress_vec(rest, &mut out, FlushCompress::Full);
        let taken = usize::try_from(compress.total_in() - before).unwrap_or(rest.len());
        rest = rest.get(taken..).unwrap_or_default();
        // The flush is done when there is room left behind it.
        match status {
            Ok(Status::Ok | Status::BufError) if rest.is_empty() && out.len() < out.capacity() => break,
            Ok(Status::Ok | Status::BufError) => out.reserve(out.capacity().max(64)),
            Ok(Status::StreamEnd) | Err(_) => break,
        }
    }
    out.shrink_to_fit();
    out
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn inflate(file: &[u8]) -> String {
        let mut text = String::new();
        // Refuses a wrong sum or length, and what is behind the end.
        let mut decoder = flate2::read::GzDecoder::new(file);
        decoder.read_to_string(&mut text).unwrap();
        assert!(decoder.into_inner().is_empty());
        text
    }

    #[test]
    fn parts_make_one_text_in_any_order() {
        let long: String = (0..50_000).map(|number| format!("{number} ")).collect();
        let noise: String = (0..20_000_u32)
            .map(|number| char::from(33 + u8::try_from(number.wrapping_mul(2_654_435_761) >> 26).unwrap()))
            .collect();
        let texts = ["", ",", "[{\"a\": 1}", &long, &noise, "]"];
        let parts: Vec<Part> = texts.iter().map(|text| Part::new(text.as_bytes())).collect();
        assert_eq!(inflate(&join(parts.iter())), texts.concat());
        let turned: String = texts.iter().rev().copied().collect();
        assert_eq!(inflate(&join(parts.iter().rev())), turned);
        assert_eq!(inflate(&join([].iter())), "");
        assert_eq!(inflate(&whole(long.as_bytes())), long);
    }
}
