//! Where the inputs of fuzz targets are kept.

use std::path::PathBuf;

fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// Every input that is kept for a target, by name.
#[allow(dead_code, reason = "one of the tests that make seeds reads none")]
pub fn files(target: &str) -> Vec<PathBuf> {
    let entries = folder(target).read_dir().unwrap_or_else(|error| panic!("the corpus of {target}: {error}"));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.sort_unstable();
    files
}

/// Keeps a seed, if `ACKORD_WRITE_SEEDS` is set: `make fuzz` does.
pub fn keep(target: &str, name: &str, bytes: &[u8]) {
    if std::env::var_os("ACKORD_WRITE_SEEDS").is_some() {
        std::fs::create_dir_all(folder(target)).expect("the corpus can be written");
        std::fs::write(folder(target).join(format!("seed-{name}")), bytes).expect("the corpus can be written");
    }
}
