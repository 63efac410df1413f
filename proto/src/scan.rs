//! A quick look at a few keys of a packed JSON map.
//!
//! Of a header and its metadata the schedulers read a handful of short texts, and skip the rest. Skipping needs no full
//! parser: this one finds where values end and looks into none that was not asked for. What it cannot make out, or what is
//! unusual (an escape in a key, say), it leaves to the full parser, which also has the words for what is wrong.

use std::borrow::Cow;

/// The values of these keys, as they stand in `map`; the last where a key comes twice, as in Python. `None` if the map is
/// not plain enough for this, or is none.
pub(crate) fn pick<'a, const N: usize>(map: &'a [u8], keys: [&str; N]) -> Option<[Option<&'a [u8]>; N]> {
    let mut picked = [None; N];
    let mut scan = Scan::new(map);
    scan.blank();
    scan.take(b'{')?;
    scan.blank();
    if let [b'}', rest @ ..] = scan.rest {
        scan.rest = rest;
        return scan.at_end().then_some(picked);
    }
    // Keys mostly come in the order in which they are wanted.
    let mut likely = 0;
    loop {
        let (key, value) = scan.entry()?;
        let wanted = |index: &usize| keys[*index].as_bytes() == key;
        if let Some(index) = (likely..N).chain(0..likely).find(wanted) {
            picked[index] = Some(value);
            likely = index + 1;
        } else if scan.escaped {
            return None;
        }
        scan.blank();
        let (next, rest) = scan.rest.split_first()?;
        scan.rest = rest;
        match next {
            b',' => scan.blank(),
            b'}' => return scan.at_end().then_some(picked),
            _ => return None,
        }
    }
}

/// The value of this key, as it stands in `map`; the first where it comes twice. What follows it is not looked at. `None` if
/// it is not there, or not found by plain looking.
pub(crate) fn first<'a>(map: &'a [u8], key: &str) -> Option<&'a [u8]> {
    let mut scan = Scan::new(map);
    scan.blank();
    scan.take(b'{')?;
    loop {
        scan.blank();
        let (found, value) = scan.entry()?;
        if found == key.as_bytes() {
            return Some(value);
        }
        if scan.escaped {
            return None;
        }
        scan.blank();
        scan.take(b',')?;
    }
}

/// The text that a picked value is, if it is one without escapes.
pub(crate) fn text(value: &[u8]) -> Option<&str> {
    let mut scan = Scan::new(value);
    let inner = scan.string()?;
    let plain = !scan.escaped && scan.rest.is_empty();
    std::str::from_utf8(inner).ok().filter(|_| plain)
}

/// The texts among picked values; `None` if one of them is a text with escapes.
pub(crate) fn texts<const N: usize>(picked: [Option<&[u8]>; N]) -> Option<[Option<Cow<'_, str>>; N]> {
    let mut texts = [const { None }; N];
    for (into, value) in texts.iter_mut().zip(picked) {
        if let Some(value @ [b'"', ..]) = value {
            *into = Some(Cow::Borrowed(text(value)?));
        }
    }
    Some(texts)
}

struct Scan<'a> {
    /// What was not looked at yet.
    rest: &'a [u8],
    /// Whether there was a backslash in a key, or in the text that is all there is.
    escaped: bool,
}

impl<'a> Scan<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, escaped: false }
    }

    fn take(&mut self, expected: u8) -> Option<()> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        (*first == expected).then_some(())
    }

    fn blank(&mut self) {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn at_end(&mut self) -> bool {
        self.blank();
        self.rest.is_empty()
    }

    /// A key and its value, as they stand; what is between the quotes of the key.
    #[inline]
    fn entry(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let key = self.string()?;
        self.blank();
        self.take(b':')?;
        self.blank();
        let begin = self.rest;
        self.value()?;
        Some((key, &begin[..begin.len() - self.rest.len()]))
    }

    /// A text; what is between its quotes, escapes as they stand.
    #[inline]
    fn string(&mut self) -> Option<&'a [u8]> {
        let [b'"', inside @ ..] = self.rest else { return None };
        let (inner, tail) = inside.split_at_checked(first_special(inside)?)?;
        if let [b'"', rest @ ..] = tail {
            self.rest = rest;
            return Some(inner);
        }
        self.escaped = true;
        self.rest = inside;
        self.escaped_string()
    }

    /// [`Self::string`], once the first quote is passed and there is an escape.
    #[cold]
    fn escaped_string(&mut self) -> Option<&'a [u8]> {
        let inside = self.rest;
        let mut at = 0;
        loop {
            at += first_special(inside.get(at..)?)?;
            if inside[at] == b'"' {
                self.rest = &inside[at + 1..];
                return Some(&inside[..at]);
            }
            // Whatever is escaped is not the end.
            at += 2;
        }
    }

    /// Goes past one value.
    #[inline]
    fn value(&mut self) -> Option<()> {
        match self.rest.first()? {
            b'"' => {
                let before = self.escaped;
                self.string()?;
                self.escaped = before;
                Some(())
            }
            b'{' | b'[' => self.nested(),
            _ => {
                let length = self
                    .rest
                    .iter()
                    .position(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'+' | b'-' | b'.'));
                let length = length.unwrap_or(self.rest.len());
                self.rest = &self.rest[length..];
                (length > 0).then_some(())
            }
        }
    }

    /// Goes past a map or a list with all that is in it.
    fn nested(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.rest.first()? {
                b'"' => {
                    self.value()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.rest = &self.rest[1..];
            if depth == 0 {
                return Some(());
            }
        }
    }
}

