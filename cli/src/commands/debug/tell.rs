//! Stories in words: what happened, in order of time; then where the task is, why, and what helps.

use std::fmt::Write;

use remuda_proto::message::story::{
    Assigned, AttemptEnd, BackingOff, BroadcastStory, EngineName, Finished, Forgotten, MAX_COUNTED, Obstacle, Ready,
    Sent, Story, StoryReply, TaskState, TaskStory, Told, Waiting, WaitsFor, Why,
};
use remuda_proto::{Date, Status};
use serde_json::Value;

/// All stories; `options` lead to the same cluster, for commands that are shown.
pub(super) fn stories(reply: &StoryReply, options: &str) -> String {
    let told = reply.stories.iter().map(|story| one(story, reply.now, options));
    told.collect::<Vec<_>>().join("\n")
}

fn one(story: &Story, now: Date, options: &str) -> String {
    let mut text = Text::default();
    match &story.told {
        Told::Task(task) => text.task(task, now),
        Told::Broadcast(broadcast) => text.broadcast(broadcast),
        Told::Several { count, msg_ids } => {
            text.line(format_args!("{}: {count} requests begin so", story.asked));
            msg_ids.iter().for_each(|msg_id| text.line(format_args!("  {msg_id}")));
            if (msg_ids.len() as u64) < *count {
                text.line(format_args!("  …"));
            }
            text.line(format_args!("  what helps: give more of the id"));
        }
        Told::Unknown => {
            text.line(format_args!("{}: no request is known by this id", story.asked));
            text.line(format_args!(
                "  It was never submitted here, or has ended and is forgotten: records are dropped beyond a limit"
            ));
            text.line(format_args!(
                "  (`--record-limit`), when they are purged, and where none are kept (`--nodb`). Control requests (abort,"
            ));
            text.line(format_args!("  signal, shutdown) are not recorded."));
            text.line(format_args!(
                "  what helps: compare it with `msg_ids` of the result; `remuda debug dump{options}` lists tasks that live"
            ));
        }
    }
    text.0
}

/// The words of a story as they come.
#[derive(Default)]
struct Text(String);

