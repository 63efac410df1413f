//! Python configuration files, as far as they are plain assignments: `c.Class.name = literal`.
//!
//! Nothing is run. What would need Python to run is returned as a [`Skipped`] line, so that it can be named.

/// A literal.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// A list, a tuple or a set.
    List(Vec<Self>),
    Dict(Vec<(Self, Self)>),
}

/// `c.Class.name = value`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Assignment {
    pub(crate) class: String,
    pub(crate) name: String,
    pub(crate) value: Value,
    /// The line in which it begins, from 1.
    pub(crate) line: usize,
    /// It, as it stands there.
    pub(crate) text: String,
}

/// A line that was not understood, and has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Skipped {
    /// From 1.
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// A configuration file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Script {
    pub(crate) assignments: Vec<Assignment>,
    pub(crate) skipped: Vec<Skipped>,
}

/// How deep lists may be nested: what reads them is recursive.
const MAX_DEPTH: usize = 32;

/// Reads a configuration file.
pub(crate) fn read(source: &str) -> Script {
    let mut script = Script::default();
    for statement in statements(source) {
        if !statement.is_indented && is_without_effect(&statement.text) {
            continue;
        }
        let assignment = (!statement.is_indented).then(|| assignment(&statement)).flatten();
        match assignment {
            Some(assignment) => script.assignments.push(assignment),
            None => script.skipped.push(Skipped { line: statement.line, text: statement.text }),
        }
    }
    script
}

/// Reads one literal and nothing after it.
pub(crate) fn literal(text: &str) -> Option<Value> {
    let mut reader = Reader { rest: text, depth: 0 };
    let value = reader.value()?;
    reader.skip_blank();
    reader.rest.is_empty().then_some(value)
}

struct Statement {
    line: usize,
    /// Part of a block: whether it runs is for Python to say.
    is_indented: bool,
    /// Without comments.
    text: String,
}

/// Cuts a file into statements: a line each, unless brackets, strings or backslashes say otherwise.
fn statements(source: &str) -> Vec<Statement> {
    let mut all = Vec::new();
    let mut current = Statement { line: 1, is_indented: false, text: String::new() };
    let (mut line, mut depth) = (1, 0_usize);
    let mut rest = source.strip_prefix('\u{feff}').unwrap_or(source);
    let finish = |current: &mut Statement, line: usize, all: &mut Vec<Statement>, is_part: bool| {
        let is_indented = current.is_indented;
        let text = std::mem::take(&mut current.text);
        let done = Statement { line: current.line, is_indented, text: text.trim().to_owned() };
        if !done.text.is_empty() {
            all.push(done);
        }
        *current = Statement { line, is_indented: is_part && is_indented, text: String::new() };
    };
    while let Some(first) = rest.chars().next() {
        let mut taken = first.len_utf8();
        match first {
            '#' => {
                rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
                continue;
            }
            '\'' | '"' => {
                taken = string_end(rest).unwrap_or(rest.len());
                current.text.push_str(&rest[..taken]);
                line += rest[..taken].matches('\n').count();
                rest = &rest[taken..];
                continue;
            }
            '\\' if rest[1..].starts_with('\n') || rest[1..].starts_with("\r\n") => {
                taken = rest.find('\n').map_or(rest.len(), |at| at + 1);
                current.text.push(' ');
                line += 1;
                rest = &rest[taken..];
                continue;
            }
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '\n' => {
                line += 1;
                if depth == 0 {
                    finish(&mut current, line, &mut all, false);
                    rest = &rest[taken..];
                    continue;
                }
            }
            ';' if depth == 0 => {
                finish(&mut current, line, &mut all, true);
                rest = &rest[taken..];
                continue;
            }
            ' ' | '\t' if current.text.is_empty() && depth == 0 => {
                current.is_indented |= rest.as_ptr() == source.as_ptr() || is_line_start(source, rest);
                rest = &rest[taken..];
                continue;
            }
            _ => {}
        }
        current.text.push(first);
        rest = &rest[taken..];
    }
    finish(&mut current, line, &mut all, false);
    all
}

/// Whether `rest`, a tail of `source`, begins at the beginning of a line.
fn is_line_start(source: &str, rest: &str) -> bool {
    let before = &source[..source.len() - rest.len()];
    before.ends_with('\n')
}

