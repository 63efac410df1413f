//! Whether a pickle holds plain values, and how many: known before any memory is spent on them.

/// Deepest nesting that is read. Values are read and dropped by recursion, so that a deep one would take the whole stack.
const MAX_DEPTH: u32 = 100;
/// Most values that a pickle may unfold to. A value can be repeated by a reference of two bytes, and its repetitions again.
const MAX_VALUES: u64 = 16 * 1024 * 1024;

/// Why a pickle is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// It makes or calls something, as only Python can.
    #[error("the value is a Python object, not a plain value{}", name.as_ref().map(|name| format!(" (`{name}`)")).unwrap_or_default())]
    Object {
        /// Its class, or the function that makes it, where that can be told.
        name: Option<String>,
    },
    /// It ends too early, or takes what is not there.
    #[error("the pickle is damaged at byte {at}")]
    Damaged {
        /// Where.
        at: usize,
    },
    /// It has an opcode that Python does not write any more, or that we do not know.
    #[error("the pickle has an unknown opcode 0x{opcode:02x} at byte {at}")]
    Opcode {
        /// The opcode.
        opcode: u8,
        /// Where.
        at: usize,
    },
    /// A list or a dict was changed after it was put into another, as happens where a value holds itself.
    #[error("the value holds itself")]
    Recursive,
    /// It is nested deeper than is read.
    #[error("the value is nested more than {MAX_DEPTH} deep")]
    TooDeep,
    /// It would unfold to more than is read.
    #[error("the value holds more than {MAX_VALUES} values")]
    TooLarge,
}

/// What is known of a value on the stack, in the memo, or inside another.
#[derive(Clone, Copy)]
struct Node {
    depth: u32,
    values: u64,
    /// Whether it was put into another, which counted it as it was then.
    counted: bool,
}

/// A pickle machine whose values are nothing but their measures.
#[derive(Default)]
struct Machine {
    nodes: Vec<Node>,
    /// Indices into `nodes`.
    stack: Vec<usize>,
    /// Lengths of the stack.
    marks: Vec<usize>,
    /// Indices into `nodes`, by number: ordered, since numbers may be far apart.
    memo: std::collections::BTreeMap<u32, usize>,
    /// The last texts, for the name of a class.
    texts: [Option<String>; 2],
}

/// Checks that `bytes` are one pickle of plain values within the limits.
pub(super) fn check(bytes: &[u8]) -> Result<(), Unfit> {
    let mut machine = Machine::default();
    let mut at = 0;
    loop {
        let damaged = Unfit::Damaged { at };
        let opcode = *bytes.get(at).ok_or_else(|| damaged.clone())?;
        let rest = &bytes[at + 1..];
        if opcode == b'.' {
            return if machine.stack.len() == 1 { Ok(()) } else { Err(damaged) };
        }
        let argument = argument(opcode, rest).ok_or_else(|| {
            // Told apart from what is cut off.
            if argument(opcode, &[0; 16]).is_none() { Unfit::Opcode { opcode, at } } else { damaged.clone() }
        })?;
        machine.step(opcode, &rest[argument.start..argument.end], at)?;
        at += 1 + argument.end;
    }
}

/// Where the argument of an opcode begins (past its length) and ends. `None`: an opcode without a place here, or cut off.
fn argument(opcode: u8, rest: &[u8]) -> Option<std::ops::Range<usize>> {
    let number = |size: usize| -> Option<usize> {
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(rest.get(..size)?);
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    };
    let counted = |size: usize| Some(size..size.checked_add(number(size)?)?);
    let line = || Some(0..rest.iter().position(|byte| *byte == b'\n')? + 1);
    let range = match opcode {
        // None, booleans, marks, lists, tuples, dicts, sets, memoize, pop, dup, and what makes objects.
        b'N'
        | 0x88
        | 0x89
        | b'('
        | b']'
        | b'a'
        | b'e'
        | b'l'
        | b')'
        | 0x85..=0x87
        | b't'
        | b'}'
        | b's'
        | b'u'
        | b'd'
        | 0x8f..=0x91
        | 0x94
        | b'0'
        | b'1'
        | b'2'
        | b'R'
        | b'b'
        | b'o'
        | 0x81
        | 0x92
        | 0x93
        | b'Q' => 0..0,
        0x80 | b'K' | b'q' | b'h' | 0x82 => 0..1,
        b'M' | 0x83 => 0..2,
        b'J' | b'r' | b'j' | 0x84 => 0..4,
        b'G' | 0x95 => 0..8,
        0x8a | 0x8c | b'C' | b'U' => counted(1)?,
        0x8b | b'X' | b'B' | b'T' => counted(4)?,
        0x8d | 0x8e | 0x96 => counted(8)?,
        // Numbers and text of protocol 0, and numbers of the memo.
        b'I' | b'L' | b'F' | b'S' | b'V' | b'p' | b'g' | b'P' => line()?,
        b'c' | b'i' => {
            let first = line()?.end;
            let second = rest[first..].iter().position(|byte| *byte == b'\n')? + 1;
            0..first + second
        }
        _ => return None,
    };
    (range.end <= rest.len()).then_some(range)
}

