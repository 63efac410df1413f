//! Reads a pickle into a [`Tree`], and measures what that would unfold to: known before any memory is spent on it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::opcode;
use super::tree::{Class, Holder, Kind, Node, Span, Tree};
use super::unfit::{BYTE_WEIGHT, MAX_DEPTH, MAX_REPEATED_BYTES, MAX_VALUES, Unfit};

/// A pickle machine that makes no objects.
struct Machine {
    source: Bytes,
    nodes: Vec<Node>,
    holders: Vec<Holder>,
    /// Numbers of nodes.
    stack: Vec<u32>,
    /// Lengths of the stack.
    marks: Vec<usize>,
    /// Numbers of nodes, by number: ordered, since numbers may be far apart.
    memo: BTreeMap<u32, u32>,
}

/// What some values are together.
struct Measures {
    items: Vec<u32>,
    depth: u8,
    values: u32,
    bytes: u64,
}

/// Reads one pickle.
///
/// # Errors
/// For what is no whole pickle, beyond the limits, or holds objects of unknown classes.
pub(super) fn run(source: &Bytes) -> Result<Tree, Unfit> {
    let mut machine = Machine {
        source: source.clone(),
        nodes: Vec::new(),
        holders: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: BTreeMap::new(),
    };
    let mut at = 0;
    loop {
        let damaged = Unfit::Damaged { at };
        let opcode = *source.get(at).ok_or_else(|| damaged.clone())?;
        let rest = &source[at + 1..];
        if opcode == b'.' {
            let &[root] = machine.stack.as_slice() else { return Err(damaged) };
            let Machine { source, nodes, holders, .. } = machine;
            return Ok(Tree { source, nodes, holders, root, beside: BTreeMap::new() });
        }
        let argument = opcode::argument(opcode, rest).ok_or_else(|| {
            // Told apart from what is cut off.
            if opcode::is_known(opcode) { damaged.clone() } else { Unfit::Opcode { opcode, at } }
        })?;
        let span = Span { at: at + 1 + argument.start, len: argument.len() };
        at += 1 + argument.end;
        machine.step(opcode, span, damaged)?;
    }
}

impl Machine {
    fn step(&mut self, opcode: u8, span: Span, damaged: Unfit) -> Result<(), Unfit> {
        let source = self.source.clone();
        let argument = &source[span.at..span.at + span.len];
        match opcode {
            0x80 | 0x95 => {}
            b'N' => self.push(Node::None)?,
            0x88 => self.push(Node::Bool(true))?,
            0x89 => self.push(Node::Bool(false))?,
            b'K' | b'M' => self.push(Node::Int(i64::from(little_endian(argument))))?,
            b'J' | 0x8a | 0x8b => self.push(integer(argument, span))?,
            b'G' => self.push(Node::Float(f64::from_be_bytes(argument.try_into().map_err(|_| damaged)?)))?,
            0x8c | 0x8d | b'X' => {
                std::str::from_utf8(argument).map_err(|_| damaged)?;
                self.push(Node::Text(span))?;
            }
            b'C' | b'B' | 0x8e | 0x96 => self.push(Node::Bytes(span))?,
            b'(' => self.marks.push(self.stack.len()),
            b']' => self.collect(Kind::List, 0, &damaged)?,
            b'}' => self.collect(Kind::Dict, 0, &damaged)?,
            b')' => self.collect(Kind::Tuple, 0, &damaged)?,
            0x8f => self.collect(Kind::Set, 0, &damaged)?,
            b'a' => self.put_into(&[Kind::List], 1, &damaged)?,
            b's' => self.put_into(&[Kind::Dict], 2, &damaged)?,
            b'e' | b'u' | 0x90 => {
                let kind = match opcode {
                    b'e' => Kind::List,
                    b'u' => Kind::Dict,
                    _ => Kind::Set,
                };
                let items = self.above_mark(&damaged)?;
                self.put_into(&[kind], items, &damaged)?;
            }
            0x85..=0x87 => self.collect(Kind::Tuple, usize::from(opcode - 0x84), &damaged)?,
            b't' | b'l' | b'd' | 0x91 => {
                let kind = match opcode {
                    b't' => Kind::Tuple,
                    b'l' => Kind::List,
                    b'd' => Kind::Dict,
                    _ => Kind::FrozenSet,
                };
                let items = self.above_mark(&damaged)?;
                self.collect(kind, items, &damaged)?;
            }
            0x94 => self.memoize(u32::try_from(self.memo.len()).unwrap_or(u32::MAX), &damaged)?,
            b'q' | b'r' => self.memoize(little_endian(argument), &damaged)?,
            b'h' | b'j' => {
                let node = *self.memo.get(&little_endian(argument)).ok_or(damaged)?;
                self.stack.push(node);
            }
            b'0' => drop(self.pop(&damaged)?),
            b'1' => {
                let items = self.above_mark(&damaged)?;
                self.stack.truncate(self.stack.len() - items);
            }
            b'2' => {
                let top = *self.stack.last().ok_or(damaged)?;
                self.stack.push(top);
            }
            b'c' => {
                let lines = String::from_utf8_lossy(argument);
                let (module, name) = lines.trim_end_matches('\n').split_once('\n').ok_or(damaged)?;
                self.class(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop(&damaged)?, self.pop(&damaged)?);
                let text = |node: u32| match self.nodes[node as usize] {
                    Node::Text(Span { at, len }) => std::str::from_utf8(&source[at..at + len]).ok(),
                    _ => None,
                };
                let (Some(module), Some(name)) = (text(module), text(name)) else { return Err(damaged) };
                self.class(module, name)?;
            }
            // An object from its class and arguments: by `__new__`, or by a call.
            0x81 | b'R' => {
                let [arguments, class] = [self.pop(&damaged)?, self.pop(&damaged)?];
                let Node::Class(class) = self.nodes[class as usize] else { return Err(damaged) };
                if class == Class::NdArray || class.is_canned() != (opcode == 0x81) {
                    return Err(Unfit::Object { name: Some(class.name().to_owned()) });
                }
                self.stack.push(arguments);
                self.collect(Kind::Object(class), 1, &damaged)?;
            }
            b'b' => self.build(&damaged)?,
            b'i' => {
                let name = String::from_utf8_lossy(&argument[..argument.len().min(SHOWN_NAME_BYTES)]);
                return Err(Unfit::Object { name: Some(name.trim_end().replace('\n', ".")) });
            }
            // All that is left makes objects.
            _ => return Err(Unfit::Object { name: None }),
        }
        Ok(())
    }

