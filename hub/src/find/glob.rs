//! Patterns for texts, as Python's `fnmatch` has them: case counts, and the whole text has to match.

/// A pattern: `*` any text, `?` any character, `[seq]` one of these, `[!seq]` one that is none of these. A bracket that is
/// not closed stands for itself, as does any other character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// `*`; never two in a row.
    AnyText,
    /// `?`.
    AnyChar,
    /// A character.
    Char(char),
    /// One from the ranges, or one that is in none of them. A range that ends before it begins has nothing in it.
    Set { negated: bool, ranges: Vec<(char, char)> },
}

impl Glob {
    /// Reads a pattern; every text is one.
    pub fn new(pattern: &str) -> Self {
        let chars: Vec<char> = pattern.chars().collect();
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < chars.len() {
            let c = chars[at];
            at += 1;
            match c {
                '*' if pieces.last() == Some(&Piece::AnyText) => {}
                '*' => pieces.push(Piece::AnyText),
                '?' => pieces.push(Piece::AnyChar),
                '[' => match read_set(&chars[at..]) {
                    Some((set, length)) => {
                        pieces.push(set);
                        at += length;
                    }
                    None => pieces.push(Piece::Char('[')),
                },
                c => pieces.push(Piece::Char(c)),
            }
        }
        Self(pieces)
    }

    /// The text that all matching texts begin with.
    pub fn prefix(&self) -> String {
        self.0.iter().map_while(|piece| if let Piece::Char(c) = piece { Some(*c) } else { None }).collect()
    }

    /// Whether the text is of this form. Takes at most pattern × text steps.
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let (mut piece, mut at) = (0, 0);
        // Where to go on when what follows the last `*` does not match: with that `*` one character longer.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            match self.0.get(piece) {
                Some(Piece::AnyText) => {
                    retry = Some((piece + 1, at));
                    piece += 1;
                    continue;
                }
                Some(one) if at < text.len() && one.takes(text[at]) => {
                    piece += 1;
                    at += 1;
                    continue;
                }
                None if at == text.len() => return true,
                _ => {}
            }
            match &mut retry {
                Some((after, from)) if *from < text.len() => {
                    *from += 1;
                    (piece, at) = (*after, *from);
                }
                _ => return false,
            }
        }
    }
}

impl Piece {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::AnyText => false,
            Self::AnyChar => true,
            Self::Char(own) => *own == c,
            Self::Set { negated, ranges } => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&c)) != *negated
            }
        }
    }
}

/// The set that begins after a `[`, and its length with the `]`; `None` if it does not end.
fn read_set(chars: &[char]) -> Option<(Piece, usize)> {
    let negated = chars.first() == Some(&'!');
    let start = usize::from(negated);
    // A `]` in first place is one of the set.
    let end = (start + 1..chars.len()).find(|at| chars[*at] == ']')?;
    let mut inner = &chars[start..end];
    let mut ranges = Vec::new();
    while let Some(first) = inner.first() {
        if inner.len() >= 3 && inner[1] == '-' {
            ranges.push((*first, inner[2]));
            inner = &inner[3..];
        } else {
            ranges.push((*first, *first));
            inner = &inner[1..];
        }
    }
    Some((Piece::Set { negated, ranges }, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_what_fnmatch_matches() {
        // Answers of Python 3.11's `fnmatch.fnmatchcase`.
        for (pattern, text, matches) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
            ("**a", "bba", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("A*", "abc", false),
            ("[ab]x", "bx", true),
            ("[!ab]x", "bx", false),
            ("[!ab]x", "cx", true),
            ("[a-c]x", "bx", true),
            ("[c-a]x", "bx", false),
            ("[!c-a]x", "bx", true),
            ("[]]", "]", true),
            ("[!]]", "]", false),
            ("[^a]", "^", true),
            ("[a", "[a", true),
            ("[]", "[]", true),
            ("[!]", "[!]", true),
            ("*[*]*", "label*task", true),
            ("*[?]*", "label*task", false),
            ("[a-]", "-", true),
            ("a*", "a\nb\0c", true),
            ("?", "é", true),
        ] {
            assert_eq!(Glob::new(pattern).matches(text), matches, "{pattern:?} {text:?}");
        }
    }

    #[test]
    fn a_prefix_ends_where_the_pattern_is_open() {
        for (pattern, prefix) in [("group_a*", "group_a"), ("a[bc]d", "a"), ("abc", "abc"), ("*x", ""), ("[a", "[a")] {
            assert_eq!(Glob::new(pattern).prefix(), prefix);
        }
    }

    #[test]
    fn a_pattern_of_many_stars_is_not_slow() {
        let pattern = Glob::new(&"*a".repeat(500));
        assert!(!pattern.matches(&"a".repeat(499)));
        assert!(pattern.matches(&"a".repeat(5_000)));
    }
}