impl Machine {
    fn step(&mut self, opcode: u8, argument: &[u8], at: usize) -> Result<(), Unfit> {
        let damaged = Unfit::Damaged { at };
        match opcode {
            0x80 | 0x95 => {}
            b'N' | 0x88 | 0x89 | b'K' | b'M' | b'J' | b'G' | 0x8a | 0x8b | b'I' | b'L' | b'F' => self.push_plain(),
            0x8c | 0x8d | b'X' | b'V' | b'S' | b'U' | b'T' | b'C' | b'B' | 0x8e | 0x96 => {
                // Class names are short.
                let text = std::str::from_utf8(&argument[..argument.len().min(256)]).ok().map(str::to_owned);
                self.texts = [self.texts[1].take(), text];
                self.push_plain();
            }
            b'(' => self.marks.push(self.stack.len()),
            b']' | b'}' | b')' | 0x8f => self.push_plain(),
            b'a' => self.put_into(1, &damaged)?,
            b's' => self.put_into(2, &damaged)?,
            b'e' | b'u' | 0x90 => {
                let items = self.above_mark(&damaged)?;
                self.put_into(items, &damaged)?;
            }
            0x85..=0x87 => self.collect(usize::from(opcode - 0x84), &damaged)?,
            b't' | b'l' | b'd' | 0x91 => {
                let items = self.above_mark(&damaged)?;
                self.collect(items, &damaged)?;
            }
            0x94 => self.memoize(u32::try_from(self.memo.len()).unwrap_or(u32::MAX), &damaged)?,
            b'q' | b'r' => self.memoize(little_endian(argument), &damaged)?,
            b'p' => self.memoize(decimal(argument).ok_or_else(|| damaged.clone())?, &damaged)?,
            b'h' | b'j' => self.recall(little_endian(argument), &damaged)?,
            b'g' => self.recall(decimal(argument).ok_or_else(|| damaged.clone())?, &damaged)?,
            b'0' => drop(self.pop(&damaged)?),
            b'1' => {
                let items = self.above_mark(&damaged)?;
                self.stack.truncate(self.stack.len() - items);
            }
            b'2' => {
                let top = *self.stack.last().ok_or(damaged)?;
                self.stack.push(top);
            }
            b'c' | b'i' => {
                let name = String::from_utf8_lossy(&argument[..argument.len().min(256)]);
                return Err(Unfit::Object { name: Some(name.trim_end().replace('\n', ".")) });
            }
            0x93 => {
                let [Some(module), Some(name)] = &self.texts else { return Err(Unfit::Object { name: None }) };
                return Err(Unfit::Object { name: Some(format!("{module}.{name}")) });
            }
            // All that is left makes objects.
            _ => return Err(Unfit::Object { name: None }),
        }
        Ok(())
    }

    fn push(&mut self, depth: u32, values: u64) {
        self.stack.push(self.nodes.len());
        self.nodes.push(Node { depth, values, counted: false });
    }

    fn push_plain(&mut self) {
        self.push(1, 1);
    }