impl Text {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("a text takes all that is written");
    }

    fn task(&mut self, task: &TaskStory, now: Date) {
        self.heading(task);
        let start = task.submitted.or_else(|| first_date(task)).unwrap_or(now);
        let mut events = events(task);
        // Clocks of clients and engines may be off; what the controller saw stands in the order of its own.
        events.sort_by_key(|(date, _)| *date);
        for (date, event) in events {
            self.line(format_args!("  {}  {:>12}  {event}", clock(date), relative(date, start)));
        }
        let at = format!("  {}  {:>12}  now:", clock(now), relative(now, start));
        match &task.state {
            TaskState::Waiting(waiting) => self.waiting(&at, waiting, now),
            TaskState::BackingOff(BackingOff { since, until }) => {
                let (long, left) = (seconds(now.0 - since.0), seconds(until.0 - now.0));
                self.line(format_args!("{at} it is a service that ended, {long} ago, and is started again in {left}"));
            }
            TaskState::Ready(ready) => self.ready(&at, ready, now),
            TaskState::Assigned(assigned) => self.assigned(&at, task, assigned, now),
            TaskState::Sent(sent) => self.sent(&at, sent),
            TaskState::Finished(finished) => {
                let how = how_it_ended(finished.status);
                self.line(format_args!("{at} it is done, and {how}"));
            }
            TaskState::Forgotten(Forgotten { ok, engine }) => {
                let how = match ok {
                    Some(true) => "with a result",
                    Some(false) => "with an error, or aborted",
                    None => "in whichever way",
                };
                let at_engine = engine.as_ref().map(|engine| format!(" on {}", name(engine))).unwrap_or_default();
                self.line(format_args!("{at} it has ended, {how}{at_engine}; more is not known"));
                self.line(format_args!(
                    "    Its record is gone: dropped beyond a limit (`--record-limit`), purged, or never kept (`--nodb`)."
                ));
            }
            TaskState::Lost => {
                self.line(format_args!("{at} it is on record without a reply, and nobody has it"));
                self.line(format_args!(
                    "    The controller was started since it was submitted, or ended before it was sent on."
                ));
                self.line(format_args!("    what helps: submit it again, from Python with `client.resubmit`"));
            }
            TaskState::Untold { waited_ms } => {
                self.line(format_args!(
                    "{at} the task scheduler has it, and did not say more within {} s",
                    *waited_ms / 1000
                ));
                self.line(format_args!(
                    "    what helps: ask again; it is busy, or the process was stopped for a while"
                ));
            }
        }
        if let Some(again) = &task.resubmitted {
            self.line(format_args!("    It was submitted once more, as {again}."));
        }
    }

    fn heading(&mut self, task: &TaskStory) {
        self.line(format_args!("task {}", task.msg_id));
        let mut words = vec![match &*task.queue {
            "task" => "for any engine that fits (task queue)".to_owned(),
            "mux" => "for one engine (direct queue)".to_owned(),
            "broadcast" => "for one engine, as a copy of a broadcast".to_owned(),
            _ => "of which little is known".to_owned(),
        }];
        if !task.msg_type.is_empty() {
            words.insert(0, task.msg_type.clone());
        }
        if let Some(client) = &task.client {
            words.push(format!("of client {client}"));
        }
        match &task.label {
            None => {}
            Some(Value::String(label)) => words.push(format!("label `{label}`")),
            Some(label) => words.push(format!("label {label}")),
        }
        if let Some(parent) = &task.parent {
            words.push(format!("child of {parent}"));
        }
        self.line(format_args!("  {}", words.join(", ")));
    }

    fn waiting(&mut self, at: &str, waiting: &Waiting, now: Date) {
        self.line(format_args!("{at} it waits for other tasks, for {}", seconds(now.0 - waiting.since.0)));
        for (word, waits) in [("after", &waiting.after), ("follow", &waiting.follow)] {
            let Some(waits) = waits else { continue };
            self.line(format_args!("    `{word}`: {}", dependency(waits)));
        }
        self.timeout(waiting.until, now);
        self.line(format_args!("    what helps: `remuda debug story` of what it waits for"));
    }

    fn ready(&mut self, at: &str, ready: &Ready, now: Date) {
        let Ready { since, until, need, ahead, hwm, registered, obstacles } = ready;
        let long = seconds(now.0 - since.0);
        match registered {
            0 => self.line(format_args!("{at} it waits for an engine, for {long}: none is registered")),
            1 => self.line(format_args!(
                "{at} it waits for an engine, for {long}: the one that is registered cannot take it"
            )),
            many => self.line(format_args!("{at} it waits for an engine, for {long}: none of {many} can take it")),
        }
        for obstacle in obstacles {
            self.line(format_args!("    {}", reason(obstacle, *hwm, need)));
        }
        match ahead {
            0 => {}
            many if *many >= MAX_COUNTED as u64 => {
                self.line(format_args!("    {many} tasks or more are before it in line"));
            }
            1 => self.line(format_args!("    1 task is before it in line")),
            many => self.line(format_args!("    {many} tasks are before it in line")),
        }
        self.timeout(*until, now);
        self.line(format_args!("    what helps: {}", advice(ready)));
    }

    fn assigned(&mut self, at: &str, task: &TaskStory, assigned: &Assigned, now: Date) {
        let Assigned { engine, since, tasks, until } = assigned;
        let long = seconds(now.0 - since.0);
        let attempt = task.tried + 1;
        let left = task.retries_left.unwrap_or(0);
        let retries = match left {
            1 => "1 retry left".to_owned(),
            // A service without a limit counts down from the largest number there is.
            many if many > u32::MAX / 2 => "started again without end".to_owned(),
            many => format!("{many} retries left"),
        };
        self.line(format_args!("{at} {} has it, for {long}: attempt {attempt}, {retries}", name(engine)));
        match until {
            Some(until) => {
                self.line(format_args!(
                    "    The engine is gone. A reply that is on its way counts until {} (in {}); then the task {}.",
                    clock(*until),
                    seconds(until.0 - now.0),
                    if left > 0 { "is tried elsewhere" } else { "fails with an EngineError" }
                ));
            }
            None if *tasks > 1 => {
                self.line(format_args!(
                    "    The engine has {tasks} tasks and runs them one after another: it may not have begun this one."
                ));
                self.line(format_args!(
                    "    what helps: a lower `--hwm`, so that tasks wait here for the engine that is free first"
                ));
            }
            None => self.line(format_args!("    It runs there, and has not been answered.")),
        }
    }

    fn sent(&mut self, at: &str, sent: &Sent) {
        let Sent { engine, unanswered } = sent;
        self.line(format_args!("{at} {} has it, and has not answered", name(engine)));
        if engine.id.is_none() {
            self.line(format_args!("    The engine is gone: the request is given up a while after it left."));
        } else if *unanswered > 1 {
            self.line(format_args!(
                "    It has {unanswered} such requests and runs them one after another: it may not have begun this one."
            ));
        }
    }

    fn broadcast(&mut self, story: &BroadcastStory) {
        let BroadcastStory { msg_id, client, submitted, engines, ok, failed, forgotten, missing, named } = story;
        self.line(format_args!("broadcast {msg_id}"));
        let client = client.as_ref().map(|client| format!(", of client {client}")).unwrap_or_default();
        self.line(format_args!("  to {}{client}", count(*engines, "engine")));
        if let Some(submitted) = submitted {
            self.line(format_args!("  {}  submitted", clock(*submitted)));
        }
        let mut words = vec![format!("{ok} answered")];
        for (number, word) in [(failed, "failed"), (forgotten, "ended in ways that are not known any more")] {
            if *number > 0 {
                words.push(format!("{number} {word}"));
            }
        }
        self.line(format_args!("  now: {}, {missing} missing", words.join(", ")));
        if *missing > 0 {
            let names: Vec<String> = named.iter().map(name).collect();
            let more = if (names.len() as u64) < *missing { ", …" } else { "" };
            self.line(format_args!("    missing: {}{more}", names.join(", ")));
            self.line(format_args!(
                "    The client has its answer when all have answered, unless it asked for them one by one."
            ));
        }
    }

    fn timeout(&mut self, until: Option<Date>, now: Date) {
        match until {
            Some(until) => {
                self.line(format_args!("    It gives up at {} (in {}).", clock(until), seconds(until.0 - now.0)));
            }
            None => self.line(format_args!("    It has no timeout, and waits for as long as that takes.")),
        }
    }
}

