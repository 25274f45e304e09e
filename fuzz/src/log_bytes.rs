//! The bytes of a log's only segment, as a start may find them: anything at all, with checksums that may agree.
//!
//! A fuzzer does not guess a CRC-32C. The bits of an input's first byte say which checksums are made to agree with the
//! bytes they cover (1 the segment's header, 2 the turns' headers, 4 the sections' headers); the rest is the segment.

use ackord::sim::{Random, SimDisk};
use ackord::types::{LogIndex, NodeId};
use ackord::wal::{Identity, Log, LogError, Options, ReadError, Recovery};

/// Whose log it is.
pub const OWNER: Identity = Identity { cluster: 0xac0d, node: NodeId(3) };
/// The segment's name.
pub const FIRST: &str = "segment-0000000000000001.wal";
/// Its length.
pub const SEGMENT_BYTES: usize = 256 << 10;
/// A turn begins at a multiple of this.
const BLOCK: usize = 4096;
/// The headers' lengths, as the format has them: segment, turn, section.
const HEADERS: [usize; 3] = [112, 192, 120];

/// Small segments.
pub fn options() -> Options {
    let segment = SEGMENT_BYTES as u64;
    Options {
        segment_bytes: segment,
        retain_bytes: 4 * segment,
        slack_bytes: 2 * segment,
        spares: 1,
        recycled_max: 0,
        create: true,
        omit: ackord::wal::Omissions::default(),
    }
}

/// Opens the log.
pub fn open(disk: &SimDisk, seed: u64) -> Result<(Log<SimDisk>, Recovery), LogError> {
    let mut random = Random::new(seed);
    Log::open(disk.clone(), OWNER, options(), move || random.next_u128())
}

/// Refused, or opened and readable; and what was opened once opens again, with the same groups in the same state.
pub fn run(data: &[u8]) {
    let Some((flags, image)) = data.split_first() else { return };
    let mut image = image.to_vec();
    image.resize(SEGMENT_BYTES, 0);
    repair(&mut image, *flags);
    let disk = SimDisk::new();
    disk.put(FIRST, &image);
    let Ok((log, first)) = open(&disk, 1) else { return };
    read_all(&log, &first, *flags);
    drop(log);
    disk.kill();
    let (log, second) = open(&disk, 2).unwrap_or_else(|error| panic!("it opened once, and now: {error}"));
    read_all(&log, &second, *flags);
    assert!(first.groups.keys().eq(second.groups.keys()), "the same groups");
    for (group, known) in &first.groups {
        let again = &second.groups[group];
        assert_eq!((known.hard_state, known.last), (again.hard_state, again.last), "{group:?}");
        assert!(known.damage.is_none() || again.damage.is_some(), "{group:?} was damaged, and damage stays");
    }
}

/// Every entry that the log says it has can be read, or is said to be damaged. Unless headers contradict each other
/// under checksums that agree, which no damage does, the start has said so already.
fn read_all(log: &Log<SimDisk>, recovery: &Recovery, flags: u8) {
    for (&group, known) in &recovery.groups {
        let (first, end) = (known.first_index(), LogIndex(known.last.index.0.saturating_add(1)));
        match log.entries(group, first, end, u64::MAX) {
            Ok(entries) => assert!(entries.len() as u64 <= end.0.saturating_sub(first.0)),
            Err(ReadError::Damaged { .. }) => {
                assert!(known.damage.is_some() || flags != 0, "{group:?}: damage that no start found");
            }
            Err(ReadError::Released { .. }) => {}
        }
    }
}

/// Makes checksums agree with what they cover.
fn repair(image: &mut [u8], flags: u8) {
    if flags & 1 != 0 {
        // A length under a checksum is believed, up to 2 GiB: the file may have been cut. Not every try is to take
        // that.
        image[104..112].copy_from_slice(&(SEGMENT_BYTES as u64).to_le_bytes());
        seal(&mut image[..HEADERS[0]]);
    }
    for block in (BLOCK..image.len()).step_by(BLOCK) {
        if !image[block..].starts_with(b"AckTurn\n") {
            continue;
        }
        if flags & 4 != 0 {
            let count = |at: usize| u32::from_le_bytes(image[block + at..][..4].try_into().expect("four bytes"));
            let headers = count(136).saturating_add(count(140)).min(16) as usize;
            for position in 0..headers {
                let header = &mut image[block + HEADERS[1] + position * HEADERS[2]..][..HEADERS[2]];
                let checksum = crc32c::crc32c(&header[4..]);
                header[..4].copy_from_slice(&checksum.to_le_bytes());
            }
        }
        if flags & 2 != 0 {
            seal(&mut image[block..][..HEADERS[1]]);
        }
    }
}

/// Writes a header's checksum of itself, which stands at 12.
fn seal(header: &mut [u8]) {
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&header[..12]), &header[16..]);
    header[12..16].copy_from_slice(&checksum.to_le_bytes());
}