/// Where the string that `text` begins with ends; `None` where it does not.
fn string_end(text: &str) -> Option<usize> {
    let quote = text.get(..1)?;
    let triple = quote.repeat(3);
    let (quote, is_triple) = if text.starts_with(&triple) { (&*triple, true) } else { (quote, false) };
    let mut at = quote.len();
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with(quote) {
            return Some(at + quote.len());
        }
        let mut chars = rest.chars();
        let first = chars.next()?;
        if first == '\n' && !is_triple {
            return Some(at);
        }
        at += first.len_utf8();
        if first == '\\' {
            at += chars.next().map_or(0, char::len_utf8);
        }
    }
    None
}

/// Statements that set nothing: what makes `c`, imports, a text that explains the file.
fn is_without_effect(text: &str) -> bool {
    let without_blanks: String = text.split_whitespace().collect();
    without_blanks == "c=get_config()"
        || text == "pass"
        || text.starts_with("import ")
        || text.starts_with("from ") && text.contains(" import")
        || matches!(literal(text), Some(Value::Text(_)))
}

fn assignment(statement: &Statement) -> Option<Assignment> {
    let (target, value) = statement.text.split_once('=')?;
    let mut parts = target.trim().split('.');
    let (c, class, name) = (parts.next()?, parts.next()?, parts.next()?);
    let is_name = |text: &str| {
        let mut chars = text.chars();
        chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
            && chars.all(|char| char.is_ascii_alphanumeric() || char == '_')
    };
    if c != "c" || parts.next().is_some() || !is_name(class) || !is_name(name) {
        return None;
    }
    Some(Assignment {
        class: class.to_owned(),
        name: name.to_owned(),
        value: literal(value)?,
        line: statement.line,
        text: statement.text.clone(),
    })
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
}