    fn pop(&mut self, damaged: &Unfit) -> Result<usize, Unfit> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(damaged.clone());
        }
        self.stack.pop().ok_or_else(|| damaged.clone())
    }

    /// How many values there are above the last mark, which is taken away.
    fn above_mark(&mut self, damaged: &Unfit) -> Result<usize, Unfit> {
        let mark = self.marks.pop().ok_or_else(|| damaged.clone())?;
        self.stack.len().checked_sub(mark).ok_or_else(|| damaged.clone())
    }

    /// Takes the measures of the top `items` values, which go into another, and removes them.
    fn take(&mut self, items: usize, damaged: &Unfit) -> Result<(u32, u64), Unfit> {
        let (mut depth, mut values) = (0, 0_u64);
        for _ in 0..items {
            let index = self.pop(damaged)?;
            let node = &mut self.nodes[index];
            node.counted = true;
            depth = depth.max(node.depth);
            values = values.saturating_add(node.values);
        }
        Ok((depth, values))
    }

    fn fits(depth: u32, values: u64) -> Result<(), Unfit> {
        if depth > MAX_DEPTH {
            return Err(Unfit::TooDeep);
        }
        if values > MAX_VALUES { Err(Unfit::TooLarge) } else { Ok(()) }
    }

    /// Puts the top `items` values into the list or dict below them.
    fn put_into(&mut self, items: usize, damaged: &Unfit) -> Result<(), Unfit> {
        let (depth, values) = self.take(items, damaged)?;
        let index = *self.stack.last().ok_or_else(|| damaged.clone())?;
        let node = &mut self.nodes[index];
        if node.counted {
            return Err(Unfit::Recursive);
        }
        node.depth = node.depth.max(depth + 1);
        node.values = node.values.saturating_add(values);
        Self::fits(node.depth, node.values)
    }

    /// Makes one value of the top `items`.
    fn collect(&mut self, items: usize, damaged: &Unfit) -> Result<(), Unfit> {
        let (depth, values) = self.take(items, damaged)?;
        let values = values.saturating_add(1);
        Self::fits(depth + 1, values)?;
        self.push(depth + 1, values);
        Ok(())
    }

    fn memoize(&mut self, number: u32, damaged: &Unfit) -> Result<(), Unfit> {
        let top = *self.stack.last().ok_or_else(|| damaged.clone())?;
        self.memo.insert(number, top);
        Ok(())
    }

    fn recall(&mut self, number: u32, damaged: &Unfit) -> Result<(), Unfit> {
        let index = *self.memo.get(&number).ok_or_else(|| damaged.clone())?;
        self.stack.push(index);
        Ok(())
    }
}

fn little_endian(argument: &[u8]) -> u32 {
    argument.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn decimal(line: &[u8]) -> Option<u32> {
    std::str::from_utf8(line).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deep_value_is_refused_before_it_takes_the_stack() {
        let nested = |depth: usize| [vec![b']'; depth], vec![b'a'; depth - 1], vec![b'.']].concat();
        assert_eq!(check(&nested(100)), Ok(()));
        assert_eq!(check(&nested(101)), Err(Unfit::TooDeep));
        assert_eq!(check(&nested(1_000_000)), Err(Unfit::TooDeep));
    }

    #[test]
    fn a_few_bytes_that_unfold_to_billions_are_refused() {
        // Each tuple holds the one before twice.
        let doubled: Vec<u8> = [&b"K\x01"[..], &b"2\x86".repeat(64), b"."].concat();
        assert_eq!(check(&doubled), Err(Unfit::TooLarge));
    }

    #[test]
    fn a_value_that_holds_itself_or_grows_inside_another_is_refused() {
        assert_eq!(check(b"]q\x00h\x00a."), Err(Unfit::Recursive));
        assert_eq!(check(b"]]q\x00ah\x00K\x01a."), Err(Unfit::Recursive));
        assert_eq!(check(b"]K\x01aq\x00h\x00\x86."), Ok(()), "the same list twice is none");
    }

    #[test]
    fn an_object_is_named() {
        let object = |bytes: &[u8]| match check(bytes) {
            Err(Unfit::Object { name }) => name.unwrap_or_default(),
            other => panic!("{other:?}"),
        };
        assert_eq!(object(b"cos\nsystem\n."), "os.system");
        assert_eq!(object(b"\x80\x04\x8c\x01m\x94\x8c\x01C\x94\x93."), "m.C");
    }

    #[test]
    fn what_is_cut_off_or_unknown_is_told_where() {
        assert_eq!(check(b""), Err(Unfit::Damaged { at: 0 }));
        assert_eq!(check(b"\x80\x04X\x05\x00\x00\x00ab"), Err(Unfit::Damaged { at: 2 }));
        assert_eq!(check(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff."), Err(Unfit::Damaged { at: 0 }));
        assert_eq!(check(b"a."), Err(Unfit::Damaged { at: 0 }));
        assert_eq!(check(b"(."), Err(Unfit::Damaged { at: 1 }));
        assert_eq!(check(b"K\x01\xff"), Err(Unfit::Opcode { opcode: 0xff, at: 2 }));
    }
}
