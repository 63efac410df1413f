//! Who is at the other end, and that nobody else puts in a line.
//!
//! ```text
//! supervisor: remuda-line/1 NONCE
//! nanny:      hello NAME INSTANCE NONCE HEARD PROOF
//! supervisor: welcome HEARD PROOF
//! both:       SIGNATURE JSON
//! ```
//!
//! A proof is an HMAC-SHA256 over all that was said before it, so that none fits another connection or the other side. `HEARD` is the
//! number of the last item that came from the other end.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

type Code = Hmac<Sha256>;

/// The longest line before a peer has proved who it is, in bytes.
pub const MAX_HELLO_BYTES: usize = 1024;
/// The longest line, in bytes.
pub const MAX_LINE_BYTES: usize = 1024 * 1024;
/// The longest name of a nanny, in bytes.
const MAX_NAME_BYTES: usize = 200;
const GREETING: &str = "remuda-line/1";
const DIGEST_BYTES: usize = 32;

/// A number that is used once.
pub type Nonce = [u8; 16];

/// Why a peer is not talked to any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Distrust {
    #[error("it does not speak as a nanny does")]
    Garbage,
    #[error("it does not have this cluster's key")]
    Proof,
    #[error("a line is not signed with the key of this connection")]
    Signature,
    #[error("it speaks out of turn")]
    Order,
}

/// What both ends have: made of the key in the connection file.
#[derive(Clone)]
pub struct LineKey(Code);

impl fmt::Debug for LineKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LineKey(secret)")
    }
}

impl LineKey {
    /// Made of the text in the connection file.
    pub fn new(text: &str) -> Self {
        let of_file: Code = Hmac::new_from_slice(text.as_bytes()).expect("HMAC takes keys of any length");
        // What is signed here never passes for a message of the cluster, nor the other way round.
        Self(derive(&of_file, &["remuda line 1"]))
    }
}

/// A code whose key is made of another's and these words.
fn derive(code: &Code, words: &[&str]) -> Code {
    let made = sum(code, words).finalize().into_bytes();
    Hmac::new_from_slice(&made).expect("HMAC takes keys of any length")
}

/// None of the words has a line end in it, so that they can be told apart.
fn sum(code: &Code, words: &[&str]) -> Code {
    let mut code = code.clone();
    for word in words {
        code.update(word.as_bytes());
        code.update(b"\n");
    }
    code
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))
        .collect()
}

fn proof(code: Code) -> String {
    hex(&code.finalize().into_bytes())
}

/// Compares in constant time.
fn fits(code: Code, text: &str) -> bool {
    let mut digest = [0; DIGEST_BYTES];
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    if text.len() != 2 * DIGEST_BYTES {
        return false;
    }
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else { return false };
        *byte = high << 4 | low;
    }
    code.verify_slice(&digest).is_ok()
}

/// Whether this can be a nanny's name, an instance or a nonce on a line.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The signatures of one direction of a connection.
#[derive(Debug)]
struct Direction {
    code: Code,
    lines: u64,
}

impl Direction {
    fn next(&mut self, json: &str) -> Code {
        let mut code = self.code.clone();
        code.update(&self.lines.to_be_bytes());
        code.update(json.as_bytes());
        self.lines += 1;
        code
    }
}

/// The signatures of a connection on which both have proved who they are.
#[derive(Debug)]
pub(super) struct Seals {
    ours: Direction,
    theirs: Direction,
}

impl Seals {
    fn new(key: &LineKey, nonces: [&str; 2], we_are_nanny: bool) -> Self {
        let of = |who| Direction { code: derive(&key.0, &["lines", who, nonces[0], nonces[1]]), lines: 0 };
        let (nanny, supervisor) = (of("nanny"), of("supervisor"));
        if we_are_nanny { Self { ours: nanny, theirs: supervisor } } else { Self { ours: supervisor, theirs: nanny } }
    }

    /// The next line of this end.
    pub(super) fn seal(&mut self, json: &str) -> String {
        format!("{} {json}", proof(self.ours.next(json)))
    }

