//! Walks a request's bytes against the shape of its API and version, before the decoding crate sees them.
//!
//! kafka-protocol 0.18 allocates for as many elements as a request claims to hold, so nine hostile bytes end the
//! process (its issues #152 and #161). The walk here allocates nothing and holds these invariants:
//!
//! * a count is believed once that many elements have been walked, and all counts together are at most [`ITEMS_MAX`]:
//!   two bytes on the wire become a hundred in memory, so a large frame of empty elements must not pass either;
//! * every string, byte field and tagged field ends within the frame, and within the field it lies in;
//! * null stands only where the schema allows it.
//!
//! What follows the last field is left out, as in Kafka: librdkafka (2.16) asks for all topics at Metadata version 9
//! and later with a count of four bytes where there is one, so that three bytes remain.
//!
//! It does not check UTF-8 or meaning: the crate and the APIs do.

/// Array elements and tagged fields of one request, over all its arrays.
pub const ITEMS_MAX: usize = 50_000;

/// Why a request is not looked at any further. Its connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Hostile {
    /// The frame ends before the request does, or a length points outside of what holds it.
    #[error("the request is cut short")]
    Short,
    /// More bytes in a tagged field than its value has.
    #[error("bytes follow a field's value")]
    Trailing,
    /// A length below -1, or a number of more than 32 bits.
    #[error("a length is not a length")]
    BadLength,
    /// Null where the schema has none.
    #[error("a field is null that cannot be")]
    Null,
    /// More elements than a request may have.
    #[error("the request claims more elements than it may have")]
    TooMany,
    /// The API key is not served.
    #[error("API key {0} is not served")]
    UnknownApi(i16),
    /// The version is not served.
    #[error("version {1} of API key {0} is not served")]
    UnknownVersion(i16, i16),
    /// The frame is larger than a request may be.
    #[error("a request of {0} bytes is too large")]
    FrameTooLarge(i32),
    /// The decoder refused what the guard let pass: text that is not UTF-8, or a tag out of place.
    #[error("the request cannot be decoded")]
    Undecodable,
}

/// The length of the frame behind this prefix, at most `max`.
pub fn frame_length(prefix: [u8; 4], max: usize) -> Result<usize, Hostile> {
    let announced = i32::from_be_bytes(prefix);
    let length = usize::try_from(announced).ok().filter(|length| *length <= max);
    length.ok_or(Hostile::FrameTooLarge(announced))
}

/// The type of a field, as Kafka's schemas name them. Flexible versions write lengths as varints (KIP-482).
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// So many bytes: a boolean, an integer or a UUID.
    Fixed(usize),
    /// Text.
    Text,
    /// Text or null.
    NullableText,
    /// Bytes.
    Bytes,
    /// Bytes or null.
    NullableBytes,
    /// Elements of one kind.
    Array(&'static Self),
    /// Elements of one kind, or null.
    NullableArray(&'static Self),
    /// Fields, followed by tagged fields in flexible versions.
    Struct(&'static Shape),
}

/// A field, and the versions that have it.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The first version.
    since: i16,
    /// The last version.
    until: i16,
    /// Its type.
    kind: Kind,
}

/// The fields of a request, or of an element of one of its arrays.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// In the order of the wire.
    pub fields: &'static [Field],
    /// Tagged fields the decoder knows. It trusts their type and not their length, so here they must agree.
    pub tagged: &'static [(u32, Kind)],
}

impl Shape {
    /// A shape without known tagged fields.
    #[must_use]
    pub const fn of(fields: &'static [Field]) -> Self {
        Self { fields, tagged: &[] }
    }
}

/// A field of every version.
#[must_use]
pub const fn always(kind: Kind) -> Field {
    Field { since: 0, until: i16::MAX, kind }
}

/// A field of this version and later ones.
#[must_use]
pub const fn since(since: i16, kind: Kind) -> Field {
    Field { since, until: i16::MAX, kind }
}

/// A field of versions up to this one.
#[must_use]
pub const fn until(until: i16, kind: Kind) -> Field {
    Field { since: 0, until, kind }
}

/// A field of these versions only.
#[must_use]
pub const fn between(since: i16, until: i16, kind: Kind) -> Field {
    Field { since, until, kind }
}

/// A boolean or an 8-bit integer.
pub const INT8: Kind = Kind::Fixed(1);
/// A 16-bit integer.
pub const INT16: Kind = Kind::Fixed(2);
/// A 32-bit integer.
pub const INT32: Kind = Kind::Fixed(4);
/// A 64-bit integer.
pub const INT64: Kind = Kind::Fixed(8);
/// A UUID.
pub const UUID: Kind = Kind::Fixed(16);

/// A walk over one request's bytes.
#[derive(Debug)]
pub struct Guard<'a> {
    /// What has not been walked yet.
    rest: &'a [u8],
    /// Elements that may still come.
    items_left: usize,
    /// The version whose fields are expected.
    version: i16,
    /// Whether lengths are varints and structs end with tagged fields.
    flexible: bool,
}

