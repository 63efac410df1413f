//! Reading a definition: everything that is wrong with it is noted, each thing with its key.

use std::num::{NonZeroU16, NonZeroU32};

use remuda_proto::Map as Ordered;
use remuda_proto::message::native::{ChunkSize, Limits};
use remuda_proto::message::needs::{Amount, CPUS, LABEL, Needs};
use remuda_proto::message::restart::RestartPolicy;
use serde_json::{Map, Value};

use crate::definition::{Definition, InputAdapter, OutputAdapter, ProcessType, Restart};
use crate::problem::{Problem, Problems};

const KEYS: [&str; 15] = [
    "name",
    "exec",
    "argv",
    "cwd",
    "environment",
    "timeout",
    "application",
    "process_type",
    "input_adapter",
    "output_adapter",
    "needs",
    "limits",
    "retries",
    "priority",
    "restart",
];
const LIMITS: [&str; 4] = ["cpu_seconds", "memory_bytes", "open_files", "file_bytes"];
const INPUT_FILE: &str = "${input_file}";
const OUTPUT_FILE: &str = "${output_file}";

/// Most of a value that a message repeats, in characters.
const SHOWN: usize = 60;

/// Reads a definition.
pub(crate) fn definition(value: &Value) -> Result<Definition, Problems> {
    let mut reader = Reader { problems: Vec::new() };
    let Value::Object(map) = value else {
        reader.wrong("definition", value, "give a map with `exec` and what else it needs");
        return Err(Problems::new(reader.problems).expect("one was noted"));
    };
    reader.known("", map, &KEYS);
    let get = |key: &str| map.get(key).filter(|value| !value.is_null());

    let exec = reader.exec(get("exec"));
    let definition = Definition {
        name: get("name").and_then(|value| reader.name(value)),
        exec,
        argv: get("argv").map(|value| reader.argv(value)).unwrap_or_default(),
        cwd: get("cwd").and_then(|value| reader.text("cwd", value, "give the path of a folder")),
        environment: get("environment").map(|value| reader.environment(value)).unwrap_or_default(),
        timeout_s: get("timeout").and_then(|value| reader.seconds("timeout", value, Least::AboveZero)),
        application: get("application")
            .and_then(|value| reader.text("application", value, "give a label that engines have")),
        process_type: get("process_type")
            .and_then(|value| reader.choice("process_type", value, &ProcessType::ALL, ProcessType::name)),
        input: get("input_adapter").and_then(|value| reader.input(value)),
        output: get("output_adapter").and_then(|value| reader.output(value)),
        needs: get("needs").map(|value| reader.needs(value)).unwrap_or_default(),
        limits: get("limits").map(|value| reader.limits(value)).unwrap_or_default(),
        retries: get("retries").and_then(|value| reader.count("retries", value)).unwrap_or_default(),
        priority: get("priority").and_then(|value| reader.priority(value)).unwrap_or_default(),
        restart: get("restart").and_then(|value| reader.restart(value)),
    };
    let given = |key: &str| get(key).is_some();
    reader.agree(&definition, given("input_adapter"), given("output_adapter"));
    match Problems::new(reader.problems) {
        None => Ok(definition),
        Some(problems) => Err(problems),
    }
}

/// The least number of seconds that makes sense.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Least {
    Zero,
    AboveZero,
}

struct Reader {
    problems: Vec<Problem>,
}

impl Reader {
    fn note(&mut self, key: &str, reason: impl Into<String>) {
        self.problems.push(Problem { key: key.to_owned(), reason: reason.into() });
    }

    /// Notes a value that is not what it should be.
    fn wrong(&mut self, key: &str, value: &Value, instead: &str) {
        self.note(key, format!("is `{}`: {instead}", shown(value)));
    }

