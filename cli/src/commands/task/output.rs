//! `remuda task output`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use remuda_client::MsgId;
use remuda_client::records::Record;
use serde_json::Value;

use super::follow::{EVERY, SHARE};
use super::source::{Intent, Selection, Source, State};
use crate::args::task::OutputArgs;
use crate::failure::{Failure, Outcome};

const KEYS: [&str; 4] = ["msg_id", "state", "stdout", "stderr"];
/// How often a task that has ended is looked at without anything new, before its output counts as whole: output comes on
/// another way than the reply.
const QUIET: u32 = 3;

pub(super) async fn run(args: &OutputArgs) -> Outcome {
    let mut source = Source::open(&args.source, Intent::Read).await?;
    let ids = source.tasks(std::slice::from_ref(&args.task)).await?;
    let mut printed = Printed::default();
    let mut quiet = 0;
    loop {
        let started = Instant::now();
        let record = read(&mut source, &ids).await?;
        let is_new = printed.more(&record, &mut io::stdout().lock(), &mut io::stderr().lock())?;
        let has_ended = State::of(&record).is_none_or(|state| !State::PENDING.contains(&state));
        quiet = if is_new || !has_ended { 0 } else { quiet + 1 };
        if !args.follow || matches!(source, Source::File(_)) || quiet >= QUIET {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(EVERY.max(started.elapsed().saturating_mul(SHARE))).await;
    }
}

async fn read(source: &mut Source, ids: &[MsgId]) -> Result<Record, Failure> {
    let mut records = source.records(&Selection::tasks(ids, &KEYS)).await?;
    match &records[..] {
        [_] => Ok(records.remove(0)),
        [] => Err(Failure::new(anyhow::anyhow!("the task has been purged"))),
        _ => {
            let copies: Vec<&str> = ids.iter().map(MsgId::as_str).collect();
            Err(Failure::new(anyhow::anyhow!("it is a broadcast: each engine has its own output"))
                .hint(format!("name one of its copies:\n  {}", copies.join("\n  "))))
        }
    }
}

/// How many bytes of each stream were printed.
#[derive(Debug, Default)]
struct Printed {
    stdout: usize,
    stderr: usize,
}

impl Printed {
    /// Prints what is new: whether there was any. The bytes are the task's own, whatever they do.
    fn more(&mut self, record: &Record, stdout: &mut impl Write, stderr: &mut impl Write) -> io::Result<bool> {
        let text = |name: &str| record.fields.get(name).and_then(Value::as_str).unwrap_or_default();
        // A stream never shrinks, but the controller may have been started anew without its records.
        let new = |text: &'_ str, printed: usize| text.get(printed..).map(str::to_owned).unwrap_or_default();
        let (out, err) = (new(text("stdout"), self.stdout), new(text("stderr"), self.stderr));
        stdout.write_all(out.as_bytes())?;
        stdout.flush()?;
        stderr.write_all(err.as_bytes())?;
        self.stdout += out.len();
        self.stderr += err.len();
        Ok(!out.is_empty() || !err.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_stream_goes_on_where_it_was() {
        let mut printed = Printed::default();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        for (stdout, stderr, is_new) in
            [("a", "", true), ("a", "", false), ("aé", "x", true), ("", "x", false), ("aéb", "xy", true)]
        {
            let Value::Object(fields) = json!({"stdout": stdout, "stderr": stderr}) else { panic!() };
            let record = Record { fields, ..Record::default() };
            assert_eq!(printed.more(&record, &mut out, &mut err).unwrap(), is_new, "{stdout}");
        }
        assert_eq!(
            (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap()),
            ("aéb".to_owned(), "xy".to_owned())
        );
    }
}