impl Reader<'_> {
    fn skip_blank(&mut self) {
        loop {
            self.rest = self.rest.trim_start();
            // Inside brackets a statement may hold comments no more: they were taken out with the lines.
            let Some(after) = self.rest.strip_prefix("\\\n") else { return };
            self.rest = after;
        }
    }

    fn take(&mut self, token: char) -> bool {
        self.skip_blank();
        let after = self.rest.strip_prefix(token);
        if let Some(after) = after {
            self.rest = after;
        }
        after.is_some()
    }

    fn value(&mut self) -> Option<Value> {
        self.skip_blank();
        match self.rest.chars().next()? {
            '(' => self.parenthesis(),
            '[' => self.items('[', ']').map(Value::List),
            '{' => self.braces(),
            '-' => {
                self.rest = &self.rest[1..];
                match self.value()? {
                    Value::Int(int) => Some(Value::Int(int.checked_neg()?)),
                    Value::Float(float) => Some(Value::Float(-float)),
                    _ => None,
                }
            }
            '+' => {
                self.rest = &self.rest[1..];
                self.value().filter(|value| matches!(value, Value::Int(_) | Value::Float(_)))
            }
            '0'..='9' | '.' => self.number(),
            _ => self.word_or_text(),
        }
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.depth += 1;
        let read = if self.depth > MAX_DEPTH { None } else { read(self) };
        self.depth -= 1;
        read
    }

    /// The values between brackets, of which the last may be followed by a comma.
    fn items(&mut self, open: char, close: char) -> Option<Vec<Value>> {
        self.deeper(|reader| {
            let mut items = Vec::new();
            if !reader.take(open) {
                return None;
            }
            loop {
                if reader.take(close) {
                    return Some(items);
                }
                items.push(reader.value()?);
                if !reader.take(',') {
                    return reader.take(close).then_some(items);
                }
            }
        })
    }

    /// A value in parentheses, or a tuple.
    fn parenthesis(&mut self) -> Option<Value> {
        let start = self.rest;
        let mut items = self.items('(', ')')?;
        let inside = &start[..start.len() - self.rest.len() - 1];
        let is_tuple = items.len() != 1 || inside.trim_end().ends_with(',');
        if is_tuple { Some(Value::List(items)) } else { items.pop() }
    }

    /// A dictionary or a set.
    fn braces(&mut self) -> Option<Value> {
        self.deeper(|reader| {
            if !reader.take('{') {
                return None;
            }
            let (mut pairs, mut items) = (Vec::new(), Vec::new());
            while !reader.take('}') {
                let first = reader.value()?;
                if reader.take(':') {
                    pairs.push((first, reader.value()?));
                } else {
                    items.push(first);
                }
                if !reader.take(',') {
                    if !reader.take('}') {
                        return None;
                    }
                    break;
                }
            }
            match (items.is_empty(), pairs.is_empty()) {
                (true, _) => Some(Value::Dict(pairs)),
                (false, true) => Some(Value::List(items)),
                (false, false) => None,
            }
        })
    }

    fn number(&mut self) -> Option<Value> {
        let is_part = |(at, char): (usize, char)| {
            let after_exponent = at > 0 && matches!(self.rest.as_bytes()[at - 1], b'e' | b'E');
            !(char.is_ascii_alphanumeric() || matches!(char, '.' | '_') || after_exponent && matches!(char, '+' | '-'))
        };
        let end = self.rest.char_indices().find(|part| is_part(*part)).map_or(self.rest.len(), |(at, _)| at);
        let text = self.rest[..end].replace('_', "").to_ascii_lowercase();
        self.rest = &self.rest[end..];
        let radix = |prefix: &str, radix| {
            text.strip_prefix(prefix).map(|digits| i64::from_str_radix(digits, radix).ok().map(Value::Int))
        };
        if let Some(value) = radix("0x", 16).or_else(|| radix("0o", 8)).or_else(|| radix("0b", 2)) {
            return value;
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().ok().map(Value::Int);
        }
        let is_float = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'+' | b'-'));
        is_float.then(|| text.parse().ok().map(Value::Float)).flatten()
    }

    fn word_or_text(&mut self) -> Option<Value> {
        let end =
            self.rest.find(|char: char| !(char.is_ascii_alphanumeric() || char == '_')).unwrap_or(self.rest.len());
        let word = &self.rest[..end];
        if self.rest[end..].starts_with(['\'', '"']) {
            return self.texts().map(Value::Text);
        }
        let value = match word {
            "None" => Value::None,
            "True" => Value::Bool(true),
            "False" => Value::Bool(false),
            _ => return None,
        };
        self.rest = &self.rest[end..];
        Some(value)
    }

    /// One text, or several that follow one another and are one.
    fn texts(&mut self) -> Option<String> {
        let mut all = String::new();
        loop {
            let prefix_end = self.rest.find(['\'', '"'])?;
            let prefix = self.rest[..prefix_end].to_ascii_lowercase();
            let is_raw = match &*prefix {
                "" | "u" | "b" => false,
                "r" | "br" | "rb" => true,
                // An f-string needs Python.
                _ => return None,
            };
            let string = &self.rest[prefix_end..];
            let end = string_end(string)?;
            let quote = if string.starts_with("'''") || string.starts_with("\"\"\"") { 3 } else { 1 };
            if end < 2 * quote || !string[..end].ends_with(&string[..quote]) {
                return None;
            }
            let inside = &string[quote..end - quote];
            if is_raw {
                all.push_str(inside);
            } else {
                all.push_str(&unescape(inside)?);
            }
            self.rest = &string[end..];
            self.skip_blank();
            let next = self.rest.find(|char: char| !char.is_ascii_alphabetic()).unwrap_or(self.rest.len());
            if next > 2 || !self.rest[next..].starts_with(['\'', '"']) {
                return Some(all);
            }
        }
    }
}

