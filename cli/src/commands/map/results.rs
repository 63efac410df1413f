//! What each job wrote, in files (`--results`), as GNU parallel lays them out: `DIR/1/VALUE/2/VALUE/stdout`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use remuda_client::{ProcessResult, ProgramStream};

use super::template::Job;
use crate::commands::spooled::Spooled;

/// Writes `stdout`, `stderr` and `seq` of a job that has ended. Returns the folder that they are in.
///
/// What is too much for the result is read from the engine.
pub(super) async fn write(
    folder: &Path,
    job: &Job,
    result: &ProcessResult,
    spooled: Option<Spooled<'_>>,
) -> io::Result<PathBuf> {
    let folder = place(folder, &job.values, job.seq);
    fs::create_dir_all(&folder)?;
    let outcome = &result.outcome;
    for (name, stream, head, all) in [
        ("stdout", ProgramStream::Stdout, &result.stdout, outcome.stdout_file_bytes),
        ("stderr", ProgramStream::Stderr, &result.stderr, outcome.stderr_file_bytes),
    ] {
        let mut file = fs::File::create(folder.join(name))?;
        match &spooled {
            Some(spooled) => spooled.rest(stream, head, all, &mut file).await?,
            None => file.write_all(head)?,
        }
    }
    fs::write(folder.join("seq"), format!("{}\n", job.seq))?;
    Ok(folder)
}

/// The folder of a job, by its values, or by its number if it has none.
fn place(folder: &Path, values: &[String], seq: u64) -> PathBuf {
    let mut place = folder.to_owned();
    if values.is_empty() {
        place.push(seq.to_string());
    }
    for (number, value) in values.iter().enumerate() {
        place.push((number + 1).to_string());
        place.push(name(value));
    }
    place
}

/// A value as the name of a folder.
fn name(value: &str) -> String {
    match value {
        "" => "+e".to_owned(),
        "." | ".." => value.replace('.', "+d"),
        _ => value.replace('+', "++").replace('/', "+z").replace('\0', "+0"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_differ_have_folders_that_differ() {
        let values = ["", "+e", ".", "..", "+d", "a/b", "a+zb", "a++zb", "a", "+"];
        let names: Vec<String> = values.map(name).to_vec();
        for (at, one) in names.iter().enumerate() {
            assert!(!one.contains('/') && !one.is_empty() && !matches!(&**one, "." | ".."), "{one}");
            assert!(!names[..at].contains(one), "{one} twice: {names:?}");
        }
        let values = ["x".to_owned(), "d/y".to_owned()];
        assert_eq!(place(Path::new("out"), &values, 3), Path::new("out/1/x/2/d+zy"));
        assert_eq!(place(Path::new("out"), &[], 3), Path::new("out/3"));
    }
}
