//! Whether what the hub says in the end is what clients saw.

use remuda_proto::{Body, MsgId, Packer};
use serde_json::Value;

use super::{ClientBook, TaskBook, Verdict, Violation};

/// All queues are empty, and as many tasks ended as the scheduler was seen to end. `only_tasks`: there were no direct
/// requests, so the numbers have to be the same.
pub(crate) fn check_queues(content: &Value, book: &TaskBook, only_tasks: bool) -> Verdict {
    let wrong = |reason: String| Err(Violation::new("queues", format!("{reason}: {content}")));
    let engines = content.as_object().into_iter().flatten().filter(|(key, _)| key.parse::<u32>().is_ok());
    for (id, counts) in engines {
        if counts["queue"] != 0 || counts["tasks"] != 0 {
            return wrong(format!("nothing is under way, but engine {id} is said to have something"));
        }
    }
    if content["unassigned"] != 0 {
        return wrong("no task waits, but some are said to".to_owned());
    }
    let status = &content["remuda"];
    if status["waiting"] != 0 || status["running"] != 0 {
        return wrong("nothing is under way, but something is said to be".to_owned());
    }
    let count = |key: &str| status["done"][key].as_u64().unwrap_or(0);
    let (ok, other) = (count("ok"), count("error") + count("aborted"));
    let seen = book.ended().filter(|(_, ended)| *ended == Some(true)).count() as u64;
    let (seen_ok, seen_other) = (seen, book.accepted() as u64 - seen);
    let agrees = if only_tasks { (ok, other) == (seen_ok, seen_other) } else { ok >= seen_ok && other >= seen_other };
    if !agrees {
        return wrong(format!("{seen_ok} tasks ended well and {seen_other} did not, it says {ok} and {other}"));
    }
    Ok(())
}

/// The result of each of these tasks is what its client was sent. `asked`: in ascending order.
pub(crate) fn check_results(
    packer: Packer,
    asked: &[MsgId],
    content: &Value,
    body: &Body,
    book: &TaskBook,
    clients: &ClientBook,
) -> Verdict {
    if content["status"] != "ok" {
        return Err(Violation::new("records", format!("results of tasks that ended are refused: {content}")));
    }
    let mut buffers = body.buffers();
    // Buffers come in the order of the ids.
    for msg_id in asked {
        let Some(reply) = book.reply(msg_id).or_else(|| clients.reply(msg_id)) else { continue };
        if clients.reply(msg_id).is_some_and(|got| got != reply) {
            return Err(Violation::of("client", msg_id, "its client got another reply than was sent"));
        }
        let record = &content[msg_id.as_str()];
        for (key, part) in [
            ("result_header", reply.header()),
            ("result_metadata", reply.metadata()),
            ("result_content", reply.content()),
        ] {
            let seen: Value = packer.unpack(part).unwrap_or_default();
            if record[key] != seen {
                let reason = format!("its {key} is {} on record, and its client was sent {seen}", record[key]);
                return Err(Violation::of("records", msg_id, reason));
            }
        }
        for (at, buffer) in reply.buffers().enumerate() {
            if buffers.next() != Some(buffer) {
                return Err(Violation::of(
                    "records",
                    msg_id,
                    format!("buffer {at} of its result is not what its client was sent"),
                ));
            }
        }
    }
    Ok(())
}
