//! Replays segments into an index and says what is wrong with them. Reads only; `log` does what follows from it.
//!
//! The highest valid turn header is N. Turn N was perhaps never promised: if its body is not whole it is torn, and
//! dropped. Every turn below N was durable, because nothing of a turn is written before the fdatasync of the turn
//! before it has returned: whatever is wrong there is damage. Which groups it touches is told by the sections that are
//! whole, by the copies of their headers in the next turn, and where both are gone by what the groups wrote later (each
//! section names the entry before it, and each segment begins with all groups' bounds). A group that nothing clears
//! stays in doubt, and does not take part.

use super::disk::Disk;
use super::index::Index;
use super::layout::{BLOCK, DecodedSegment, SECTION_HEADER, SectionHeader, SectionKind, TURN_HEADER};
use super::layout::{TurnHeader, TurnId, TurnKind};
use super::scan::{self, FoundSection, Segment};
use super::{Identity, LogError, Omissions, Options, TurnNumber};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

/// No more findings than this are listed; the rest is counted.
const FINDINGS_MAX: usize = 200;

/// A turn, and what the next one repeats of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Previous {
    /// Which turn.
    pub id: TurnId,
    /// Its section headers; nothing for one that is lost.
    pub sections: Vec<Option<SectionHeader>>,
}

/// Bytes of the log, and where they lie.
pub(crate) struct Excerpt {
    /// The segment.
    pub segment: u64,
    /// The turn.
    pub id: TurnId,
    /// The turn's bytes.
    pub bytes: Vec<u8>,
}

/// A segment file as it was found.
pub(crate) struct FoundSegment {
    /// Its secret, or 0.
    pub identity: u128,
    /// The length it should have.
    pub length: u64,
    /// Whether something in it is damaged, so that its bytes are kept.
    pub flawed: bool,
}

/// What the segments say.
pub(crate) struct Recovered {
    /// All groups.
    pub index: Index,
    /// Sentences for the operator.
    pub findings: Vec<String>,
    /// Whether groups may have existed that nobody remembers.
    pub incomplete: bool,
    /// See `Recovery::losses`, this one included.
    pub losses: u8,
    /// The last turn that was durable.
    pub previous: Previous,
    /// That turn, if nothing proves that it has reached the disk: it may be in the page cache only.
    pub unproven: Option<Excerpt>,
    /// The torn turn after it.
    pub torn: Option<Excerpt>,
    /// The first number no turn has had.
    pub next_turn: u64,
    /// The first number no segment has had.
    pub next_segment: u64,
    /// Live segments, ascending.
    pub segments: BTreeMap<u64, FoundSegment>,
    /// Where the newest one's close turn goes; nothing when it has one, or may have.
    pub end: Option<u64>,
    /// Segments that are not part of the log (any more), and whether their bytes are kept.
    pub stale: BTreeMap<u64, bool>,
}

/// A turn that has been found and waits for the next one, which carries its copies.
struct Pending {
    /// Its header.
    header: TurnHeader,
    /// The segment it lies in.
    segment: Rc<Segment>,
    /// What is in its own place.
    sections: Vec<Option<FoundSection>>,
    /// Whether all of it is as it was written.
    whole: bool,
}

impl Pending {
    fn new(header: TurnHeader, segment: &Rc<Segment>) -> Self {
        let turn = segment.turn_bytes(&header.id);
        let sections = scan::sections(turn, &header.id, Some(first_section(&header)), header.sections as usize, &[]);
        let whole = scan::is_whole(turn, &header, &sections);
        Self { header, segment: Rc::clone(segment), sections, whole }
    }

    fn excerpt(&self) -> Excerpt {
        let bytes = self.segment.turn_bytes(&self.header.id).to_vec();
        Excerpt { segment: self.segment.number, id: self.header.id, bytes }
    }
}

fn first_section(header: &TurnHeader) -> usize {
    TURN_HEADER + header.copies as usize * SECTION_HEADER
}