/// What happened, and when.
fn events(task: &TaskStory) -> Vec<(Date, String)> {
    let mut events: Vec<(Date, String)> = Vec::new();
    events.extend(task.submitted.map(|date| (date, "submitted (by the client's clock)".to_owned())));
    let left_out = task.tried.saturating_sub(task.attempts.len() as u64);
    for (at, attempt) in task.attempts.iter().enumerate() {
        let number = left_out + at as u64 + 1;
        let engine = name(&attempt.engine);
        events.push((attempt.sent, format!("sent to {engine}, attempt {number}")));
        let end = match &attempt.end {
            // Its reply is the task's, which is told of below.
            AttemptEnd::Replied => continue,
            AttemptEnd::Failed(error) => format!("failed on {engine}: {error}"),
            AttemptEnd::Succeeded => format!("ended well on {engine}"),
            AttemptEnd::Unmet => format!("{engine} could not run it (a dependency that it checks itself was not met)"),
            AttemptEnd::Died => format!("{engine} was gone, and no reply came in time"),
            AttemptEnd::Undelivered => format!("was not sent after all: {engine} does not read (--max-unread-bytes)"),
            AttemptEnd::Lost => {
                format!("was lost when the controller died: {engine} does not have it, or did not come back")
            }
        };
        events.push((attempt.ended, end));
    }
    match &task.state {
        TaskState::Assigned(assigned) => {
            events.push((assigned.since, format!("sent to {}", name(&assigned.engine))));
        }
        TaskState::Finished(Finished { status, error, engine, started, completed, received }) => {
            let on = engine.as_ref().map(|engine| format!(" on {}", name(engine))).unwrap_or_default();
            events.extend(started.map(|date| (date, format!("started{on} (by the engine's clock)"))));
            let error = error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            events.push((*completed, format!("{}{on}{error}", how_it_ended(*status))));
            events.push((*received, "the reply was recorded".to_owned()));
        }
        _ => {}
    }
    events
}

fn first_date(task: &TaskStory) -> Option<Date> {
    events(task).into_iter().map(|(date, _)| date).min()
}

fn how_it_ended(status: Status) -> &'static str {
    match status {
        Status::Ok => "succeeded",
        Status::Error => "failed",
        Status::Aborted => "was aborted",
    }
}

fn dependency(waits: &WaitsFor) -> String {
    let WaitsFor { all, success, failure, tasks, counted, against, unfinished } = waits;
    let which = match (tasks, all) {
        (1, _) => "1 task has to".to_owned(),
        (_, true) => format!("all of {tasks} tasks have to"),
        (_, false) => format!("any of {tasks} tasks has to"),
    };
    let how = match (success, failure) {
        (true, true) => "end",
        (true, false) => "succeed",
        _ => "fail",
    };
    let open = tasks.saturating_sub(counted + against);
    let against = if *against > 0 { format!(", {against} ended otherwise") } else { String::new() };
    let mut names: Vec<String> = unfinished.iter().map(|(msg_id, state)| format!("{msg_id} ({state})")).collect();
    if (names.len() as u64) < open {
        names.push("…".to_owned());
    }
    format!("{which} {how}: {counted} did{against}, {open} not yet: {}", names.join(", "))
}