/// Where the first quote or backslash is. Most texts are short, so that a look at eight bytes at a time, in line, costs less
/// than the call of a search that is made for long ones.
#[inline]
fn first_special(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    const QUOTES: u64 = ONES * b'"' as u64;
    const BACKSLASHES: u64 = ONES * b'\\' as u64;
    let mut rest = bytes;
    while let Some((word, behind)) = rest.split_first_chunk() {
        let word = u64::from_le_bytes(*word);
        // Has the highest bit of each byte that is zero, and perhaps of some behind the first of these.
        let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
        let found = zeros(word ^ QUOTES) | zeros(word ^ BACKSLASHES);
        if found != 0 {
            return Some(bytes.len() - rest.len() + found.trailing_zeros() as usize / 8);
        }
        rest = behind;
    }
    let tail = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    Some(bytes.len() - rest.len() + tail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    #[test]
    fn values_are_found_whatever_stands_between_them() {
        let map = br#" { "a" : "x\"y" , "b":[{"c":"}"},1.5e-3], "c": null ,"d":{} ,"a2":true} "#;
        let found = pick(map, ["a", "b", "c", "d", "e"]).unwrap();
        let expected: [&[u8]; 4] = [br#""x\"y""#, br#"[{"c":"}"},1.5e-3]"#, b"null", b"{}"];
        assert_eq!(found[..4], expected.map(Some));
        assert_eq!(found[4], None);
        assert_eq!(pick(b"{}", ["a"]), Some([None]));
        assert_eq!(pick(br#"{"a":1,"a":2}"#, ["a"]), Some([Some(&b"2"[..])]));
        assert_eq!((text(br#""plain""#), text(br#""\u0041""#), text(b"5")), (Some("plain"), None, None));
    }

    #[test]
    fn the_first_value_of_a_key_is_found_without_a_look_at_the_rest() {
        assert_eq!(first(br#" {"a": [1, "]"], "b" : "x", and so on"#, "b"), Some(&br#""x""#[..]));
        for map in ["{}", r#"{"a": 1}"#, r#"{"\u0062": 1, "b": 2}"#, "5", ""] {
            assert_eq!(first(map.as_bytes(), "b"), None, "{map}");
        }
    }

    #[test]
    fn what_is_not_plain_is_left_alone() {
        for map in [
            "",
            "[]",
            "{",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1",
            "{\"a\":1,}",
            "{\"a\":1}x",
            "{\"a\":\"",
            "{a:1}",
            "{\"a\":[}",
        ] {
            assert_eq!(pick(map.as_bytes(), ["z"]), None, "{map}");
        }
        // The key may be any of those that are wanted.
        assert_eq!(pick(br#"{"\u0061":1}"#, ["a"]), None);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_reads_what_the_full_parser_reads(
            wanted in any_value(),
            others in prop::collection::btree_map("[a-v]{1,3}", any_value(), 0..5),
            pretty in any::<bool>(),
        ) {
            let mut map: Map<String, Value> = others.into_iter().collect();
            map.insert("wanted".to_owned(), wanted.clone());
            let map = Value::Object(map);
            let packed = if pretty { serde_json::to_vec_pretty(&map) } else { serde_json::to_vec(&map) }.unwrap();
            let [found] = pick(&packed, ["wanted"]).expect("plain enough");
            let found: Value = serde_json::from_slice(found.expect("it is there")).unwrap();
            prop_assert_eq!(&found, &wanted);
            if let Some(text) = text(&serde_json::to_vec(&wanted).unwrap()) {
                prop_assert_eq!(json!(text), wanted);
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"{}[]\",:\\a1 ".to_vec())], 0..60)) {
            let picked = pick(&bytes, ["a"]);
            if let Ok(Value::Object(map)) = serde_json::from_slice(&bytes)
                && let Some([found]) = picked
            {
                let found: Option<Value> = found.map(|found| serde_json::from_slice(found).unwrap());
                prop_assert_eq!(found.as_ref(), map.get("a"));
            }
        }
    }
}