impl<'a> Guard<'a> {
    /// A walk over `bytes`, as `version` of an API writes them.
    #[must_use]
    pub const fn new(bytes: &'a [u8], version: i16, flexible: bool) -> Self {
        Self { rest: bytes, items_left: ITEMS_MAX, version, flexible }
    }

    /// Walks a body, and says how many bytes that was.
    pub fn body(mut self, shape: &Shape) -> Result<usize, Hostile> {
        let before = self.rest.len();
        self.fields(shape)?;
        Ok(before - self.rest.len())
    }

    /// Walks what follows the correlation id in a request's header, and says how many bytes that was. The client id
    /// keeps its 16-bit length even where all else is flexible (RequestHeader.json).
    pub fn header(mut self) -> Result<usize, Hostile> {
        let before = self.rest.len();
        let client_id = self.short_length()?;
        self.take(client_id.unwrap_or(0))?;
        if self.flexible {
            self.tagged(&[])?;
        }
        Ok(before - self.rest.len())
    }

    fn fields(&mut self, shape: &Shape) -> Result<(), Hostile> {
        for field in shape.fields {
            if (field.since..=field.until).contains(&self.version) {
                self.value(&field.kind)?;
            }
        }
        if self.flexible { self.tagged(shape.tagged) } else { Ok(()) }
    }

    fn value(&mut self, kind: &Kind) -> Result<(), Hostile> {
        match kind {
            Kind::Fixed(bytes) => self.take(*bytes).map(drop),
            Kind::Text => {
                let length = self.text_length()?.ok_or(Hostile::Null)?;
                self.take(length).map(drop)
            }
            Kind::NullableText => {
                let length = self.text_length()?.unwrap_or(0);
                self.take(length).map(drop)
            }
            Kind::Bytes => {
                let length = self.long_length()?.ok_or(Hostile::Null)?;
                self.take(length).map(drop)
            }
            Kind::NullableBytes => {
                let length = self.long_length()?.unwrap_or(0);
                self.take(length).map(drop)
            }
            Kind::Array(element) => {
                let count = self.long_length()?.ok_or(Hostile::Null)?;
                self.elements(count, element)
            }
            Kind::NullableArray(element) => {
                let count = self.long_length()?.unwrap_or(0);
                self.elements(count, element)
            }
            Kind::Struct(shape) => self.fields(shape),
        }
    }

    fn elements(&mut self, count: usize, element: &Kind) -> Result<(), Hostile> {
        self.count_items(count)?;
        for _ in 0..count {
            self.value(element)?;
        }
        Ok(())
    }

    fn count_items(&mut self, count: usize) -> Result<(), Hostile> {
        self.items_left = self.items_left.checked_sub(count).ok_or(Hostile::TooMany)?;
        Ok(())
    }

