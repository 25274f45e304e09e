//! An answer as a list of chunks, sent with vectored I/O: what was written for it, and between that stored batches,
//! uncopied.

use super::guard::Hostile;
use crate::broker::Reservation;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, ResponseHeader};
use kafka_protocol::protocol::{Encodable, HeaderVersion, Request};
use std::collections::VecDeque;
use std::io::IoSlice;

/// What a request's sender gets.
#[derive(Debug)]
pub enum Reply {
    /// These bytes, length prefix included.
    Send(Chunks),
    /// Nothing: a produce with acks=0.
    Silence,
    /// The end of the connection. A produce with acks=0 has no other way to learn that it failed, and a client that
    /// does not learn it would go on sending to a node that no longer leads.
    Close,
}

/// Bytes in several pieces.
#[derive(Debug, Default)]
pub struct Chunks {
    /// The pieces in order; none is empty.
    pieces: VecDeque<Bytes>,
    /// Their length together.
    length: usize,
    /// Shares of the node's memory that the pieces occupy, given back with them.
    held: Vec<Reservation>,
}

impl Chunks {
    /// Keeps a reservation for as long as these bytes live.
    pub fn hold(&mut self, reservation: Option<Reservation>) {
        self.held.extend(reservation);
    }

    /// Gives everything back once all has been sent.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Appends a piece.
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.length += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// Appends all pieces of another list.
    pub fn append(&mut self, other: Self) {
        self.length += other.length;
        self.pieces.extend(other.pieces);
        self.held.extend(other.held);
    }
}

impl Buf for Chunks {
    fn remaining(&self) -> usize {
        self.length
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.length, "advanced past the end");
        self.length -= count;
        while count > 0 {
            let front = self.pieces.front_mut().expect("the length counts the pieces");
            if front.len() > count {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.pieces.pop_front();
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = slices.iter_mut().zip(&self.pieces).map(|(slice, piece)| *slice = IoSlice::new(piece));
        filled.count()
    }
}

/// Builds an answer from small fields and large slices.
#[derive(Debug)]
pub struct ReplyWriter {
    /// Fields written since the last slice.
    fields: BytesMut,
    /// What came before them.
    chunks: Chunks,
}

/// A slice below this many bytes is cheaper to copy than to send on its own.
const COPY_BELOW_BYTES: usize = 256;

impl ReplyWriter {
    /// An answer to the request of this correlation id; `header_version` 1 has tagged fields, 0 has none.
    #[must_use]
    pub fn new(correlation_id: i32, header_version: i16) -> Self {
        let mut fields = BytesMut::with_capacity(256);
        fields.put_i32(0); // the length, known at the end
        fields.put_i32(correlation_id);
        if header_version >= 1 {
            fields.put_u8(0);
        }
        Self { fields, chunks: Chunks::default() }
    }

    /// Where fields are written.
    pub const fn fields(&mut self) -> &mut BytesMut {
        &mut self.fields
    }

    /// Appends a slice without copying it, unless it is small.
    pub fn slice(&mut self, slice: Bytes) {
        if slice.len() < COPY_BELOW_BYTES {
            self.fields.put_slice(&slice);
        } else {
            self.chunks.push(self.fields.split().freeze());
            self.chunks.push(slice);
        }
    }

    /// The whole answer. Fails if it is longer than Kafka's frames can say.
    pub fn finish(mut self) -> Result<Chunks, Hostile> {
        self.chunks.push(self.fields.freeze());
        let length = i32::try_from(self.chunks.length - 4).map_err(|_| Hostile::TooMany)?;
        let first = self.chunks.pieces.front_mut().expect("an answer begins with its length");
        let mut head = BytesMut::from(std::mem::take(first));
        head[..4].copy_from_slice(&length.to_be_bytes());
        *first = head.freeze();
        Ok(self.chunks)
    }
}

/// Encodes the answer to one request of the type `R`.
pub fn encode<R: Request>(correlation_id: i32, version: i16, response: &R::Response) -> Result<Chunks, Hostile> {
    let header_version = R::Response::header_version(version);
    let body = response.compute_size(version).expect("an answer holds only what its version has");
    let header = ResponseHeader::default().with_correlation_id(correlation_id);
    let mut bytes = BytesMut::with_capacity(9 + body);
    bytes.put_i32(0);
    header.encode(&mut bytes, header_version).expect("a response header of a known version");
    response.encode(&mut bytes, version).expect("an answer holds only what its version has");
    let length = i32::try_from(bytes.len() - 4).map_err(|_| Hostile::TooMany)?;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    let mut chunks = Chunks::default();
    chunks.push(bytes.freeze());
    Ok(chunks)
}

/// The answer to an ApiVersions request newer than any served: version 0's body, whose one entry says what is served
/// (KIP-511). Every client retries with that.
#[must_use]
pub fn unsupported_api_versions(correlation_id: i32, served: (i16, i16)) -> Chunks {
    let mut bytes = BytesMut::with_capacity(20);
    bytes.put_i32(16);
    bytes.put_i32(correlation_id);
    bytes.put_i16(kafka_protocol::error::ResponseError::UnsupportedVersion.code());
    bytes.put_i32(1);
    bytes.put_i16(ApiKey::ApiVersions as i16);
    bytes.put_i16(served.0);
    bytes.put_i16(served.1);
    let mut chunks = Chunks::default();
    chunks.push(bytes.freeze());
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_slices_are_sent_as_they_are() {
        let stored = Bytes::from(vec![7; 1000]);
        let mut writer = ReplyWriter::new(5, 1);
        writer.fields().put_i16(9);
        writer.slice(stored.clone());
        writer.slice(Bytes::from_static(b"small"));
        let mut chunks = writer.finish().expect("short");
        assert_eq!(chunks.pieces[1].as_ptr(), stored.as_ptr(), "not a copy");
        let mut expected = vec![0, 0, 3, 244, 0, 0, 0, 5, 0, 0, 9];
        expected.extend_from_slice(&stored);
        expected.extend_from_slice(b"small");
        assert_eq!(chunks.copy_to_bytes(chunks.remaining()), expected);
    }

    #[test]
    fn advancing_crosses_pieces() {
        let mut chunks = Chunks::default();
        for piece in ["ab", "", "cde", "f"] {
            chunks.push(Bytes::from(piece));
        }
        chunks.advance(3);
        assert_eq!((chunks.remaining(), chunks.chunk()), (3, &b"de"[..]));
        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(chunks.chunks_vectored(&mut slices), 2);
        chunks.advance(3);
        assert!(!chunks.has_remaining());
    }

    #[test]
    fn the_answer_to_a_newer_api_versions_request_as_kafka_4_1_gives_it() {
        let mut chunks = unsupported_api_versions(7, (0, 4));
        let bytes = chunks.copy_to_bytes(chunks.remaining());
        assert_eq!(bytes[4..], [0, 0, 0, 7, 0, 0x23, 0, 0, 0, 1, 0, 0x12, 0, 0, 0, 4]);
        assert_eq!(bytes[..4], [0, 0, 0, 16]);
    }
}