    /// What the next line of the other end says.
    pub(super) fn open<'a>(&mut self, line: &'a str) -> Result<&'a str, Distrust> {
        let (signature, json) = line.split_once(' ').ok_or(Distrust::Garbage)?;
        if fits(self.theirs.next(json), signature) { Ok(json) } else { Err(Distrust::Signature) }
    }
}

/// Who a nanny says it is, and what it has heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) name: String,
    /// Which process of that name: a job may be started again by its system.
    pub(super) instance: String,
    pub(super) heard: u64,
}

/// The supervisor's first line.
pub(super) fn greeting(nonce: &Nonce) -> String {
    format!("{GREETING} {}", hex(nonce))
}

/// The nanny's answer to the supervisor's first line, and how it is answered.
pub(super) fn hello(
    key: &LineKey,
    greeting: &str,
    nonce: &Nonce,
    who: &Caller,
) -> Result<(String, Awaiting), Distrust> {
    let challenge = greeting.strip_prefix(GREETING).and_then(|rest| rest.strip_prefix(' ')).ok_or(Distrust::Garbage)?;
    if !is_word(challenge) {
        return Err(Distrust::Garbage);
    }
    let (nonce, heard) = (hex(nonce), who.heard.to_string());
    let said = [challenge, &nonce, &who.name, &who.instance, &heard];
    let proof = proof(sum(&key.0, &[&["hello"], &said[..]].concat()));
    let line = format!("hello {} {} {nonce} {heard} {proof}", who.name, who.instance);
    Ok((line, Awaiting { key: key.clone(), said: said.map(str::to_owned) }))
}

/// A nanny that has proved who it is, and waits for the supervisor's proof.
#[derive(Debug)]
pub(super) struct Awaiting {
    key: LineKey,
    said: [String; 5],
}

impl Awaiting {
    /// What the supervisor has heard, and how lines are signed.
    pub(super) fn welcome(self, line: &str) -> Result<(u64, Seals), Distrust> {
        let words: Vec<&str> = line.split(' ').collect();
        let ["welcome", heard, proof] = words[..] else { return Err(Distrust::Garbage) };
        let said: Vec<&str> = self.said.iter().map(String::as_str).collect();
        if !fits(sum(&self.key.0, &[&["welcome"], &said[..], &[heard]].concat()), proof) {
            return Err(Distrust::Proof);
        }
        let heard = heard.parse().map_err(|_| Distrust::Garbage)?;
        Ok((heard, Seals::new(&self.key, [said[0], said[1]], true)))
    }
}

/// A nanny that has proved who it is to the supervisor.
#[derive(Debug)]
pub(super) struct Proven {
    pub(super) caller: Caller,
    key: LineKey,
    said: [String; 5],
}

impl Proven {
    /// Of the nanny's first line, which answers a greeting with this nonce.
    pub(super) fn of(key: &LineKey, challenge: &Nonce, line: &str) -> Result<Self, Distrust> {
        let words: Vec<&str> = line.split(' ').collect();
        let ["hello", name, instance, nonce, heard, proof] = words[..] else { return Err(Distrust::Garbage) };
        if ![name, instance, nonce].into_iter().all(is_word) {
            return Err(Distrust::Garbage);
        }
        let challenge = hex(challenge);
        let said = [&challenge, nonce, name, instance, heard];
        if !fits(sum(&key.0, &[&["hello"], &said[..]].concat()), proof) {
            return Err(Distrust::Proof);
        }
        let heard = heard.parse().map_err(|_| Distrust::Garbage)?;
        let caller = Caller { name: name.to_owned(), instance: instance.to_owned(), heard };
        Ok(Self { caller, key: key.clone(), said: said.map(str::to_owned) })
    }

