//! The jobs, as they come.

use std::io::{self, IsTerminal};

use bytes::Bytes;
use tokio::sync::mpsc::{Receiver, channel};

use super::blocks::Blocks;
use super::input::{self, Rows, Source};
use super::template::{Job, Template};
use crate::args::map::MapArgs;
use crate::failure::Failure;

/// Jobs that are made and not submitted.
const AHEAD: usize = 1024;
/// Blocks that are read and not submitted.
const BLOCKS_AHEAD: usize = 2;

/// A job, and what its program reads on stdin.
pub(super) struct Next {
    pub(super) job: Job,
    pub(super) stdin: Option<Bytes>,
}

/// All jobs, one after the other: nothing is read before it is needed.
pub(super) struct Jobs {
    template: Template,
    values: Values,
    /// The number of the last job.
    seq: u64,
}

/// What the jobs are for.
enum Values {
    Rows(Rows),
    Blocks(Blocks<io::Stdin>),
}

impl Jobs {
    /// Reads what was typed.
    pub(super) fn read(args: &MapArgs) -> Result<Self, Failure> {
        let words: Vec<&str> = args
            .command
            .iter()
            .map(|word| {
                word.to_str().ok_or_else(|| {
                    Failure::usage(format!("`{}` is not UTF-8, and a task can hold only text", word.to_string_lossy()))
                })
            })
            .collect::<Result<_, _>>()?;
        let input::Parts { template, groups } = input::split(&words)?;
        let mut groups: Vec<Vec<Source>> = input::files(&args.arg_file).into_iter().chain(groups).collect();
        if args.pipe {
            if !groups.is_empty() {
                return Err(Failure::usage("`--pipe` cuts stdin into blocks: there is no place for other values"));
            }
            let template = Template::read(&template, args.shell, false);
            return Ok(Self { template, values: Values::Blocks(Blocks::new(io::stdin(), args.block)), seq: 0 });
        }
        if groups.is_empty() {
            if io::stdin().is_terminal() {
                const HINT: &str = "for example: remuda map -- sha256sum {} ::: *.txt";
                return Err(Failure::usage("no values: give them after `:::`, or on stdin").hint(HINT));
            }
            groups.push(vec![Source::Stdin]);
        }
        let many = args.max_args.map(|many| usize::try_from(many).unwrap_or(usize::MAX));
        if many.is_some() && (groups.len() > 1 || groups[0].len() > 1) {
            return Err(Failure::usage("`--max-args` takes values of one group, and there are several"));
        }
        let end = if args.null { 0 } else { b'\n' };
        let rows = Rows::open(&groups, end, many).map_err(|error| Failure::usage(error.to_string()))?;
        Ok(Self { template: Template::read(&template, args.shell, true), values: Values::Rows(rows), seq: 0 })
    }

    /// How many there are, if that is known.
    pub(super) fn known_count(&self) -> Option<usize> {
        match &self.values {
            Values::Rows(rows) => rows.known_count(),
            Values::Blocks(_) => None,
        }
    }

    /// Refuses a program that is not there, where it is the same for all.
    pub(super) fn check_program(&self) -> Result<(), Failure> {
        self.template.check_program()
    }

    /// Makes them on a thread of its own, since reading may take its time.
    pub(super) fn start(self) -> io::Result<Receiver<Result<Next, Failure>>> {
        let (sender, receiver) = channel(if matches!(self.values, Values::Blocks(_)) { BLOCKS_AHEAD } else { AHEAD });
        std::thread::Builder::new().name("values".to_owned()).spawn(move || {
            for next in self {
                if sender.blocking_send(next).is_err() {
                    break;
                }
            }
        })?;
        Ok(receiver)
    }
}

impl Iterator for Jobs {
    type Item = Result<Next, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        let (values, stdin) = match &mut self.values {
            Values::Rows(rows) => (rows.next()?, None),
            Values::Blocks(blocks) => match blocks.next()? {
                Ok(block) => (Ok(Vec::new()), Some(block)),
                Err(error) => (Err(error), None),
            },
        };
        self.seq += 1;
        let job = values
            .map_err(|error| Failure::usage(error.to_string()))
            .and_then(|values| self.template.job(self.seq, values));
        Some(job.map(|job| Next { job, stdin }))
    }
}
