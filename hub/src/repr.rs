//! Values as Python shows them: the texts of its errors are made of that.

use std::fmt::Write;

use serde_json::Value;

/// A text as Python's `repr` writes it: in single quotes, unless it has one and no double quote.
pub(crate) fn text(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut shown = String::with_capacity(text.len() + 2);
    shown.push(quote);
    for c in text.chars() {
        match c {
            '\\' => shown.push_str("\\\\"),
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            c if c == quote => shown.extend(['\\', c]),
            c if c.is_control() => {
                write!(shown, "\\x{:02x}", u32::from(c)).expect("writing to a string cannot fail");
            }
            c => shown.push(c),
        }
    }
    shown.push(quote);
    shown
}

/// A value as Python's `repr` writes it.
pub(crate) fn value(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(string) => text(string),
        Value::Array(items) => list(items),
        Value::Object(map) => {
            let items: Vec<_> = map.iter().map(|(key, item)| format!("{}: {}", text(key), self::value(item))).collect();
            format!("{{{}}}", items.join(", "))
        }
    }
}

/// A list as Python's `repr` writes it.
pub(crate) fn list<'a>(items: impl IntoIterator<Item = &'a Value>) -> String {
    let items: Vec<_> = items.into_iter().map(value).collect();
    format!("[{}]", items.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_are_quoted_as_python_quotes_them() {
        for (given, shown) in [
            ("x", "'x'"),
            ("it's", "\"it's\""),
            ("'\"", "'\\'\"'"),
            ("a\\b\n\u{1}é", "'a\\\\b\\n\\x01é'"),
            ("Bad Message Type: 'foo_request'", "\"Bad Message Type: 'foo_request'\""),
        ] {
            assert_eq!(text(given), shown);
        }
    }

    #[test]
    fn values_are_shown_as_python_shows_them() {
        assert_eq!(value(&json!([77, "x", null, true, 1.5, {"a": []}])), "[77, 'x', None, True, 1.5, {'a': []}]");
    }
}