    /// The supervisor's proof, and how lines are signed. `heard` is what has come from this nanny before.
    pub(super) fn welcome(&self, heard: u64) -> (String, Seals) {
        let heard = heard.to_string();
        let said: Vec<&str> = self.said.iter().map(String::as_str).collect();
        let proof = proof(sum(&self.key.0, &[&["welcome"], &said[..], &[&heard]].concat()));
        (format!("welcome {heard} {proof}"), Seals::new(&self.key, [said[0], said[1]], false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller() -> Caller {
        Caller { name: "t-1".to_owned(), instance: "i".to_owned(), heard: 7 }
    }

    /// Both ends of a connection, each with its key.
    fn meet(nanny: &str, supervisor: &str) -> Result<(Seals, Seals), Distrust> {
        let (nanny, supervisor) = (LineKey::new(nanny), LineKey::new(supervisor));
        let (line, awaiting) = hello(&nanny, &greeting(&[1; 16]), &[2; 16], &caller())?;
        let proven = Proven::of(&supervisor, &[1; 16], &line)?;
        assert_eq!(proven.caller, caller());
        let (line, theirs) = proven.welcome(9);
        let (heard, ours) = awaiting.welcome(&line)?;
        assert_eq!(heard, 9);
        Ok((ours, theirs))
    }

    #[test]
    fn who_has_the_key_is_believed_and_who_has_another_is_not() {
        assert!(meet("k", "k").is_ok());
        assert_eq!(meet("k", "other").unwrap_err(), Distrust::Proof);
        // A supervisor without the key cannot answer either.
        let (_, awaiting) = hello(&LineKey::new("k"), &greeting(&[1; 16]), &[2; 16], &caller()).unwrap();
        let (line, _) = hello(&LineKey::new("other"), &greeting(&[1; 16]), &[2; 16], &caller()).unwrap();
        let (line, _) = Proven::of(&LineKey::new("other"), &[1; 16], &line).unwrap().welcome(0);
        assert_eq!(awaiting.welcome(&line).unwrap_err(), Distrust::Proof);
    }

    #[test]
    fn a_proof_fits_its_own_connection_and_side_only() {
        let key = LineKey::new("k");
        let (line, awaiting) = hello(&key, &greeting(&[1; 16]), &[2; 16], &caller()).unwrap();
        assert_eq!(Proven::of(&key, &[3; 16], &line).unwrap_err(), Distrust::Proof, "said again to another challenge");
        for (from, to) in [("t-1", "t-2"), (" 7 ", " 8 "), ("hello", "welcome")] {
            assert!(Proven::of(&key, &[1; 16], &line.replace(from, to)).is_err(), "{from} for {to}");
        }
        let reflected = line.rsplit_once(' ').unwrap().1;
        assert_eq!(awaiting.welcome(&format!("welcome 7 {reflected}")).unwrap_err(), Distrust::Proof);
    }

    #[test]
    fn lines_count_once_in_their_order_and_direction() {
        let (mut nanny, mut supervisor) = meet("k", "k").unwrap();
        let lines = ["a", "b", "c"].map(|json| nanny.seal(json));
        assert_eq!(supervisor.open(&lines[0]), Ok("a"));
        assert_eq!(nanny.open(&lines[1]), Err(Distrust::Signature), "sent back to who said it");
        assert_eq!(supervisor.open(&lines[2]), Err(Distrust::Signature), "one was left out");
        let (mut nanny, mut supervisor) = meet("k", "k").unwrap();
        let line = nanny.seal("a");
        assert_eq!(supervisor.open(&line), Ok("a"));
        assert_eq!(supervisor.open(&line), Err(Distrust::Signature), "said twice");
        let (mut nanny, mut supervisor) = meet("k", "k").unwrap();
        assert_eq!(supervisor.open(&nanny.seal("a").replace(" a", " b")), Err(Distrust::Signature), "changed");
    }

    #[test]
    fn what_no_nanny_says_is_garbage() {
        let key = LineKey::new("k");
        for line in ["", "GET / HTTP/1.1", "hello", "hello a b c d e f", "hello a b c 7 é", "hello \u{7} b c 7 00"] {
            assert!(Proven::of(&key, &[1; 16], line).is_err(), "{line}");
        }
        assert_eq!(hello(&key, "SSH-2.0-x", &[2; 16], &caller()).unwrap_err(), Distrust::Garbage);
        let (mut nanny, _) = meet("k", "k").unwrap();
        assert_eq!(nanny.open("x"), Err(Distrust::Garbage));
    }
}