/// The replay so far.
struct Replay {
    /// Whose log it must be.
    owner: Identity,
    /// The groups.
    index: Index,
    /// What was found.
    findings: Vec<String>,
    /// How many findings are not listed.
    unlisted: usize,
    /// See `Recovered::incomplete`.
    incomplete: bool,
    /// Losses that the log has counted.
    losses: u8,
    /// Whether turns were lost behind the newest checkpoint.
    lost: bool,
    /// Segments in which something is damaged.
    flawed: BTreeSet<u64>,
    /// The last turn found.
    pending: Option<Pending>,
    /// The last turn taken in.
    previous: Option<Previous>,
    /// Whether it is whole in its own place, so that nothing behind it has to stay and prove it.
    previous_whole: bool,
    /// The highest turn number seen.
    highest: TurnNumber,
    /// The oldest live segment, as the newest checkpoint has it.
    oldest: u64,
    /// The successor that the last turn, a close turn, names.
    successor: Option<(u64, u128)>,
    /// Whether turns were found out of order, so that nothing may be written behind the last.
    disordered: bool,
    /// Whether what came before the first turn found is not known: no checkpoint has followed it.
    headless: bool,
    /// Who owns a file that is not ours.
    foreign: Option<Identity>,
    /// See `Options::omit`.
    omit: Omissions,
}

/// Reads every segment in `numbers`.
pub(crate) fn recover<D: Disk>(
    disk: &D,
    owner: Identity,
    options: &Options,
    numbers: &BTreeSet<u64>,
) -> Result<Recovered, LogError> {
    let mut replay = Replay {
        owner,
        index: Index::default(),
        findings: Vec::new(),
        unlisted: 0,
        incomplete: false,
        losses: 0,
        lost: false,
        flawed: BTreeSet::new(),
        pending: None,
        previous: None,
        previous_whole: false,
        highest: TurnNumber(0),
        oldest: 0,
        successor: None,
        disordered: false,
        headless: false,
        foreign: None,
        omit: options.omit,
    };
    // The last segments may be empty, so all that follow the last turn are kept until the end has been found.
    let mut tail: Vec<Rc<Segment>> = Vec::new();
    let mut found = BTreeMap::new();
    let mut expected = numbers.first().copied();
    for &number in numbers {
        if expected != Some(number) {
            replay.lose_turns(&format!("segment files before segment {number} are missing"));
        }
        expected = number.checked_add(1);
        let segment = replay.load(disk, number, options)?;
        let length = segment.as_ref().map_or(options.segment_bytes, |segment| segment.bytes.len() as u64);
        let identity = segment.as_ref().map_or(0, |segment| segment.identity);
        found.insert(number, FoundSegment { identity, length, flawed: false });
        if let Some(segment) = segment {
            let segment = Rc::new(segment);
            if replay.walk(&segment) {
                tail.clear();
            }
            tail.push(segment);
        }
    }
    replay.finish(found, &tail, options)
}

