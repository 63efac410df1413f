//! Times, sizes and texts as people read them.

use remuda_proto::Date;

/// How long ago that was; nothing is in the future.
pub(in crate::commands) fn ago(date: Date, now: Date) -> String {
    duration((now.0 - date.0).max(0) as f64 / 1e6)
}

/// So many seconds, in the unit that leaves three digits or so.
pub(super) fn duration(seconds: f64) -> String {
    let whole = |seconds: f64, unit: f64| (seconds / unit).floor();
    let s = seconds.max(0.0);
    if s < 0.000_999_5 {
        format!("{:.0} µs", s * 1e6)
    } else if s < 0.999_5 {
        let digits = if s < 0.009_995 { 2 } else { usize::from(s < 0.099_95) };
        format!("{:.digits$} ms", s * 1e3)
    } else if s < 60.0 {
        let digits = if s < 9.995 { 2 } else { 1 };
        format!("{s:.digits$} s")
    } else if s < 3600.0 {
        format!("{:.0} min {:02.0} s", whole(s, 60.0), (s % 60.0).floor())
    } else if s < 86_400.0 {
        format!("{:.0} h {:02.0} min", whole(s, 3600.0), whole(s % 3600.0, 60.0))
    } else {
        format!("{:.0} d {:02.0} h", whole(s, 86_400.0), whole(s % 86_400.0, 3600.0))
    }
}

/// So many bytes, in powers of 1000.
pub(super) fn bytes(count: u64) -> String {
    let units = ["kB", "MB", "GB", "TB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1e3;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1e3;
        unit += 1;
    }
    let digits = usize::from(value < 9.95);
    format!("{value:.digits$} {}", units[unit])
}

/// How many of something.
pub(super) fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// A text on one line that does nothing to a terminal: labels and programs are what anybody sent.
pub(in crate::commands) fn line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => line.push(' '),
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    line
}

/// Lines that do nothing to a terminal but colour what is written: a stock engine's tracebacks are coloured. Without
/// `coloured`, not that either.
pub(super) fn lines(text: &str, coloured: bool) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(colour) = colour(rest) {
            if coloured {
                clean.push_str(colour);
            }
            rest = &rest[colour.len()..];
            continue;
        }
        rest = &rest[c.len_utf8()..];
        match c {
            '\n' | '\t' => clean.push(c),
            '\r' => {}
            c if c.is_control() => clean.extend(c.escape_default()),
            c => clean.push(c),
        }
    }
    clean
}

/// The sequence that sets a colour, if the text begins with one.
fn colour(text: &str) -> Option<&str> {
    let inner = text.strip_prefix("\u{1b}[")?;
    let end = inner.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    inner[end..].starts_with('m').then(|| &text[..end + 3])
}

/// Words as a shell would take them.
pub(in crate::commands) fn command(argv: &[String]) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%^{}".contains(c);
    let word = |word: &String| {
        if !word.is_empty() && word.chars().all(is_plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    };
    argv.iter().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits_or_two_units() {
        for (seconds, text) in [
            (0.0, "0 µs"),
            (0.000_12, "120 µs"),
            (0.001_234, "1.23 ms"),
            (0.012_34, "12.3 ms"),
            (0.123_4, "123 ms"),
            (0.999_9, "1.00 s"),
            (1.234, "1.23 s"),
            (59.94, "59.9 s"),
            (60.0, "1 min 00 s"),
            (3599.9, "59 min 59 s"),
            (7_261.0, "2 h 01 min"),
            (90_000.0, "1 d 01 h"),
            (-1.0, "0 µs"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn sizes_have_two_digits_or_three() {
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (12_345, "12 kB"),
            (999_600, "1.0 MB"),
            (5_000_000_000_000_000, "5000 TB"),
        ] {
            assert_eq!(bytes(count), text, "{count}");
        }
    }

    #[test]
    fn what_anybody_sent_does_nothing_to_a_terminal() {
        assert_eq!(line("a\nb\x1b[2Jc\u{9b}d"), "a b\\u{1b}[2Jc\\u{9b}d");
        assert_eq!(lines("a\n\x1b[0;31mred\x1b[0m\x1b[2J\u{7}", true), "a\n\x1b[0;31mred\x1b[0m\\u{1b}[2J\\u{7}");
        assert_eq!(lines("\x1b[0;31mred\x1b[0m\x1b]0;t\u{7}\x1b[", false), "red\\u{1b}]0;t\\u{7}\\u{1b}[");
    }

    #[test]
    fn a_command_can_be_typed_again() {
        let argv = ["sh", "-c", "echo 'a b'", ""].map(str::to_owned);
        assert_eq!(command(&argv), "sh -c 'echo '\\''a b'\\''' ''");
    }

    #[test]
    fn what_is_in_the_future_is_now() {
        assert_eq!(ago(Date(5_000_000), Date(0)), "0 µs");
        assert_eq!(ago(Date(0), Date(90_000_000)), "1 min 30 s");
    }
}
