//! Who a data directory is: one small file that `ackord format` writes and that `serve` believes nothing without.
//!
//! It holds the cluster, the node, the directory's incarnation and the cluster's first voters, each by incarnation. It
//! is written once, durably, and never changed. A directory without it is refused: an empty disk under a node's old
//! number would make promises that contradict the ones the lost disk made.

use crate::types::{ClusterId, Incarnation, NodeId};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The file's name in the data directory.
pub const FILE_NAME: &str = "identity.toml";
/// The file while it is being written; left behind by a crash, it means nothing.
const TEMPORARY_NAME: &str = "identity.toml.tmp";
/// Longest file, in bytes; some 70 for each voter.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Where the log is made before the directory has an identity: an identity without a log would be that of a lost disk.
pub const NEW_LOG_FOLDER: &str = "wal.new";
/// The one version of the file there is.
const FORMAT: u32 = 1;

/// Who a data directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// The node it belongs to.
    pub node: NodeId,
    /// This life of the node's storage.
    pub incarnation: Incarnation,
    /// The voters that the controller's group was born with; none in the directory of a node that joined later.
    pub voters: Vec<FirstVoter>,
}

/// One of the cluster's first voters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstVoter {
    /// Its number.
    pub node: NodeId,
    /// The incarnation it was first formatted with.
    pub incarnation: Incarnation,
}

/// Why a data directory can't be formatted or served: a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No identity file.
    #[error(
        "{0} is not formatted. A new node: run `ackord format`. A node that had data here has lost it: do not format \
         under its old incarnation, but replace it: `ackord node replace`, then `ackord format --join`"
    )]
    Unformatted(PathBuf),
    /// It belongs to another cluster than the configuration says.
    #[error("{directory} belongs to cluster {found}, and the configuration names {expected}; check data_dir")]
    Foreign { directory: PathBuf, found: ClusterId, expected: ClusterId },
    /// It belongs to another node than the configuration says.
    #[error("{directory} belongs to node {found}, and the configuration is node {expected}'s; check data_dir")]
    OtherNode { directory: PathBuf, found: NodeId, expected: NodeId },
    /// It has an identity already.
    #[error("{0} is formatted already; formatting never overwrites. Choose an empty directory")]
    AlreadyFormatted(PathBuf),
    /// Something else lies there.
    #[error("{0} is not empty and not formatted; choose an empty directory")]
    NotEmpty(PathBuf),
    /// The voters contradict each other or the node.
    #[error("the first voters: {0}")]
    Voters(String),
    /// The file can't be understood.
    #[error("{file}: {problem}; restore it from a copy, the rest of the directory is of no use without it")]
    Damaged { file: PathBuf, problem: String },
    /// The operating system refused.
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
}

/// The file as TOML; numbers of 128 bits are written like Kafka's ids.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    /// `FORMAT`.
    format: u32,
    /// CRC-32C of everything else, in the form of `Document::checksum`.
    checksum: u32,
    /// The cluster.
    cluster_id: String,
    /// The node.
    node_id: u32,
    /// The directory's incarnation.
    incarnation: String,
    /// The first voters.
    voters: Vec<VoterDocument>,
}

/// A voter in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VoterDocument {
    /// Its number.
    node_id: u32,
    /// Its incarnation.
    incarnation: String,
}

impl Document {
    fn of(identity: &Identity) -> Self {
        let voter =
            |voter: &FirstVoter| VoterDocument { node_id: voter.node.0, incarnation: voter.incarnation.to_string() };
        let mut document = Self {
            format: FORMAT,
            checksum: 0,
            cluster_id: identity.cluster.to_string(),
            node_id: identity.node.0,
            incarnation: identity.incarnation.to_string(),
            voters: identity.voters.iter().map(voter).collect(),
        };
        document.checksum = document.expected_checksum();
        document
    }

    fn expected_checksum(&self) -> u32 {
        let mut text = format!("{} {} {} {}", self.format, self.cluster_id, self.node_id, self.incarnation);
        for voter in &self.voters {
            text += &format!(" {} {}", voter.node_id, voter.incarnation);
        }
        crc32c::crc32c(text.as_bytes())
    }