impl Replay {
    fn find(&mut self, finding: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.unlisted += 1;
        }
    }

    /// Turns of unknown content are missing.
    fn lose_turns(&mut self, reason: &str) {
        self.find(format!("damage: {reason}; until something later proves otherwise, every group may be touched"));
        self.index.doubt_all(reason);
        (self.incomplete, self.lost) = (true, true);
    }

    /// Reads a segment file and makes sure that it is the one that belongs in this place.
    fn load<D: Disk>(&mut self, disk: &D, number: u64, options: &Options) -> Result<Option<Segment>, LogError> {
        let name = super::segment_name(number);
        let loaded = disk.open(&name).and_then(|file| Segment::load(&file, number, options.segment_bytes));
        let (mut segment, decoded) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                self.reject(number, &format!("can't be read: {error}"));
                return Ok(None);
            }
        };
        let named = self.named_successor(number);
        match decoded {
            DecodedSegment::Unknown(format) => return Err(LogError::UnknownFormat(format)),
            DecodedSegment::Valid(header) if header.owner != self.owner => {
                self.foreign = Some(header.owner);
                self.reject(number, "belongs to another node");
                return Ok(None);
            }
            DecodedSegment::Valid(header) if header.number != number => {
                self.reject(number, &format!("holds segment {}", header.number));
                return Ok(None);
            }
            DecodedSegment::Valid(header) if named.is_some_and(|identity| identity != header.identity) => {
                self.reject(number, "is not the one that its predecessor names");
                return Ok(None);
            }
            DecodedSegment::Valid(_) => {}
            DecodedSegment::Invalid => {
                let in_first_turn = segment.turn_at(BLOCK, self.owner).map(|turn| turn.id.identity);
                let Some(identity) = named.or(in_first_turn) else {
                    self.reject(number, "has no readable header, and nothing else tells its identity");
                    return Ok(None);
                };
                segment.identity = identity;
                self.flawed.insert(number);
                self.find(format!("damage: the header of segment {number} is unreadable; its turns tell who it is"));
            }
        }
        if !segment.missing.is_empty() {
            self.flawed.insert(number);
            self.find(format!("damage: segment {number} is cut short or unreadable in places"));
        }
        Ok(Some(segment))
    }

    /// The identity that the last turn, if it closes the segment before `number`, names for `number`.
    fn named_successor(&self, number: u64) -> Option<u128> {
        let close = self.pending.as_ref().filter(|pending| pending.whole)?;
        (close.header.kind == TurnKind::Close && close.header.link == number).then_some(close.header.link_identity)
    }

    fn reject(&mut self, number: u64, why: &str) {
        self.flawed.insert(number);
        self.lose_turns(&format!("segment {number} {why}"));
    }

    /// Takes in a segment's turns; whether it has any.
    fn walk(&mut self, segment: &Rc<Segment>) -> bool {
        let mut at = BLOCK;
        let mut any = false;
        while let Some(header) = segment.next_turn(at, self.owner) {
            at = header.id.end();
            any = true;
            if header.id.number <= self.highest {
                self.flawed.insert(segment.number);
                self.disordered = true;
                self.lose_turns(&format!("turn {} lies behind turn {}", header.id.number.0, self.highest.0));
                continue;
            }
            self.highest = header.id.number;
            self.settle(&header, segment);
            self.pending = Some(Pending::new(header, segment));
        }
        any
    }

    /// Takes in the turn before `next`, which `next` proves durable and whose section headers it repeats.
    fn settle(&mut self, next: &TurnHeader, segment: &Rc<Segment>) {
        let copies = scan::copies(segment.turn_bytes(&next.id), next);
        let before = next.previous;
        let Some(pending) = self.pending.take() else {
            if next.kind == TurnKind::Checkpoint && self.previous.is_none() {
                return; // Where the log begins. What came before was freed.
            }
            if next.kind == TurnKind::Close && next.id.offset == BLOCK && self.previous.is_none() {
                // A segment that an interrupted start has begun and abandoned. What came before may have been freed;
                // the next checkpoint knows.
                self.headless = true;
                return;
            }
            let is_first = before.identity == segment.identity && before.offset == BLOCK;
            return self.settle_missing(before, &[segment], &copies, is_first);
        };
        if pending.header.id == before {
            return self.settle_pending(pending, &copies);
        }
        if !pending.whole && self.previous.as_ref().is_some_and(|previous| previous.id == before) {
            return; // Torn, and dropped by an earlier start, which could not write over it.
        }
        let header = &pending.header;
        let follows = match header.kind {
            TurnKind::Close => before.identity == header.link_identity && before.offset == BLOCK,
            _ => before.identity == header.id.identity && before.offset == header.id.end(),
        };
        let segments = [segment, &Rc::clone(&pending.segment)];
        self.settle_pending(pending, &[]);
        self.settle_missing(before, &segments, &copies, follows);
    }

    /// Takes in a turn whose header is whole.
    fn settle_pending(&mut self, pending: Pending, copies: &[Option<SectionHeader>]) {
        let Pending { header, segment, mut sections, whole } = pending;
        if !whole {
            self.flawed.insert(segment.number);
            self.find(format!("damage: turn {} in segment {} is not whole", header.id.number.0, segment.number));
            let turn = segment.turn_bytes(&header.id);
            let first = Some(first_section(&header));
            sections = scan::sections(turn, &header.id, first, header.sections as usize, copies);
        }
        self.previous_whole = whole;
        self.apply(header.id, segment.number, header.kind == TurnKind::Checkpoint, sections);
        let lost_some = self.previous.as_ref().is_some_and(|previous| previous.sections.iter().any(Option::is_none));
        match header.kind {
            TurnKind::Checkpoint => {
                self.oldest = header.link;
                self.headless = false;
                // All groups are named again: what was lost before is settled.
                (self.incomplete, self.lost) = (lost_some, lost_some);
            }
            TurnKind::Close => self.successor = Some((header.link, header.link_identity)),
            TurnKind::Data | TurnKind::Seal => {}
        }
        self.incomplete |= header.incomplete;
        self.losses = self.losses.max(header.losses);
    }

    /// Takes in a turn whose header is gone: its sections may still be in their place, and if not there are copies.
    /// If it did not follow the turn before, others are missing, too.
    fn settle_missing(
        &mut self,
        id: TurnId,
        segments: &[&Rc<Segment>],
        copies: &[Option<SectionHeader>],
        follows: bool,
    ) {
        self.find(format!("damage: the header of turn {} is missing", id.number.0));
        if !follows {
            self.lose_turns(&format!("turns before turn {} are missing", id.number.0));
        }
        let segment = segments.iter().find(|segment| segment.identity == id.identity);
        let turn = segment.map_or(&[][..], |segment| segment.turn_bytes(&id));
        let sections = scan::sections(turn, &id, None, copies.len(), copies);
        let number = segment.map_or(0, |segment| segment.number);
        self.flawed.insert(number);
        let is_checkpoint = copies.iter().flatten().any(|copy| copy.kind == SectionKind::Checkpoint);
        self.previous_whole = false;
        self.apply(id, number, is_checkpoint, sections);
    }

    /// Takes in the sections of a turn. One that is lost leaves every group in doubt.
    fn apply(&mut self, id: TurnId, segment: u64, is_checkpoint: bool, sections: Vec<Option<FoundSection>>) {
        let number = id.number.0;
        let mut headers = Vec::with_capacity(sections.len());
        let mut lost = 0;
        for section in sections {
            let place = section.as_ref().and_then(|section| section.place(segment, &id));
            let (Some(mut section), Some(place)) = (section, place) else {
                lost += 1;
                headers.push(None);
                continue;
            };
            if self.omit.moved_apart && section.header.kind == SectionKind::Moved {
                section.header.kind = SectionKind::Append;
            }
            let flaw = (!section.is_whole()).then(|| describe(number, segment, &section));
            let group = section.header.group;
            self.index.apply(&section.header, place, section.records.unwrap_or_default());
            if let Some(flaw) = flaw {
                if let Some(log) = self.index.groups.get_mut(&group) {
                    log.flaw = Some(flaw.clone());
                }
                self.find(flaw);
            }
            headers.push(Some(section.header));
        }
        if is_checkpoint && lost == 0 {
            self.index.doubt_others(&headers.iter().flatten().map(|header| header.group).collect());
        }
        self.previous = Some(Previous { id, sections: headers });
        self.successor = None;
        if lost > 0 {
            self.flawed.insert(segment);
            self.lose_turns(&format!(
                "{lost} section(s) of turn {number} in segment {segment} are lost in both places"
            ));
        }
    }

    /// Decides what the last turn is, and where the log ends.
    fn finish(
        mut self,
        found: BTreeMap<u64, FoundSegment>,
        tail: &[Rc<Segment>],
        options: &Options,
    ) -> Result<Recovered, LogError> {
        let (mut torn, mut unproven) = (None, None);
        if let Some(pending) = self.pending.take() {
            let excerpt = pending.excerpt();
            if pending.whole {
                unproven = Some(excerpt);
                self.settle_pending(pending, &[]);
            } else {
                self.drop_torn(&pending);
                torn = Some(excerpt);
            }
        }
        let mut segments = found;
        let mut stale = BTreeMap::new();
        let Some(previous) = self.previous.clone() else {
            self.accept_as_new(&segments, tail, options)?;
            stale.extend(segments.keys().map(|&number| (number, false)));
            return Ok(self.recovered(Previous::default(), BTreeMap::new(), stale));
        };
        let end = self.find_end(&previous, torn.as_ref(), tail, &mut segments, &mut stale);
        if segments.first_key_value().is_some_and(|(&first, _)| first > self.oldest) && self.oldest > 0 {
            self.find(format!("damage: segment {} is missing", self.oldest));
        }
        while let Some(entry) = segments.first_entry().filter(|entry| *entry.key() < self.oldest) {
            stale.insert(*entry.key(), self.flawed.contains(entry.key()));
            entry.remove();
        }
        for (number, segment) in &mut segments {
            segment.flawed = self.flawed.contains(number);
        }
        let recovered = self.recovered(previous, segments, stale);
        Ok(Recovered { unproven, torn, end, ..recovered })
    }

    fn drop_torn(&mut self, pending: &Pending) {
        let TurnHeader { id, .. } = &pending.header;
        let (number, segment) = (id.number.0, pending.segment.number);
        self.find(format!("turn {number} in segment {segment} is torn; it was promised to nobody, and is dropped"));
        // A turn that follows would prove that this one was durable, and is damaged.
        self.look_behind(&pending.segment, id.offset..id.end());
    }

    /// Turns may have been lost that followed `last`, the last in this segment. A segment has its whole length before
    /// it is used, and of one that was cut nothing proves that the log ended before the cut: what stands behind `last`
    /// may be a page that belongs elsewhere, in the place of the turn that would tell.
    fn look_behind(&mut self, segment: &Segment, last: Range<u64>) {
        if segment.cut || segment.misses(last.start..last.end + BLOCK) {
            self.lose_turns(&format!("the end of segment {} is cut off or can't be read", segment.number));
        }
    }

    /// Where the newest live segment ends, after the segments behind the last turn have been told apart: one that the
    /// log never came to use, one that it had begun to use, or one that is damaged.
    fn find_end(
        &mut self,
        previous: &Previous,
        torn: Option<&Excerpt>,
        tail: &[Rc<Segment>],
        segments: &mut BTreeMap<u64, FoundSegment>,
        stale: &mut BTreeMap<u64, bool>,
    ) -> Option<u64> {
        let with_end = tail.first()?;
        let end = torn.map_or(previous.id.end(), |torn| torn.id.offset);
        let successor = self.successor.filter(|_| torn.is_none());
        if successor.is_none() {
            self.look_behind(with_end, end..end);
        }
        // A torn turn is the proof of a damaged one before it: it stays.
        let may_go = torn.is_none() || self.previous_whole;
        let mut end = Some(end).filter(|_| successor.is_none() && !self.disordered && may_go);
        for segment in &tail[1..] {
            let number = segment.number;
            if successor == Some((number, segment.identity)) {
                // Its header was durable before it was named, so this is a crash before the checkpoint, or damage.
                end = Some(BLOCK);
                if segment.header.is_none() || segment.misses(BLOCK..2 * BLOCK) {
                    self.lose_turns(&format!("the beginning of segment {number} is damaged or can't be read"));
                }
            } else if !segment.cut
                && segment.header.as_ref().is_some_and(|header| header.last_turn <= previous.id.number)
            {
                segments.remove(&number);
                stale.insert(number, false);
            } else {
                self.flawed.insert(number);
                self.lose_turns(&format!("segment {number} has lost its turns"));
                end = None;
            }
        }
        if self.headless {
            self.lose_turns("the beginning of the log is missing");
        }
        if let Some((number, _)) = successor.filter(|(number, _)| !segments.contains_key(number)) {
            self.lose_turns(&format!("segment {number}, the newest, is missing"));
        }
        end
    }

    /// Whether a log without a whole turn is one whose creation did not come to its end.
    fn accept_as_new(
        &self,
        segments: &BTreeMap<u64, FoundSegment>,
        tail: &[Rc<Segment>],
        options: &Options,
    ) -> Result<(), LogError> {
        if let Some(owner) = self.foreign {
            return Err(LogError::Foreign { owner });
        }
        if segments.is_empty() {
            return if options.create { Ok(()) } else { Err(LogError::Empty) };
        }
        let only_begun = segments.keys().eq([&1]) && self.flawed.is_empty() && tail.len() == 1;
        if only_begun && options.create {
            return Ok(());
        }
        Err(LogError::Unreadable(format!(
            "there are {} segment file(s) and no whole turn in any of them; {}",
            segments.len(),
            self.findings.join("; ")
        )))
    }

    fn recovered(
        mut self,
        previous: Previous,
        segments: BTreeMap<u64, FoundSegment>,
        stale: BTreeMap<u64, bool>,
    ) -> Recovered {
        for group in self.index.skip_released_holes() {
            self.find(format!("group {group}: its log begins behind damaged entries that it needs no more"));
        }
        if self.unlisted > 0 {
            self.findings.push(format!("and {} more", self.unlisted));
        }
        if self.omit.damage {
            self.index.cut_damage();
        }
        let lost_newest = self.lost && self.index.is_all_in_doubt();
        self.index.let_doubts_stand();
        let newest = segments.last_key_value().map_or(0, |(&number, _)| number);
        let named = self.successor.map_or(0, |(number, _)| number);
        Recovered {
            index: self.index,
            findings: self.findings,
            incomplete: self.incomplete,
            losses: self.losses.saturating_add(u8::from(lost_newest)),
            next_turn: self.highest.0.max(previous.id.number.0) + 1,
            previous,
            unproven: None,
            torn: None,
            next_segment: newest.max(named) + 1,
            segments,
            end: None,
            stale,
        }
    }
}

fn describe(turn: u64, segment: u64, section: &FoundSection) -> String {
    let SectionHeader { group, base, last, .. } = &section.header;
    let what = match &section.records {
        None => format!("its entries {} to {} are lost", base.index.next(), last.index),
        Some(records) => match records.iter().filter(|record| record.is_none()).count() {
            0 => "its header was repaired from the copy in the next turn".to_owned(),
            bad => format!("{bad} of its entries {} to {} are damaged", base.index.next(), last.index),
        },
    };
    format!("turn {turn} in segment {segment}, group {group}: {what}")
}