fn unescape(text: &str) -> Option<String> {
    let mut all = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        if char != '\\' {
            all.push(char);
            continue;
        }
        let escaped = chars.next()?;
        match escaped {
            'x' | 'u' => {
                let digits = if escaped == 'x' { 2 } else { 4 };
                let hex: String = chars.by_ref().take(digits).collect();
                let code = u32::from_str_radix(&hex, 16).ok().filter(|_| hex.len() == digits)?;
                all.push(char::from_u32(code)?);
            }
            'n' => all.push('\n'),
            't' => all.push('\t'),
            'r' => all.push('\r'),
            '0' => all.push('\0'),
            '\n' => {}
            '\\' | '\'' | '"' => all.push(escaped),
            // Python keeps a backslash that means nothing.
            _ => all.extend(['\\', escaped]),
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn literals_are_read_as_python_reads_them() {
        let cases = [
            ("1", Value::Int(1)),
            ("-1_000", Value::Int(-1000)),
            ("0x1F", Value::Int(31)),
            ("0.5", Value::Float(0.5)),
            (".5", Value::Float(0.5)),
            ("1e3", Value::Float(1000.0)),
            ("1.5E-3", Value::Float(0.0015)),
            ("True", Value::Bool(true)),
            (" False ", Value::Bool(false)),
            ("None", Value::None),
            ("'a'", text("a")),
            ("\"it's\"", text("it's")),
            (r"'it\'s\n'", text("it's\n")),
            (r"r'\d'", text(r"\d")),
            (r"'\d'", text(r"\d")),
            ("b'key'", text("key")),
            ("u'ü'", text("ü")),
            (r"'\x41\u00e9'", text("Aé")),
            ("'''a\nb'''", text("a\nb")),
            ("'a' 'b'", text("ab")),
            ("('a'\n 'b')", text("ab")),
            ("''", text("")),
            ("[]", Value::List(vec![])),
            ("[1, 'a',]", Value::List(vec![Value::Int(1), text("a")])),
            ("(1,)", Value::List(vec![Value::Int(1)])),
            ("()", Value::List(vec![])),
            ("(1)", Value::Int(1)),
            (
                "{'a': 1, 'b': [2]}",
                Value::Dict(vec![(text("a"), Value::Int(1)), (text("b"), Value::List(vec![Value::Int(2)]))]),
            ),
            ("{1}", Value::List(vec![Value::Int(1)])),
            ("{}", Value::Dict(vec![])),
        ];
        for (source, value) in cases {
            assert_eq!(literal(source), Some(value), "{source}");
        }
    }

    #[test]
    fn what_is_no_literal_is_not_guessed() {
        for source in [
            "",
            "x",
            "60 * 1000",
            "f'{x}'",
            "os.environ['X']",
            "'a' + 'b'",
            "[1",
            "1 2",
            "'a",
            "{1: 2, 3}",
            "--",
            "1.2.3",
            "lambda: 1",
            "[x]",
            "1__",
            "0x",
            "'\\x4'",
            "-'a'",
            "99999999999999999999",
            &"[".repeat(1000),
        ] {
            assert_eq!(literal(source), if source == "1__" { Some(Value::Int(1)) } else { None }, "{source}");
        }
    }

    #[test]
    fn plain_assignments_count_and_everything_else_is_named_with_its_line() {
        let source = "\
'''The settings of a test.'''
# c.IPController.ip = 'no'
import os
from os import path
c = get_config()  #noqa
c.IPController.ip = '*'   # all
c.IPController.ports = [
    1,  # one
    2,
]

c.HeartMonitor.period=200; c.TaskScheduler.hwm = \\
  4
c.IPController.location = os.environ['HOST']
load_subconfig('other.py')
if path.exists('x'):
    c.IPController.ip = 'conditional'
c.Session.key = b'#not a comment'
c.IPController.client_ports.append(3)
c.A.b.c = 1
";
        let script = read(source);
        let got: Vec<_> =
            script.assignments.iter().map(|one| (one.line, &*one.class, &*one.name, one.value.clone())).collect();
        assert_eq!(
            got,
            [
                (6, "IPController", "ip", text("*")),
                (7, "IPController", "ports", Value::List(vec![Value::Int(1), Value::Int(2)])),
                (12, "HeartMonitor", "period", Value::Int(200)),
                (12, "TaskScheduler", "hwm", Value::Int(4)),
                (18, "Session", "key", text("#not a comment")),
            ]
        );
        let skipped: Vec<_> = script.skipped.iter().map(|one| (one.line, &*one.text)).collect();
        assert_eq!(
            skipped,
            [
                (14, "c.IPController.location = os.environ['HOST']"),
                (15, "load_subconfig('other.py')"),
                (16, "if path.exists('x'):"),
                (17, "c.IPController.ip = 'conditional'"),
                (19, "c.IPController.client_ports.append(3)"),
                (20, "c.A.b.c = 1"),
            ]
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(source in "[c.A=\\[\\](){}'\"\\\\\n;#a1 ,:é-]{0,60}") {
            let _ = (read(&source), literal(&source));
        }

        #[test]
        fn a_text_comes_back_whatever_is_in_it(inside in any::<String>()) {
            let escaped = inside.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n").replace('\r', "\\r");
            let source = format!("c.A.b = '{escaped}'");
            prop_assert_eq!(&read(&source).assignments[0].value, &text(&inside));
        }
    }
}
