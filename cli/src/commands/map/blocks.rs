//! Stdin in blocks of whole lines, for `--pipe`.

use std::io::{self, Read};

use bytes::Bytes;

/// Blocks of about the same size, each of which ends with a line, except perhaps the last.
pub(super) struct Blocks<R> {
    from: R,
    /// How large a block is to be, in bytes, above 0.
    size: usize,
    /// The beginning of the next block.
    rest: Vec<u8>,
    at_end: bool,
}

impl<R: Read> Blocks<R> {
    pub(super) fn new(from: R, size: usize) -> Self {
        Self { from, size, rest: Vec::new(), at_end: false }
    }
}

impl<R: Read> Iterator for Blocks<R> {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<io::Result<Bytes>> {
        // A line that is longer than a block makes it as long as it needs.
        let mut size = self.size;
        loop {
            let wanted = size.saturating_sub(self.rest.len());
            if wanted > 0 && !self.at_end {
                let read = self.from.by_ref().take(wanted as u64).read_to_end(&mut self.rest);
                match read {
                    Ok(count) => self.at_end = count < wanted,
                    Err(error) => return Some(Err(error)),
                }
            }
            let end = match self.rest.iter().rposition(|byte| *byte == b'\n') {
                _ if self.at_end => self.rest.len(),
                Some(at) => at + 1,
                None => {
                    size = self.rest.len() + self.size;
                    continue;
                }
            };
            if self.rest.is_empty() {
                return None;
            }
            let rest = self.rest.split_off(end);
            return Some(Ok(std::mem::replace(&mut self.rest, rest).into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(text: &str, size: usize) -> Vec<String> {
        let blocks = Blocks::new(text.as_bytes(), size);
        blocks.map(|block| String::from_utf8(block.unwrap().to_vec()).unwrap()).collect()
    }

    #[test]
    fn blocks_end_with_a_line() {
        assert_eq!(blocks("a\nbb\nccc\nd\n", 5), ["a\nbb\n", "ccc\n", "d\n"]);
        assert_eq!(blocks("a\nlonger than that\nb", 3), ["a\n", "longer than that\n", "b"]);
        assert_eq!(blocks("no end", 2), ["no end"]);
        assert!(blocks("", 5).is_empty());
        for size in 1..40 {
            let text = "one\ntwo\n\nthree and more\nfour";
            assert_eq!(blocks(text, size).concat(), text, "{size}");
        }
    }
}
