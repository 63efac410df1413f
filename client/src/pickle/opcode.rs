//! Where one instruction of a pickle ends, and the next begins.

use std::ops::Range;

/// Where the argument of an opcode begins (past its length) and ends. `None`: an opcode without a place here, or cut off.
pub(super) fn argument(opcode: u8, rest: &[u8]) -> Option<Range<usize>> {
    let number = |size: usize| -> Option<usize> {
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(rest.get(..size)?);
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    };
    let counted = |size: usize| Some(size..size.checked_add(number(size)?)?);
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
        0x8a | 0x8c | b'C' => counted(1)?,
        0x8b | b'X' | b'B' => counted(4)?,
        0x8d | 0x8e | 0x96 => counted(8)?,
        b'c' | b'i' => {
            let line = |from: usize| rest.get(from..)?.iter().position(|byte| *byte == b'\n').map(|at| from + at + 1);
            0..line(line(0)?)?
        }
        _ => return None,
    };
    (range.end <= rest.len()).then_some(range)
}

/// Whether this opcode exists, as far as is known here.
pub(super) fn is_known(opcode: u8) -> bool {
    // Whatever the argument, two empty lines or sixteen zeros hold it.
    argument(opcode, &[0; 16]).is_some() || argument(opcode, b"\n\n").is_some()
}