    fn identity(&self) -> Result<Identity, String> {
        if self.format != FORMAT {
            return Err(format!("format {} is unknown to this program; use a newer one", self.format));
        }
        if self.checksum != self.expected_checksum() {
            return Err("its checksum does not match: it was edited or damaged".to_owned());
        }
        let incarnation = |text: &str| text.parse().map_err(|error| format!("incarnation {text}: {error}"));
        let mut voters = Vec::with_capacity(self.voters.len());
        for voter in &self.voters {
            voters.push(FirstVoter { node: NodeId(voter.node_id), incarnation: incarnation(&voter.incarnation)? });
        }
        Ok(Identity {
            cluster: self.cluster_id.parse().map_err(|error| format!("cluster_id: {error}"))?,
            node: NodeId(self.node_id),
            incarnation: incarnation(&self.incarnation)?,
            voters,
        })
    }
}

/// 128 random bits from the operating system, for a new cluster's id or a new incarnation.
pub fn random_id() -> Result<u128, IdentityError> {
    let mut bytes = [0; 16];
    let refused = |error: getrandom::Error| IdentityError::Io {
        path: "getrandom".into(),
        error: io::Error::other(error.to_string()),
    };
    getrandom::fill(&mut bytes).map_err(refused)?;
    Ok(u128::from_be_bytes(bytes))
}

/// Makes an empty or missing directory this identity's. On return it is durable.
pub fn format(directory: &Path, identity: &Identity) -> Result<(), IdentityError> {
    check_voters(identity)?;
    fs::create_dir_all(directory).map_err(|error| io_error(directory, error))?;
    if directory.join(FILE_NAME).exists() {
        return Err(IdentityError::AlreadyFormatted(directory.to_owned()));
    }
    for entry in fs::read_dir(directory).map_err(|error| io_error(directory, error))? {
        let name = entry.map_err(|error| io_error(directory, error))?.file_name();
        match name.to_str() {
            Some(TEMPORARY_NAME | NEW_LOG_FOLDER | "lost+found") => {}
            _ => return Err(IdentityError::NotEmpty(directory.to_owned())),
        }
    }
    let text = toml::to_string(&Document::of(identity)).expect("a document holds numbers and strings only");
    let note = "# Written by `ackord format`. Who this directory is; never edit or copy it to another node.\n";
    write_durably(directory, &format!("{note}{text}"))
}

/// The temporary file first, so that a crash leaves the whole identity or none; then the name, then the directory's own
/// entry in its parent, which may be as new.
fn write_durably(directory: &Path, text: &str) -> Result<(), IdentityError> {
    let temporary = directory.join(TEMPORARY_NAME);
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, directory.join(FILE_NAME))?;
        File::open(directory)?.sync_all()?;
        match directory.canonicalize()?.parent() {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(|error| io_error(directory, error))
}

/// The directory's identity, when it is the one that the configuration names.
pub fn open(directory: &Path, node: NodeId, cluster: Option<ClusterId>) -> Result<Identity, IdentityError> {
    let identity = read(directory)?;
    match cluster {
        Some(expected) if expected != identity.cluster => {
            Err(IdentityError::Foreign { directory: directory.to_owned(), found: identity.cluster, expected })
        }
        _ if identity.node != node => {
            Err(IdentityError::OtherNode { directory: directory.to_owned(), found: identity.node, expected: node })
        }
        _ => Ok(identity),
    }
}