    /// Tagged fields: tag, size and so many bytes each. What is inside a known one must fill it exactly.
    fn tagged(&mut self, known: &[(u32, Kind)]) -> Result<(), Hostile> {
        let count = self.varint()? as usize;
        self.count_items(count)?;
        for _ in 0..count {
            let tag = self.varint()?;
            let size = self.varint()? as usize;
            let value = self.take(size)?;
            if let Some((_, kind)) = known.iter().find(|(number, _)| *number == tag) {
                let outside = std::mem::replace(&mut self.rest, value);
                self.value(kind)?;
                if !std::mem::replace(&mut self.rest, outside).is_empty() {
                    return Err(Hostile::Trailing);
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Hostile> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(Hostile::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Hostile> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Hostile::Short)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn text_length(&mut self) -> Result<Option<usize>, Hostile> {
        if self.flexible { self.compact_length() } else { self.short_length() }
    }

    fn long_length(&mut self) -> Result<Option<usize>, Hostile> {
        if self.flexible {
            return self.compact_length();
        }
        match i32::from_be_bytes(self.array()?) {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| Hostile::BadLength),
        }
    }

    fn short_length(&mut self) -> Result<Option<usize>, Hostile> {
        match i16::from_be_bytes(self.array()?) {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| Hostile::BadLength),
        }
    }

    /// A flexible length is written one higher; 0 is null.
    fn compact_length(&mut self) -> Result<Option<usize>, Hostile> {
        Ok((self.varint()? as usize).checked_sub(1))
    }

    fn varint(&mut self) -> Result<u32, Hostile> {
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            if shift == 28 && byte > 0x0f {
                return Err(Hostile::BadLength);
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Shape = Shape::of(&[always(Kind::Array(&Kind::Text))]);
    const NUMBERS: Shape = Shape::of(&[always(Kind::NullableArray(&INT32)), since(2, INT8)]);
    const TAGGED: Shape = Shape { fields: &[always(INT8)], tagged: &[(0, Kind::NullableText)] };

    fn plain(bytes: &[u8], shape: &Shape) -> Result<usize, Hostile> {
        Guard::new(bytes, 1, false).body(shape)
    }

    fn flexible(bytes: &[u8], shape: &Shape) -> Result<usize, Hostile> {
        Guard::new(bytes, 1, true).body(shape)
    }

    #[test]
    fn lengths_out_of_bounds_are_hostile() {
        assert_eq!(frame_length([0, 0, 1, 0], 256), Ok(256));
        for length in [-1, i32::MIN, 257, i32::MAX] {
            assert_eq!(frame_length(length.to_be_bytes(), 256), Err(Hostile::FrameTooLarge(length)));
        }
    }

    #[test]
    fn a_count_is_believed_once_its_elements_are_there() {
        assert_eq!(plain(&[0, 0, 0, 2, 0, 0, 0, 1, b'a'], &NAMES), Ok(9));
        assert_eq!(plain(&[0, 0, 0, 3, 0, 0, 0, 1, b'a'], &NAMES), Err(Hostile::Short));
        assert_eq!(plain(&[0x7f, 0xff, 0xff, 0xff], &NAMES), Err(Hostile::TooMany));
        assert_eq!(flexible(&[0xff, 0xff, 0xff, 0xff, 0x0f], &NAMES), Err(Hostile::TooMany));
        assert_eq!(flexible(&[3, 1, 1, 0], &NAMES), Ok(4));
    }

    #[test]
    fn all_counts_together_are_bounded() {
        let mut bytes = u32::try_from(ITEMS_MAX).expect("small").to_be_bytes().to_vec();
        bytes.resize(4 + ITEMS_MAX * 2, 0);
        assert_eq!(plain(&bytes, &NAMES), Ok(bytes.len()));
        bytes[..4].copy_from_slice(&u32::try_from(ITEMS_MAX + 1).expect("small").to_be_bytes());
        bytes.extend([0, 0]);
        assert_eq!(plain(&bytes, &NAMES), Err(Hostile::TooMany));
    }

    #[test]
    fn null_and_negative_lengths() {
        assert_eq!(plain(&[0xff, 0xff, 0xff, 0xff], &NUMBERS), Ok(4));
        assert_eq!(plain(&[0xff, 0xff, 0xff, 0xff], &NAMES), Err(Hostile::Null));
        assert_eq!(plain(&[0xff, 0xff, 0xff, 0xfe], &NUMBERS), Err(Hostile::BadLength));
        assert_eq!(flexible(&[2, 0, 0], &NAMES), Err(Hostile::Null));
    }

    #[test]
    fn bytes_that_cannot_be_null() {
        const BYTES: Shape = Shape::of(&[always(Kind::Bytes)]);
        assert_eq!(plain(&[0, 0, 0, 2, 7, 7], &BYTES), Ok(6));
        assert_eq!(plain(&[0, 0, 0, 2, 7], &BYTES), Err(Hostile::Short));
        assert_eq!(plain(&[0xff, 0xff, 0xff, 0xff], &BYTES), Err(Hostile::Null));
        assert_eq!(flexible(&[1, 0], &BYTES), Ok(2));
        assert_eq!(flexible(&[0, 0], &BYTES), Err(Hostile::Null));
    }

    #[test]
    fn a_body_ends_where_its_shape_does() {
        assert_eq!(plain(&[0, 0, 0, 0, 7], &NUMBERS), Ok(4), "what follows is no part of it");
        assert_eq!(Guard::new(&[0, 0, 0, 0, 7], 2, false).body(&NUMBERS), Ok(5), "version 2 has the field");
        assert_eq!(Guard::new(&[0, 0, 0, 0], 2, false).body(&NUMBERS), Err(Hostile::Short));
    }

    #[test]
    fn a_known_tag_is_filled_exactly() {
        assert_eq!(flexible(&[9, 1, 0, 3, 3, b'a', b'b'], &TAGGED), Ok(7));
        assert_eq!(flexible(&[9, 1, 0, 3, 2, b'a', b'b'], &TAGGED), Err(Hostile::Trailing));
        assert_eq!(flexible(&[9, 1, 0, 3, 4, b'a', b'b'], &TAGGED), Err(Hostile::Short));
        assert_eq!(flexible(&[9, 1, 5, 3, 4, b'a', b'b'], &TAGGED), Ok(7), "unknown tags are skipped");
        assert_eq!(flexible(&[9, 0xff, 0xff, 0xff, 0xff, 0x0f], &TAGGED), Err(Hostile::TooMany));
    }

    #[test]
    fn a_varint_has_32_bits() {
        assert_eq!(flexible(&[9, 0xff, 0xff, 0xff, 0xff, 0x1f], &TAGGED), Err(Hostile::BadLength));
        assert_eq!(flexible(&[9, 0x80, 0x80], &TAGGED), Err(Hostile::Short));
    }
}