fn reason(obstacle: &Obstacle, hwm: u32, need: &str) -> String {
    let Obstacle { why, engines, named } = obstacle;
    let names: Vec<String> = named
        .iter()
        .map(|load| match why {
            Why::NoRoom => format!("{} with {}", name(&load.engine), count(load.tasks, "task")),
            _ => name(&load.engine),
        })
        .collect();
    let more = if (names.len() as u64) < *engines && !names.is_empty() { ", …" } else { "" };
    let names = if names.is_empty() { String::new() } else { format!(": {}{more}", names.join(", ")) };
    let one = *engines == 1;
    let (has, is) = if one { ("has", "is") } else { ("have", "are") };
    let (it, get) = if one { ("it", "gets") } else { ("they", "get") };
    let what = match why {
        Why::NoRoom => format!("{has} no room (hwm {hwm})"),
        Why::Draining => format!("{is} to finish what {it} {has} and {get} nothing more"),
        Why::Tried => "tried it already, and no engine gets a task twice".to_owned(),
        Why::Gone => format!("that it names {is} not registered"),
        Why::NotATarget => format!("{is} not among the engines that it names"),
        Why::NotFollowed => format!("{is} not where the tasks ran that it has to follow"),
        Why::CannotRun => format!("cannot run it: it needs {need}"),
        Why::Unheard => "of the earlier controller may have it and did not answer yet".to_owned(),
    };
    format!("{} {what}{names}", count(*engines, "engine"))
}

fn advice(ready: &Ready) -> String {
    let has = |why: Why| ready.obstacles.iter().any(|obstacle| obstacle.why == why);
    let start = match &*ready.need {
        "python" => "a Python engine (`ipengine`)",
        "process" => "an engine that runs programs (`remuda engine`)",
        _ => "an engine that registers this function",
    };
    if has(Why::Unheard) {
        return "wait until these have answered, or are given up after a minute".to_owned();
    }
    if has(Why::NoRoom) {
        return "wait until one of these has done a task; more engines or a higher `--hwm` make the line shorter"
            .to_owned();
    }
    if has(Why::Draining) {
        return "start more engines, or let these have tasks again with `remuda cluster engines drain --undo`"
            .to_owned();
    }
    if has(Why::Gone) {
        return "wait until an engine that it names comes back, or submit it again for others".to_owned();
    }
    if has(Why::Tried) {
        return format!("{start} that did not try it yet; or abort it, and submit it again");
    }
    format!("start {start}")
}

fn name(engine: &EngineName) -> String {
    match engine.id {
        Some(id) => format!("engine {id}"),
        None => format!("engine {} (not registered)", engine.uuid),
    }
}

fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// A date to the millisecond.
fn clock(date: Date) -> String {
    let millis = Date(date.0.div_euclid(1000) * 1000).to_string();
    let text = millis.trim_end_matches('Z');
    match text.split_once('.') {
        Some((seconds, fraction)) => format!("{seconds}.{}Z", &fraction[..3]),
        None => format!("{text}.000Z"),
    }
}

fn relative(date: Date, start: Date) -> String {
    let micros = date.0 - start.0;
    format!("{}{}", if micros < 0 { "-" } else { "+" }, seconds(micros.abs()))
}

