//! Which replies have left, in a file that is right at every moment.
//!
//! That a reply left is on record a moment later than it left. A controller that is killed in between would have it sent, or
//! its task run, once more. So each reply is noted here as it leaves: sixteen bytes, written where they stay when the process
//! is killed. The file holds the last [`MAX_RECEIPTS`]; what is on record by then needs no receipt.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use remuda_proto::Set;
use sha2::{Digest, Sha256};

/// Most receipts that are kept: many times what can be on its way to the disk.
pub const MAX_RECEIPTS: u64 = 1 << 18;

/// A receipt in the file: its number, which is at least 1, and what it is for.
const ENTRY_BYTES: usize = 16;

/// What stands for a request whose reply left: 64 bits of a hash, so that no two requests are taken for the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Receipt(u64);

impl Receipt {
    /// That of the request by this id.
    pub fn of(msg_id: &str) -> Self {
        let hash: [u8; 32] = Sha256::digest(msg_id.as_bytes()).into();
        Self(u64::from_le_bytes(hash.as_chunks().0[0]))
    }
}

/// The receipts of a controller and of those before it.
pub struct Receipts {
    path: PathBuf,
    file: File,
    /// The number of the next one. It stands at the place of its number modulo [`MAX_RECEIPTS`].
    next: AtomicU64,
    /// Whether nothing is noted any more: the process ends, or the disk failed.
    ended: AtomicBool,
}

impl Receipts {
    /// Opens the file, or makes it, readable for its owner alone. Also returns what is in it.
    ///
    /// # Errors
    /// When it cannot be made, read or written.
    pub fn open(path: &Path) -> io::Result<(Self, Set<Receipt>)> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let mut bytes = Vec::new();
        Read::by_ref(&mut file).take(MAX_RECEIPTS * ENTRY_BYTES as u64).read_to_end(&mut bytes)?;
        let (mut last, mut receipts) = (0, Set::default());
        // What was cut or never written has no number.
        for entry in bytes.as_chunks::<ENTRY_BYTES>().0 {
            let (number, receipt) = entry.split_at(ENTRY_BYTES / 2);
            let of = |half: &[u8]| half.try_into().map(u64::from_le_bytes).unwrap_or_default();
            let number = of(number);
            if number > 0 {
                last = last.max(number);
                receipts.insert(Receipt(of(receipt)));
            }
        }
        let (next, ended) = (AtomicU64::new(last.wrapping_add(1).max(1)), AtomicBool::new(false));
        Ok((Self { path: path.to_owned(), file, next, ended }, receipts))
    }

    /// The reply to this left. Any thread may say so.
    pub fn note(&self, receipt: Receipt) {
        if self.ended.load(Ordering::Relaxed) {
            return;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut entry = [0; ENTRY_BYTES];
        entry[..ENTRY_BYTES / 2].copy_from_slice(&number.to_le_bytes());
        entry[ENTRY_BYTES / 2..].copy_from_slice(&receipt.0.to_le_bytes());
        let place = (number % MAX_RECEIPTS) * ENTRY_BYTES as u64;
        if let Err(error) = self.file.write_all_at(&entry, place)
            && !self.ended.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "cannot write {}: {error}: should this controller be killed, some clients get replies twice",
                self.path.display()
            );
        }
    }

    /// Nothing leaves any more: what libzmq gives back from now on, it drops.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(number: u64) -> Receipt {
        Receipt::of(&number.to_string())
    }

    #[test]
    fn what_was_noted_is_there_for_each_later_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("receipts");
        for life in 0..3 {
            let (receipts, known) = Receipts::open(&path).unwrap();
            assert_eq!(known, (0..life).map(of).collect::<Set<_>>());
            receipts.note(of(life));
        }
    }

    #[test]
    fn the_last_ones_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("receipts");
        let (receipts, _) = Receipts::open(&path).unwrap();
        (0..MAX_RECEIPTS + 3).for_each(|number| receipts.note(of(number)));
        let (_, known) = Receipts::open(&path).unwrap();
        assert_eq!(known.len() as u64, MAX_RECEIPTS);
        assert!(!known.contains(&of(2)) && known.contains(&of(3)) && known.contains(&of(MAX_RECEIPTS + 2)));
    }

    #[test]
    fn a_file_that_was_cut_or_is_none_of_ours_harms_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("receipts");
        let (receipts, _) = Receipts::open(&path).unwrap();
        (0..10).for_each(|number| receipts.note(of(number)));
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let (receipts, known) = Receipts::open(&path).unwrap();
            assert!(known.iter().all(|receipt| (0..10).any(|number| of(number) == *receipt)));
            receipts.note(of(99));
            assert!(Receipts::open(&path).unwrap().1.contains(&of(99)));
        }
        std::fs::write(&path, [0xff; 100]).unwrap();
        let (receipts, _) = Receipts::open(&path).unwrap();
        receipts.note(of(99));
        assert!(Receipts::open(&path).unwrap().1.contains(&of(99)));
    }

    #[test]
    fn nothing_is_noted_after_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("receipts");
        let (receipts, _) = Receipts::open(&path).unwrap();
        receipts.end();
        receipts.note(of(1));
        assert!(Receipts::open(&path).unwrap().1.is_empty());
    }
}