    fn class(&mut self, module: &str, name: &str) -> Result<(), Unfit> {
        let class = Class::find(module, name).ok_or_else(|| {
            let name: String = format!("{module}.{name}").chars().take(SHOWN_NAME_BYTES).collect();
            Unfit::Object { name: Some(name) }
        })?;
        self.push(Node::Class(class))
    }

    fn push(&mut self, node: Node) -> Result<(), Unfit> {
        if self.nodes.len() >= MAX_VALUES as usize {
            return Err(Unfit::TooLarge);
        }
        self.stack.push(u32::try_from(self.nodes.len()).map_err(|_| Unfit::TooLarge)?);
        self.nodes.push(node);
        Ok(())
    }

    fn pop(&mut self, damaged: &Unfit) -> Result<u32, Unfit> {
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

    /// Takes the top `items` values, which go into another, and their measures.
    fn take(&mut self, items: usize, damaged: &Unfit) -> Result<Measures, Unfit> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let from = self.stack.len().checked_sub(items).filter(|from| *from >= floor).ok_or_else(|| damaged.clone())?;
        let mut measures = Measures { items: self.stack.split_off(from), depth: 0, values: 0, bytes: 0 };
        for node in &measures.items {
            let (depth, values, bytes) = match self.nodes[*node as usize] {
                Node::Holder(holder) => {
                    let holder = &mut self.holders[holder as usize];
                    // Its data may be in a buffer, whose size is not known yet. Python never writes it twice.
                    if holder.counted && matches!(holder.kind, Kind::Object(class) if class.is_canned()) {
                        return Err(damaged.clone());
                    }
                    holder.counted = true;
                    (holder.depth, holder.values, holder.bytes)
                }
                Node::Text(span) | Node::Long(span) => (1, 1, span.len as u64),
                Node::Bytes(span) => (1, 1, BYTE_WEIGHT * span.len as u64),
                _ => (1, 1, 0),
            };
            measures.depth = measures.depth.max(depth);
            measures.values = measures.values.saturating_add(values);
            measures.bytes = measures.bytes.saturating_add(bytes);
        }
        Ok(measures)
    }

    fn fits(&self, holder: &Holder) -> Result<(), Unfit> {
        if holder.depth > MAX_DEPTH {
            return Err(Unfit::TooDeep);
        }
        let most_bytes = BYTE_WEIGHT * self.source.len() as u64 + MAX_REPEATED_BYTES;
        if holder.values > MAX_VALUES || holder.bytes > most_bytes { Err(Unfit::TooLarge) } else { Ok(()) }
    }

    /// The holder that is on top of the stack, if it may still change.
    fn top(&self, damaged: &Unfit) -> Result<usize, Unfit> {
        let top = *self.stack.last().ok_or_else(|| damaged.clone())?;
        let Node::Holder(holder) = self.nodes[top as usize] else { return Err(damaged.clone()) };
        if self.holders[holder as usize].counted { Err(Unfit::Recursive) } else { Ok(holder as usize) }
    }

    /// Puts the top `items` values into the one below them.
    fn put_into(&mut self, kinds: &[Kind], items: usize, damaged: &Unfit) -> Result<(), Unfit> {
        let taken = self.take(items, damaged)?;
        let at = self.top(damaged)?;
        let holder = &mut self.holders[at];
        if !kinds.contains(&holder.kind) || (holder.kind == Kind::Dict && !taken.items.len().is_multiple_of(2)) {
            return Err(damaged.clone());
        }
        holder.depth = holder.depth.max(taken.depth.saturating_add(1));
        holder.values = holder.values.saturating_add(taken.values);
        holder.bytes = holder.bytes.saturating_add(taken.bytes);
        if holder.items.is_empty() {
            holder.items = taken.items;
        } else {
            holder.items.extend(taken.items);
        }
        self.fits(&self.holders[at])
    }

