//! The files that an engine makes for a program: `${input_file}` and `${output_file}`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sys::stat::Mode;
use remuda_proto::message::native::{ProcessTask, ProgramInput, ProgramOutput};
use tempfile::TempDir;

/// What stands for the file's path in arguments and variables.
const INPUT: &str = "${input_file}";
const OUTPUT: &str = "${output_file}";

/// The folder of one task, gone with this.
pub(super) struct Files {
    folder: TempDir,
}

impl Files {
    /// Makes what a task asks for; `None` if it asks for nothing.
    pub(super) fn make(folder: &Path, task: &ProcessTask, input: Option<&[u8]>) -> io::Result<Option<Self>> {
        let has_input = !matches!(task.input, None | Some(ProgramInput::Stdin | ProgramInput::HostFile(_)));
        if !has_input && task.output.is_none() {
            return Ok(None);
        }
        let files = Self { folder: tempfile::Builder::new().prefix("remuda-task-").tempdir_in(folder)? };
        match &task.input {
            Some(ProgramInput::File) => private(&files.input())?.write_all(input.unwrap_or_default())?,
            Some(ProgramInput::AppendedFile(_)) => drop(private(&files.input())?),
            Some(ProgramInput::Pipe(_)) => fifo(&files.input())?,
            Some(ProgramInput::Stdin | ProgramInput::HostFile(_) | ProgramInput::Tcp(..)) | None => {}
        }
        match &task.output {
            Some(ProgramOutput::Pipe) => fifo(&files.output())?,
            // There from the start, so that it can be looked at; most programs write it anew.
            Some(ProgramOutput::GrowingFile) => drop(private(&files.output())?),
            Some(ProgramOutput::File) | None => {}
        }
        Ok(Some(files))
    }

    pub(super) fn input(&self) -> PathBuf {
        self.folder.path().join("input")
    }

    pub(super) fn output(&self) -> PathBuf {
        self.folder.path().join("output")
    }

    /// Puts the paths where they belong.
    pub(super) fn fill(&self, text: &str) -> String {
        // Nothing else can be in a path that the system gave: it is text.
        let path = |path: PathBuf| path.to_string_lossy().into_owned();
        text.replace(INPUT, &path(self.input())).replace(OUTPUT, &path(self.output()))
    }

    /// The named pipe that the program reads, once it does; `None` before.
    pub(super) fn open_input_pipe(&self) -> io::Result<Option<OwnedFd>> {
        match OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(self.input()) {
            Ok(file) => Ok(Some(file.into())),
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The named pipe that the program writes. Open for both, so that it does not end before the program has.
    pub(super) fn open_output_pipe(&self) -> io::Result<OwnedFd> {
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(self.output())?;
        debug_assert!(file.as_raw_fd() > 2);
        Ok(file.into())
    }
}

fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn fifo(path: &Path) -> io::Result<()> {
    Ok(nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?)
}
