//! Where a log lies that is to be damaged or cut short: the simulated disk, or real files. One test, both places.

use ackord::sim::{Random, SimDisk};
use ackord::wal::disk::Disk;

/// A disk that a test can damage and end. All damage is durable.
pub trait Place: Disk {
    /// Where a test can't try every place of a file, it tries one in so many bytes; a prime, so that all kinds of
    /// places are met.
    const STRIDE: usize;

    /// An empty directory.
    fn new() -> Self;

    /// A disk of its own with the same files.
    fn duplicate(&self) -> Self;

    /// The process was killed, the machine was not: everything written stays. Open handles die.
    fn kill(&self);

    /// A power cut: what is not synced is kept, lost or torn. Open handles die.
    fn crash(&self, random: &mut Random);

    /// Stops in the middle of the `count`-th change from now (1 is the next), until `crash` or `kill`.
    fn stop_after(&self, count: u64);

    /// How many changes (writes, syncs, creations, renamings, removals) it has seen.
    fn changes(&self) -> u64;

    /// From now on every sync says that it is done, and does nothing.
    fn lie(&self);

    /// A file's bytes.
    fn contents(&self, name: &str) -> Vec<u8>;

    /// Puts a file of these bytes into the place of another, or none.
    fn put(&self, name: &str, bytes: &[u8]);

    /// Takes a file away.
    fn lose(&self, name: &str);

    /// Writes over a part of a file.
    fn overwrite(&self, name: &str, offset: u64, with: &[u8]);

    /// Cuts a file off.
    fn cut(&self, name: &str, length: u64);

    /// Makes the block (of 4 KiB) at `offset` unreadable.
    fn make_unreadable(&self, name: &str, offset: u64);

    /// Bit rot: turns over one bit.
    fn flip(&self, name: &str, offset: u64, bit: u8) {
        let byte = self.contents(name)[offset as usize];
        self.overwrite(name, offset, &[byte ^ 1 << (bit % 8)]);
    }

    /// Writes zeros over a part of a file.
    fn zero(&self, name: &str, offset: u64, length: u64) {
        self.overwrite(name, offset, &vec![0; length as usize]);
    }

    /// A write that went to the wrong place: the block at `from` lies at `to`, too.
    fn misdirect(&self, name: &str, from: u64, to: u64, block: u64) {
        let bytes = self.contents(name);
        self.overwrite(name, to, &bytes[from as usize..(from + block) as usize]);
    }

    /// Two files change places.
    fn swap(&self, one: &str, other: &str) {
        let (of_one, of_other) = (self.contents(one), self.contents(other));
        self.put(one, &of_other);
        self.put(other, &of_one);
    }
}

impl Place for SimDisk {
    const STRIDE: usize = 37;

    fn new() -> Self {
        Self::new()
    }

    fn duplicate(&self) -> Self {
        self.duplicate()
    }

    fn kill(&self) {
        self.kill();
    }

    fn crash(&self, random: &mut Random) {
        self.crash(random);
    }

    fn stop_after(&self, count: u64) {
        self.stop_after(count);
    }

    fn changes(&self) -> u64 {
        self.changes()
    }

    fn lie(&self) {
        self.lie();
    }

    fn contents(&self, name: &str) -> Vec<u8> {
        self.contents(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        self.put(name, bytes);
    }

    fn lose(&self, name: &str) {
        self.lose(name);
    }

    fn overwrite(&self, name: &str, offset: u64, with: &[u8]) {
        self.overwrite(name, offset, with);
    }

    fn cut(&self, name: &str, length: u64) {
        self.cut(name, length);
    }

    fn make_unreadable(&self, name: &str, offset: u64) {
        self.make_unreadable(name, offset);
    }
}