    /// Gives the object below it its state.
    fn build(&mut self, damaged: &Unfit) -> Result<(), Unfit> {
        let object = self.stack.len().checked_sub(2).ok_or_else(|| damaged.clone())?;
        match self.nodes[self.stack[object] as usize] {
            Node::Holder(holder) => match self.holders[holder as usize].kind {
                // What was made, and has no state yet.
                kind @ Kind::Object(_) if self.holders[holder as usize].items.len() == 1 => {
                    self.put_into(&[kind], 1, damaged)
                }
                _ => Err(damaged.clone()),
            },
            _ => Err(damaged.clone()),
        }
    }

    /// Makes one value of the top `items`.
    fn collect(&mut self, kind: Kind, items: usize, damaged: &Unfit) -> Result<(), Unfit> {
        let Measures { items, depth, values, bytes } = self.take(items, damaged)?;
        if kind == Kind::Dict && !items.len().is_multiple_of(2) {
            return Err(damaged.clone());
        }
        let (depth, values) = (depth.saturating_add(1), values.saturating_add(1));
        let holder = Holder { kind, depth, counted: false, values, bytes, items };
        self.fits(&holder)?;
        self.push(Node::Holder(u32::try_from(self.holders.len()).map_err(|_| Unfit::TooLarge)?))?;
        self.holders.push(holder);
        Ok(())
    }

    fn memoize(&mut self, number: u32, damaged: &Unfit) -> Result<(), Unfit> {
        let top = *self.stack.last().ok_or_else(|| damaged.clone())?;
        if self.memo.len() >= MAX_VALUES as usize {
            return Err(Unfit::TooLarge);
        }
        self.memo.insert(number, top);
        Ok(())
    }
}

/// Class names are short.
const SHOWN_NAME_BYTES: usize = 256;

fn little_endian(argument: &[u8]) -> u32 {
    argument.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

/// A number in two's complement.
fn integer(argument: &[u8], span: Span) -> Node {
    let negative = argument.last().is_some_and(|byte| *byte >= 0x80);
    let mut bytes = [if negative { 0xff } else { 0 }; 8];
    match bytes.get_mut(..argument.len()) {
        Some(low) => {
            low.copy_from_slice(argument);
            Node::Int(i64::from_le_bytes(bytes))
        }
        None => Node::Long(span),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8]) -> Result<(), Unfit> {
        run(&Bytes::copy_from_slice(bytes)).map(drop)
    }

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
    fn a_text_that_is_repeated_to_gigabytes_is_refused() {
        let repeated = |times: usize| {
            let text = [b"X\x00\x00\x10\x00".to_vec(), vec![b'a'; 1 << 20]].concat();
            check(&[&b"]("[..], &text, b"\x94", &b"h\x00".repeat(times), b"e."].concat())
        };
        assert_eq!(repeated(262), Ok(()));
        assert_eq!(repeated(264), Err(Unfit::TooLarge));
    }

    #[test]
    fn what_has_its_data_beside_the_pickle_is_there_once() {
        let canned =
            |rest: &[u8]| check(&[&b"cipyparallel.serialize.canning\nCannedBytes\n)\x81q\x00"[..], rest].concat());
        assert_eq!(canned(b"\x85."), Ok(()));
        assert_eq!(canned(b"h\x00\x86."), Err(Unfit::Damaged { at: 49 }));
        assert_eq!(canned(b"\x85h\x00\x86."), Err(Unfit::Damaged { at: 50 }));
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
        assert_eq!(object(b"(ios\nsystem\n."), "os.system");
        assert_eq!(object(b"cipyparallel.serialize.canning\nCannedBytes\n)R."), Class::CannedBytes.name());
    }

    #[test]
    fn what_is_cut_off_or_unknown_is_told_where() {
        assert_eq!(check(b""), Err(Unfit::Damaged { at: 0 }));
        assert_eq!(check(b"\x80\x04X\x05\x00\x00\x00ab"), Err(Unfit::Damaged { at: 2 }));
        assert_eq!(check(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff."), Err(Unfit::Damaged { at: 0 }));
        assert_eq!(check(b"a."), Err(Unfit::Damaged { at: 0 }));
        assert_eq!(check(b"(."), Err(Unfit::Damaged { at: 1 }));
        assert_eq!(check(b"K\x01\xff"), Err(Unfit::Opcode { opcode: 0xff, at: 2 }));
        assert_eq!(check(b"}K\x01K\x02K\x03e."), Err(Unfit::Damaged { at: 7 }));
        assert_eq!(check(b"K\x01NNb."), Err(Unfit::Damaged { at: 4 }));
    }
}