fn read(directory: &Path) -> Result<Identity, IdentityError> {
    let path = directory.join(FILE_NAME);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(IdentityError::Unformatted(directory.to_owned()));
        }
        Err(error) => return Err(io_error(&path, error)),
    };
    let damaged = |problem: String| IdentityError::Damaged { file: path.clone(), problem };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| io_error(&path, error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(damaged(format!("longer than {FILE_BYTES_MAX} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|error| damaged(error.to_string()))?;
    let document: Document = toml::from_str(&text).map_err(|error| damaged(error.to_string()))?;
    let identity = document.identity().map_err(damaged)?;
    check_voters(&identity)?;
    Ok(identity)
}

fn check_voters(identity: &Identity) -> Result<(), IdentityError> {
    let refuse = |problem: String| Err(IdentityError::Voters(problem));
    for (place, voter) in identity.voters.iter().enumerate() {
        if voter.node == identity.node && voter.incarnation != identity.incarnation {
            return refuse(format!("node {} is named with another incarnation than its own", voter.node));
        }
        let same = |other: &FirstVoter| other.node == voter.node || other.incarnation == voter.incarnation;
        if identity.voters[..place].iter().any(same) {
            return refuse(format!("node {}, or its incarnation, is named twice", voter.node));
        }
    }
    Ok(())
}

fn io_error(path: &Path, error: io::Error) -> IdentityError {
    IdentityError::Io { path: path.to_owned(), error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        let voter = |node: u32| FirstVoter { node: NodeId(node), incarnation: Incarnation(u128::from(node) << 100) };
        let voters = vec![voter(1), voter(2), voter(3)];
        Identity { cluster: ClusterId(1 << 90), node: NodeId(2), incarnation: voter(2).incarnation, voters }
    }

    #[test]
    fn what_format_writes_open_reads() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("not/there/yet");
        format(&data, &identity()).unwrap();
        assert_eq!(open(&data, NodeId(2), None).unwrap(), identity());
        assert_eq!(open(&data, NodeId(2), Some(ClusterId(1 << 90))).unwrap(), identity());
        let left: Vec<_> = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [FILE_NAME]);
    }

    #[test]
    fn other_directories_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path();
        assert!(matches!(open(data, NodeId(2), None), Err(IdentityError::Unformatted(_))));
        assert!(matches!(open(&data.join("no"), NodeId(2), None), Err(IdentityError::Unformatted(_))));
        format(data, &identity()).unwrap();
        assert!(matches!(open(data, NodeId(1), None), Err(IdentityError::OtherNode { .. })));
        assert!(matches!(open(data, NodeId(2), Some(ClusterId(5))), Err(IdentityError::Foreign { .. })));
    }

    #[test]
    fn formatting_never_overwrites() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("wal-1"), "records").unwrap();
        assert!(matches!(format(directory.path(), &identity()), Err(IdentityError::NotEmpty(_))));
        fs::remove_file(directory.path().join("wal-1")).unwrap();
        // What a crash while formatting leaves behind is no identity, and in nobody's way.
        fs::write(directory.path().join(TEMPORARY_NAME), "half").unwrap();
        assert!(matches!(open(directory.path(), NodeId(2), None), Err(IdentityError::Unformatted(_))));
        format(directory.path(), &identity()).unwrap();
        let again = Identity { incarnation: Incarnation(9), node: NodeId(9), ..identity() };
        assert!(matches!(format(directory.path(), &again), Err(IdentityError::AlreadyFormatted(_))));
        assert_eq!(open(directory.path(), NodeId(2), None).unwrap(), identity());
    }

    #[test]
    fn any_changed_byte_is_noticed_or_harmless() {
        let directory = tempfile::tempdir().unwrap();
        format(directory.path(), &identity()).unwrap();
        let file = directory.path().join(FILE_NAME);
        let written = fs::read(&file).unwrap();
        for place in 0..written.len() {
            for flip in [1, 4, 64] {
                let mut damaged = written.clone();
                damaged[place] ^= flip;
                fs::write(&file, &damaged).unwrap();
                match open(directory.path(), NodeId(2), None) {
                    Ok(read) => assert_eq!(read, identity(), "byte {place} matters"), // a comment, a space
                    Err(error) => assert!(matches!(error, IdentityError::Damaged { .. }), "byte {place}: {error}"),
                }
            }
            fs::write(&file, &written[..place]).unwrap();
            match open(directory.path(), NodeId(2), None) {
                Ok(read) => assert_eq!(read, identity(), "cut at {place}"), // only the last line break is missing
                Err(error) => assert!(matches!(error, IdentityError::Damaged { .. }), "cut at {place}: {error}"),
            }
        }
        fs::write(&file, vec![b'#'; 1 << 20]).unwrap();
        assert!(open(directory.path(), NodeId(2), None).unwrap_err().to_string().contains("longer than"));
    }

    #[test]
    fn voters_are_distinct_and_know_this_node() {
        let directory = tempfile::tempdir().unwrap();
        let mut cases = [identity(), identity(), identity()];
        cases[0].voters[2].node = NodeId(1);
        cases[1].voters[2].incarnation = cases[1].voters[0].incarnation;
        cases[2].incarnation = Incarnation(7);
        for case in cases {
            assert!(matches!(format(directory.path(), &case), Err(IdentityError::Voters(_))));
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        // A node that joins later is no first voter, and need not know them.
        let later = Identity { node: NodeId(4), incarnation: Incarnation(4), ..identity() };
        format(&directory.path().join("4"), &later).unwrap();
        let alone = Identity { voters: Vec::new(), ..later };
        format(&directory.path().join("alone"), &alone).unwrap();
        assert_eq!(open(&directory.path().join("alone"), NodeId(4), None).unwrap(), alone);
    }

    #[test]
    fn random_ids_differ() {
        assert_ne!(random_id().unwrap(), random_id().unwrap());
    }
}
