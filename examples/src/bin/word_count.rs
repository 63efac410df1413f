//! The words that are most frequent in the files of a folder: engines count, the client adds up.
//!
//! ```sh
//! remuda controller &
//! cargo run --release -p remuda-examples --bin engine &
//! cargo run --release -p remuda-examples --bin word_count -- docs
//! ```
//!
//! It shows a map over more data than fits into memory (files are read as the tasks before them end), arguments that are
//! not copied, results that are added up as they come, and one that fails without the others.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example shows its results")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::pin;

use anyhow::Context;
use futures::StreamExt;
use remuda_client::Buffer;
use remuda_examples::count_words;

/// How many files are read ahead of the counting.
const AHEAD: usize = 32;
/// How many words are shown.
const TOP: usize = 10;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1).context("name a folder: word_count FOLDER")?;
    let files = files_in(Path::new(&folder))?;
    anyhow::ensure!(!files.is_empty(), "there are no files in {}", Path::new(&folder).display());

    let client = remuda_examples::connect().await?;
    let view = client.load_balanced_view().fail_unplaceable(true).retries(2).label("word_count");
    let texts = files.iter().filter_map(|file| match std::fs::read(file) {
        Ok(text) => Some(Buffer::from(text)),
        Err(error) => {
            eprintln!("{} is left out: {error}", file.display());
            None
        }
    });
    let mut results = pin!(view.imap(count_words, texts).max_outstanding(AHEAD).as_completed());

    let mut total: BTreeMap<String, u64> = BTreeMap::new();
    let mut counted = 0;
    while let Some((_, counts)) = results.next().await {
        for (word, count) in counts? {
            *total.entry(word).or_default() += count;
        }
        counted += 1;
    }
    eprintln!("{counted} files, {} words, {} different", total.values().sum::<u64>(), total.len());

    let mut words: Vec<_> = total.into_iter().collect();
    words.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    for (word, count) in words.iter().take(TOP) {
        println!("{count:>8}  {word}");
    }
    Ok(())
}

/// All files in a folder and in those within, hidden ones left out, in a fixed order.
fn files_in(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            // Links are not followed, so that there is an end.
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}