/// A time of so many microseconds.
fn seconds(micros: i64) -> String {
    format!("{:.3} s", micros.max(0) as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use remuda_proto::EngineId;
    use remuda_proto::message::content::OkStatus;
    use remuda_proto::message::story::{Attempt, EngineLoad};

    fn date(millis: i64) -> Date {
        Date(Date::parse("2026-11-22T11:00:00Z").unwrap().0 + millis * 1000)
    }

    fn engine(id: u32) -> EngineName {
        EngineName { id: Some(EngineId(id)), uuid: format!("u{id}").into() }
    }

    fn told(state: TaskState, attempts: Vec<Attempt>) -> String {
        let task = TaskStory {
            msg_id: "c_1_2".into(),
            msg_type: "apply_request".to_owned(),
            queue: "task".to_owned(),
            client: Some("c".to_owned()),
            label: Some("sweep".into()),
            parent: None,
            submitted: Some(date(0)),
            retries_left: Some(1),
            tried: attempts.len() as u64,
            attempts,
            resubmitted: None,
            on_record: true,
            state,
        };
        let story = Story { asked: "c_1".to_owned(), told: Told::Task(Box::new(task)) };
        stories(&StoryReply { status: OkStatus::Ok, now: date(60_500), stories: vec![story] }, "")
    }

    #[test]
    fn a_story_is_in_order_of_time_and_says_when_twice() {
        let attempt = |id, sent, ended, end| Attempt { engine: engine(id), sent: date(sent), ended: date(ended), end };
        let attempts = vec![
            attempt(0, 2, 102, AttemptEnd::Failed("ZeroDivisionError: division by zero".into())),
            attempt(1, 103, 5_000, AttemptEnd::Died),
        ];
        let state = TaskState::Assigned(Assigned { engine: engine(2), since: date(5_001), tasks: 3, until: None });
        let text = told(state, attempts);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..3],
            [
                "task c_1_2",
                "  apply_request, for any engine that fits (task queue), of client c, label `sweep`",
                "  2026-11-22T11:00:00.000Z      +0.000 s  submitted (by the client's clock)",
            ]
        );
        assert_eq!(
            lines[4],
            "  2026-11-22T11:00:00.102Z      +0.102 s  failed on engine 0: ZeroDivisionError: division by zero"
        );
        assert!(lines[8].contains("now: engine 2 has it, for 55.499 s: attempt 3, 1 retry left"), "{text}");
        assert!(lines[9].contains("has 3 tasks"), "{text}");
    }

    #[test]
    fn a_task_that_is_ready_is_told_why_and_what_helps() {
        let ready = |registered, obstacles: &[(Why, u64, Vec<EngineLoad>)]| {
            let obstacles = obstacles.iter().map(|(why, engines, named)| Obstacle {
                why: *why,
                engines: *engines,
                named: named.clone(),
            });
            TaskState::Ready(Ready {
                since: date(500),
                until: Some(date(90_500)),
                need: "python".to_owned(),
                ahead: 7,
                hwm: 1,
                registered,
                obstacles: obstacles.collect(),
            })
        };
        let text = told(ready(0, &[]), Vec::new());
        for words in ["for 60.000 s: none is registered", "start a Python engine (`ipengine`)", "(in 30.000 s)"] {
            assert!(text.contains(words), "{text}");
        }
        let load = |id, tasks| EngineLoad { engine: engine(id), tasks };
        let text = told(ready(4, &[(Why::NoRoom, 3, vec![load(3, 1)]), (Why::NotATarget, 1, Vec::new())]), Vec::new());
        for words in [
            "none of 4 can take it",
            "3 engines have no room (hwm 1): engine 3 with 1 task, …",
            "1 engine is not among the engines that it names\n",
            "7 tasks are before it in line",
            "a higher `--hwm`",
        ] {
            assert!(text.contains(words), "{words}\n{text}");
        }
    }

    #[test]
    fn what_a_task_waits_for_is_counted_and_named() {
        let waits = WaitsFor {
            all: true,
            success: true,
            failure: false,
            tasks: 9,
            counted: 6,
            against: 0,
            unfinished: vec![("a".into(), "ready".to_owned())],
        };
        let waiting = Waiting { since: date(0), until: None, after: Some(waits), follow: None };
        let text = told(TaskState::Waiting(waiting), Vec::new());
        let line = "`after`: all of 9 tasks have to succeed: 6 did, 3 not yet: a (ready), …";
        assert!(text.contains(line) && text.contains("no timeout"), "{text}");
    }

    #[test]
    fn ids_that_are_unknown_or_stand_for_several_say_what_to_do() {
        let reply = |told| StoryReply {
            status: OkStatus::Ok,
            now: date(0),
            stories: vec![Story { asked: "x".to_owned(), told }],
        };
        let unknown = stories(&reply(Told::Unknown), " --profile p");
        assert!(unknown.contains("x: no request") && unknown.contains("remuda debug dump --profile p"), "{unknown}");
        let several = stories(&reply(Told::Several { count: 12, msg_ids: vec!["x1".into(), "x2".into()] }), "");
        assert!(several.contains("x: 12 requests begin so\n  x1\n  x2\n  …\n"), "{several}");
    }

    #[test]
    fn a_broadcast_names_the_engines_that_are_missing() {
        let story = BroadcastStory {
            msg_id: "b".into(),
            client: None,
            submitted: Some(date(0)),
            engines: 4,
            ok: 1,
            failed: 1,
            forgotten: 0,
            missing: 2,
            named: vec![engine(2), engine(3)],
        };
        let story = Story { asked: "b".to_owned(), told: Told::Broadcast(Box::new(story)) };
        let text = stories(&StoryReply { status: OkStatus::Ok, now: date(0), stories: vec![story] }, "");
        assert!(text.contains("now: 1 answered, 1 failed, 2 missing\n    missing: engine 2, engine 3\n"), "{text}");
    }
}