    /// Notes the keys that nobody knows, each with the one that was meant.
    fn known(&mut self, at: &str, map: &Map<String, Value>, names: &[&str]) {
        for key in map.keys().filter(|key| !names.contains(&&***key)) {
            let advice = match nearest(key, names) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("use {}", list(names)),
            };
            self.note(&path(at, key), format!("is not known: {advice}"));
        }
    }

    fn map<'a>(&mut self, key: &str, value: &'a Value, instead: &str) -> Option<&'a Map<String, Value>> {
        if value.as_object().is_none() {
            self.wrong(key, value, instead);
        }
        value.as_object()
    }

    /// Text that is not empty and can be handed to a program.
    fn text(&mut self, key: &str, value: &Value, instead: &str) -> Option<String> {
        let text = self.any_text(key, value, instead)?;
        if text.is_empty() {
            self.note(key, format!("is empty: {instead}"));
        }
        Some(text)
    }

    fn any_text(&mut self, key: &str, value: &Value, instead: &str) -> Option<String> {
        let Value::String(text) = value else {
            self.wrong(key, value, instead);
            return None;
        };
        if text.contains('\0') {
            self.note(key, "holds a NUL byte, which no program can be given: leave it out");
        }
        Some(text.clone())
    }

    fn exec(&mut self, value: Option<&Value>) -> String {
        let instead = "give the program, as a path or a name in the engine's `PATH`";
        match value {
            None => self.note("exec", format!("is missing: {instead}")),
            Some(value) => return self.text("exec", value, instead).unwrap_or_default(),
        }
        String::new()
    }

    fn name(&mut self, value: &Value) -> Option<String> {
        let instead =
            "use letters, digits, `_`, `-` and `.`, at most 100 of them, and not digits alone, which are an id";
        let name = value.as_str().filter(|name| {
            let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
            (1..=100).contains(&name.len()) && name.bytes().all(good) && !name.bytes().all(|byte| byte.is_ascii_digit())
        });
        if name.is_none() {
            self.wrong("name", value, instead);
        }
        name.map(str::to_owned)
    }

    fn argv(&mut self, value: &Value) -> Vec<String> {
        let Value::Array(items) = value else {
            self.wrong("argv", value, "give a list of the arguments after the program");
            return Vec::new();
        };
        let each = items.iter().enumerate();
        each.filter_map(|(at, item)| self.any_text(&format!("argv[{at}]"), item, "give text, in quotes")).collect()
    }

    fn environment(&mut self, value: &Value) -> Ordered<String, Option<String>> {
        let mut environment = Ordered::default();
        let Some(map) = self.map("environment", value, "give a map of names to texts, or to null for none") else {
            return environment;
        };
        for (name, value) in map {
            let key = path("environment", name);
            if name.is_empty() || name.contains(['=', '\0']) {
                self.note(&key, "is no name of a variable: it is empty, or has a `=` or a NUL byte in it");
            }
            let text = match value {
                Value::Null => None,
                other => self.any_text(&key, other, "give text, in quotes, or null to remove the variable"),
            };
            environment.insert(name.clone(), text);
        }
        environment
    }

    fn seconds(&mut self, key: &str, value: &Value, least: Least) -> Option<f64> {
        let good = |seconds: &f64| *seconds > 0.0 || (least == Least::Zero && *seconds == 0.0);
        let seconds = value.as_f64().filter(good);
        if seconds.is_none() {
            let bound = if least == Least::Zero { "0 or more" } else { "more than 0" };
            self.wrong(key, value, &format!("give a number of seconds, {bound}"));
        }
        seconds
    }

    fn count(&mut self, key: &str, value: &Value) -> Option<u32> {
        let count = value.as_u64().and_then(|count| u32::try_from(count).ok());
        if count.is_none() {
            self.wrong(key, value, "give a whole number from 0 to 4294967295");
        }
        count
    }

    fn priority(&mut self, value: &Value) -> Option<i32> {
        let priority = value.as_i64().and_then(|priority| i32::try_from(priority).ok());
        if priority.is_none() {
            self.wrong("priority", value, "give a whole number from -2147483648 to 2147483647");
        }
        priority
    }

    fn choice<T: Copy>(&mut self, key: &str, value: &Value, all: &[T], name: fn(T) -> &'static str) -> Option<T> {
        let names: Vec<&str> = all.iter().map(|one| name(*one)).collect();
        let chosen = all.iter().copied().find(|one| value.as_str() == Some(name(*one)));
        if chosen.is_none() {
            let near = value.as_str().and_then(|text| nearest(text, &names));
            let near = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
            self.wrong(key, value, &format!("{near}use {}", list(&names)));
        }
        chosen
    }

    /// The type of an adapter, which must be there.
    fn kind<T: Copy>(
        &mut self,
        at: &str,
        map: &Map<String, Value>,
        key: &str,
        all: &[T],
        name: fn(T) -> &'static str,
    ) -> Option<T> {
        if let Some(value) = map.get(key).filter(|value| !value.is_null()) {
            return self.choice(&path(at, key), value, all, name);
        }
        let names: Vec<&str> = all.iter().map(|one| name(*one)).collect();
        self.note(&path(at, key), format!("is missing: use {}", list(&names)));
        None
    }

    fn input(&mut self, value: &Value) -> Option<InputAdapter> {
        const AT: &str = "input_adapter";
        let map = self.map(AT, value, "give a map: {\"input_type\": \"stdin\"}")?;
        self.known(AT, map, &["input_type", "chunk_size", "tcp_port"]);
        let kind = self.kind(AT, map, "input_type", &InputAdapter::TYPES, |name| name)?;
        let given = |key: &str| map.get(key).filter(|value| !value.is_null());
        let chunk = given("chunk_size").and_then(|value| self.chunk(value));
        let port = given("tcp_port").and_then(|value| self.port(value));
        if matches!(kind, "stdin" | "file_argv") && given("chunk_size").is_some() {
            self.note(
                "input_adapter.chunk_size",
                format!("means nothing for `{kind}`, which gets its input at once: leave it out, or take `file_append`, `stream_pipe` or `stream_tcp`"),
            );
        }
        if kind != "stream_tcp" && given("tcp_port").is_some() {
            self.note(
                "input_adapter.tcp_port",
                format!("means nothing for `{kind}`: leave it out, or take `stream_tcp`"),
            );
        }
        Some(match kind {
            "stdin" => InputAdapter::Stdin,
            "file_argv" => InputAdapter::FileArgv,
            "file_append" => InputAdapter::FileAppend(chunk),
            "stream_pipe" => InputAdapter::StreamPipe(chunk),
            _ => {
                if given("tcp_port").is_none() {
                    self.note(
                        "input_adapter.tcp_port",
                        "is missing: give the port on which the program listens, from 1 to 65535",
                    );
                }
                InputAdapter::StreamTcp(port?, chunk)
            }
        })
    }

    fn chunk(&mut self, value: &Value) -> Option<ChunkSize> {
        let chunk = value.as_u64().and_then(|size| u32::try_from(size).ok()).and_then(NonZeroU32::new);
        if chunk.is_none() {
            self.wrong("input_adapter.chunk_size", value, "give a number of bytes from 1 to 4294967295");
        }
        chunk
    }

    fn port(&mut self, value: &Value) -> Option<NonZeroU16> {
        let port = value.as_u64().and_then(|port| u16::try_from(port).ok()).and_then(NonZeroU16::new);
        if port.is_none() {
            self.wrong("input_adapter.tcp_port", value, "give a port from 1 to 65535");
        }
        port
    }

    fn output(&mut self, value: &Value) -> Option<OutputAdapter> {
        const AT: &str = "output_adapter";
        let map = self.map(AT, value, "give a map: {\"output_type\": \"stdout\"}")?;
        for key in ["chunk_size", "tcp_port"].iter().filter(|key| map.contains_key(**key)) {
            self.note(&path(AT, key), "means nothing for output: leave it out");
        }
        let rest: Map<String, Value> = map
            .iter()
            .filter(|(key, _)| !matches!(key.as_str(), "chunk_size" | "tcp_port"))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        self.known(AT, &rest, &["output_type"]);
        self.kind(AT, map, "output_type", &OutputAdapter::ALL, OutputAdapter::name)
    }

    fn needs(&mut self, value: &Value) -> Needs {
        let mut needs = Needs::plain();
        let Some(map) = self.map("needs", value, "give a map: {\"cpus\": 2, \"gpu\": 1, \"label\": [\"big\"]}") else {
            return needs;
        };
        for (name, value) in map {
            let key = path("needs", name);
            if name == LABEL {
                let words =
                    if let Value::Array(words) = value { words.as_slice() } else { std::slice::from_ref(value) };
                for word in words {
                    if let Some(label) = self.text(&key, word, "give a word, or a list of words") {
                        needs = needs.with_label(&label);
                    }
                }
                continue;
            }
            let Some(amount) =
                value.is_number().then(|| value.to_string()).and_then(|text| Amount::parse(name, &text).ok())
            else {
                self.wrong(&key, value, "give a number above 0 and up to 4000000, with at most three decimals");
                continue;
            };
            if name == CPUS {
                needs = needs.with_cpus(amount);
                continue;
            }
            match needs.clone().with_resource(name, amount) {
                Ok(more) => needs = more,
                Err(_) => self.note(
                    &key,
                    "is no name of a resource: use letters, digits, `_`, `-` and `.`, and begin with a letter",
                ),
            }
        }
        needs
    }

    fn limits(&mut self, value: &Value) -> Limits {
        let Some(map) = self.map("limits", value, "give a map: {\"memory_bytes\": 1000000000}") else {
            return Limits::default();
        };
        self.known("limits", map, &LIMITS);
        let mut limit = |name: &str| {
            let value = map.get(name).filter(|value| !value.is_null())?;
            if value.as_u64().is_none() {
                self.wrong(&path("limits", name), value, "give a whole number, 0 or more");
            }
            value.as_u64()
        };
        Limits {
            cpu_seconds: limit("cpu_seconds"),
            memory_bytes: limit("memory_bytes"),
            open_files: limit("open_files"),
            file_bytes: limit("file_bytes"),
        }
    }

    fn restart(&mut self, value: &Value) -> Option<Restart> {
        const AT: &str = "restart";
        let map = self.map(AT, value, "give a map: {\"policy\": \"on-failure\"}")?;
        self.known(AT, map, &["policy", "limit", "backoff", "max_backoff", "reset_after"]);
        let given = |key: &str| map.get(key).filter(|value| !value.is_null());
        let limit = given("limit").and_then(|value| self.count("restart.limit", value));
        let backoff_s = given("backoff").and_then(|value| self.seconds("restart.backoff", value, Least::Zero));
        let mut seconds = |key: &str| given(key).and_then(|value| self.seconds(&path(AT, key), value, Least::Zero));
        let (max_backoff_s, reset_after_s) = (seconds("max_backoff"), seconds("reset_after"));
        let policy = self.kind(AT, map, "policy", &RestartPolicy::ALL, RestartPolicy::name)?;
        Some(Restart { policy, limit, backoff_s, max_backoff_s, reset_after_s })
    }

    /// Notes what makes no sense together. What could not be read is taken for right: it has its own note.
    fn agree(&mut self, definition: &Definition, input_given: bool, output_given: bool) {
        let has_output = definition.output.is_some_and(OutputAdapter::makes_file);
        let has_input = definition.input.is_some_and(InputAdapter::makes_file);
        // An adapter whose type is not understood may be any.
        let unclear_input = definition.input.is_none() && input_given;
        let unclear_output = definition.output.is_none() && output_given;
        let environment = definition.environment.iter();
        let texts = std::iter::once(("exec".to_owned(), &*definition.exec))
            .chain(definition.argv.iter().enumerate().map(|(at, text)| (format!("argv[{at}]"), &**text)))
            .chain(environment.filter_map(|(name, text)| Some((path("environment", name), text.as_deref()?))));
        let texts: Vec<(String, &str)> = texts.collect();
        let named = |file: &str| texts.iter().any(|(_, text)| text.contains(file));
        for (file, adapter, has, unclear, kinds) in [
            (INPUT_FILE, "input_adapter", has_input, unclear_input, "`file_argv`, `file_append` or `stream_pipe`"),
            (OUTPUT_FILE, "output_adapter", has_output, unclear_output, "`file_argv`, `file_append` or `pipe`"),
        ] {
            if !has && !unclear {
                for (key, _) in texts.iter().filter(|(_, text)| text.contains(file)) {
                    self.note(key, format!("names `{file}`, and there is none: give an `{adapter}` of type {kinds}"));
                }
            }
            if has && !named(file) {
                self.note(
                    adapter,
                    format!("makes a file that nothing names: put `{file}` into `argv` or `environment`"),
                );
            }
            if definition.cwd.as_deref().is_some_and(|cwd| cwd.contains(file)) {
                self.note("cwd", format!("names `{file}`, which is replaced in `exec`, `argv` and `environment` only"));
            }
        }
        match definition.process_type() {
            ProcessType::Single => {
                if definition.restart.is_some() {
                    self.note("restart", "is for services: leave it out, or give `\"process_type\": \"service\"`");
                }
            }
            ProcessType::Service => {
                if let Some(output) = definition.output.filter(|output| output.makes_file()) {
                    self.note(
                        "output_adapter.output_type",
                        format!("is `{}`, and a service has no result: use `stdout`", output.name()),
                    );
                }
                if definition.retries > 0 {
                    self.note("retries", "is not for services, which are started again: give a `limit` in `restart`");
                }
            }
        }
    }
}

fn path(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }
}

/// A value as a message repeats it.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.escape_debug().to_string(),
        other => other.to_string(),
    };
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match &quoted[..] {
        [one] => one.clone(),
        [all @ .., last] => format!("{} or {last}", all.join(", ")),
        [] => String::new(),
    }
}

fn nearest<'a>(name: &str, of: &[&'a str]) -> Option<&'a str> {
    let like = |other: &str| strsim::normalized_damerau_levenshtein(&name.to_ascii_lowercase(), other);
    of.iter().copied().max_by(|one, other| like(one).total_cmp(&like(other))).filter(|near| like(near) > 0.4)
}
