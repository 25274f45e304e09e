//! Decompression of a batch's records, into a bounded buffer.
//!
//! Only ever to look inside: batches are stored and served as they were compressed. Compressed bytes come from
//! producers, so a few of them may claim to be gigabytes; whatever exceeds `limit` is refused, not allocated.

use super::{BatchError, Codec};
use std::io::Read;

/// The most that one batch's records may come to when they are decompressed, wherever no smaller limit is at hand.
pub const DECOMPRESSED_BYTES_MAX: usize = 128 << 20;

/// How snappy-java begins its stream: a magic, then a version and the oldest version that can read it.
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_BYTES: usize = 16;

/// The largest window a zstd frame may ask for, as a power of two: what the highest compression level uses, and the
/// most that zstd's own command line accepts.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Decompresses `body` into at most `limit` bytes.
pub fn decompress(codec: Codec, body: &[u8], limit: usize) -> Result<Vec<u8>, BatchError> {
    match codec {
        Codec::None => Ok(body.to_vec()),
        Codec::Gzip => read_bounded(flate2::read::MultiGzDecoder::new(body), limit),
        Codec::Snappy => snappy(body, limit),
        Codec::Lz4 => read_bounded(lz4_flex::frame::FrameDecoder::new(body), limit),
        Codec::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(|_| BROKEN)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|_| BROKEN)?;
            read_bounded(decoder, limit)
        }
    }
}

const BROKEN: BatchError = BatchError::invalid("the compressed records can't be decompressed");
const TOO_LONG: BatchError = BatchError::invalid("the decompressed records exceed the limit");

fn read_bounded(decoder: impl Read, limit: usize) -> Result<Vec<u8>, BatchError> {
    let mut out = Vec::new();
    // One byte more than allowed tells "exactly the limit" from "beyond it".
    decoder.take(limit as u64 + 1).read_to_end(&mut out).map_err(|_| BROKEN)?;
    if out.len() > limit { Err(TOO_LONG) } else { Ok(out) }
}

/// Snappy has no stream of its own: Java's clients use xerial's blocks, others send one raw block.
fn snappy(body: &[u8], limit: usize) -> Result<Vec<u8>, BatchError> {
    let mut out = Vec::new();
    if !body.starts_with(XERIAL_MAGIC) {
        snappy_block(body, limit, &mut out)?;
        return Ok(out);
    }
    let mut rest = body.get(XERIAL_HEADER_BYTES..).ok_or(BROKEN)?;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>().ok_or(BROKEN)?;
        let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| BROKEN)?;
        snappy_block(after.get(..length).ok_or(BROKEN)?, limit, &mut out)?;
        rest = &after[length..];
    }
    Ok(out)
}

fn snappy_block(block: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
    let length = snap::raw::decompress_len(block).map_err(|_| BROKEN)?;
    let from = out.len();
    if length > limit - from {
        return Err(TOO_LONG);
    }
    // The length is a claim; three bytes yield at most 64, so a small block can't be a large allocation.
    if length > block.len() * 32 {
        return Err(BROKEN);
    }
    out.resize(from + length, 0);
    let written = snap::raw::Decoder::new().decompress(block, &mut out[from..]).map_err(|_| BROKEN)?;
    out.truncate(from + written);
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Write;

    fn xerial(plain: &[u8]) -> Vec<u8> {
        let mut framed = [XERIAL_MAGIC, &1i32.to_be_bytes(), &1i32.to_be_bytes()].concat();
        for block in plain.chunks(1_000) {
            let compressed = snap::raw::Encoder::new().compress_vec(block).unwrap();
            framed.extend((compressed.len() as i32).to_be_bytes());
            framed.extend(compressed);
        }
        framed
    }

    /// `plain`, in every form that clients send.
    pub fn compressed(plain: &[u8]) -> Vec<(Codec, Vec<u8>)> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(plain).unwrap();
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(plain).unwrap();
        vec![
            (Codec::Gzip, gzip.finish().unwrap()),
            (Codec::Snappy, xerial(plain)),
            (Codec::Snappy, snap::raw::Encoder::new().compress_vec(plain).unwrap()),
            (Codec::Lz4, lz4.finish().unwrap()),
            (Codec::Zstd, zstd::encode_all(plain, 3).unwrap()),
        ]
    }

    #[test]
    fn every_codec_gives_back_what_went_in_and_no_more_than_the_limit() {
        let plain: Vec<u8> = (0..100_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for (codec, body) in compressed(&plain) {
            assert_eq!(decompress(codec, &body, plain.len()).unwrap(), plain, "{codec:?}");
            assert_eq!(decompress(codec, &body, plain.len() - 1), Err(TOO_LONG), "{codec:?}");
        }
    }

    #[test]
    fn cut_and_flipped_bytes_are_errors_or_bounded_output_never_a_panic() {
        let plain = b"the same words again and again, the same words again and again".repeat(20);
        for (codec, body) in compressed(&plain) {
            for end in 0..body.len() {
                if let Ok(out) = decompress(codec, &body[..end], 10_000) {
                    assert!(out.len() < 10_000, "{codec:?} cut at {end}");
                }
            }
            for at in 0..body.len() {
                let mut flipped = body.clone();
                flipped[at] ^= 1 << (at % 8);
                if let Ok(out) = decompress(codec, &flipped, 10_000) {
                    assert!(out.len() <= 10_000, "{codec:?} flipped at {at}");
                }
            }
        }
    }
}
