//! Results in the form that a stock Python client reads: one pickle of plain values.

use bytes::Bytes;
use remuda_proto::message::native::ProcessOutcome;
#[cfg(feature = "io")]
use remuda_proto::pickle::{self as proto_pickle, Marking};
#[cfg(feature = "io")]
use remuda_proto::value::{self, ASIDE_BYTES};
use serde::Serialize;

/// `None`.
pub(crate) const NONE: &[u8] = b"\x80\x04N.";

/// A plain value. Structs become dicts, enums what serde makes of them in JSON.
pub(crate) fn plain(value: &impl Serialize) -> Result<Bytes, serde_pickle::Error> {
    serde_pickle::to_vec(value, serde_pickle::SerOptions::new()).map(Bytes::from)
}

/// Writes results: one, or a list of them.
#[cfg(feature = "io")]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    is_list: bool,
}

/// What every pickle begins with: protocol 3, as `serde_pickle` writes it.
#[cfg(feature = "io")]
const BEGIN: &[u8] = b"\x80\x03";

#[cfg(feature = "io")]
impl Writer {
    /// For one value.
    pub(crate) fn value() -> Self {
        Self { bytes: Vec::new(), is_list: false }
    }

    /// For a list.
    pub(crate) fn list() -> Self {
        // An empty list, and a mark: what follows is appended to it at the end.
        Self { bytes: [BEGIN, b"]("].concat(), is_list: true }
    }

    pub(crate) fn is_list(&self) -> bool {
        self.is_list
    }

    /// Writes the value, or the next of the list, in which there are no buffers. On an error nothing is written.
    pub(crate) fn write(&mut self, value: &impl Serialize) -> Result<Vec<usize>, serde_pickle::Error> {
        let whole = serde_pickle::to_vec(value, serde_pickle::SerOptions::new())?;
        if self.is_list {
            let bare = whole.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(b"."));
            self.bytes.extend(bare.expect("a pickle of protocol 3"));
        } else {
            self.bytes = whole;
        }
        Ok(Vec::new())
    }

    /// The same for a value in which there are buffers or arrays: for Python they are bytes and `NumPy` arrays. Gives the order in
    /// which the large ones have to stand beside the pickle, by which the value is to be written ([`value::Writer::with_order`]):
    /// those that ipyparallel looks for, in its order, come first. In a list all data is in the pickle.
    pub(crate) fn write_marked(&mut self, value: &impl Serialize) -> Result<Vec<usize>, serde_pickle::Error> {
        let Marking { value, marks } = proto_pickle::mark(remuda_net::random_bytes(), value)?;
        let large = |(number, marked): (usize, &value::Marked)| (marked.bytes.len() >= ASIDE_BYTES).then_some(number);
        let large: Vec<usize> = marks.met.iter().enumerate().filter_map(large).collect();
        if self.is_list {
            self.bytes.extend(proto_pickle::inside(&value, &marks)?);
            return Ok((0..large.len()).collect());
        }
        let mut first = Vec::new();
        self.bytes = proto_pickle::object(&value, &marks, &mut |number, data| {
            let is_aside = data.len() >= ASIDE_BYTES;
            first.extend(is_aside.then_some(number));
            is_aside
        })?;
        let rest = large.iter().filter(|number| !first.contains(number)).copied();
        let frames: Vec<usize> = first.iter().copied().chain(rest).collect();
        let place =
            |number: &usize| frames.iter().position(|frame| frame == number).expect("each large one has a frame");
        Ok(large.iter().map(place).collect())
    }

    /// The pickle.
    pub(crate) fn finish(mut self) -> Bytes {
        if self.is_list {
            self.bytes.extend(b"e.");
        }
        self.bytes.into()
    }
}

#[derive(Serialize)]
struct Program<'a> {
    exit_code: Option<i32>,
    signal: Option<i32>,
    #[serde(with = "serde_bytes")]
    stdout: &'a [u8],
    #[serde(with = "serde_bytes")]
    stderr: &'a [u8],
    wall_s: f64,
    cpu_s: f64,
    peak_memory_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<&'a serde_bytes::Bytes>,
}

/// How a program ended, as a dict.
pub(crate) fn program(ended: &ProcessOutcome, stdout: &[u8], stderr: &[u8], output: Option<&[u8]>) -> Bytes {
    let dict = Program {
        exit_code: ended.exit_code,
        signal: ended.signal,
        stdout,
        stderr,
        wall_s: ended.wall_us as f64 / 1e6,
        cpu_s: (ended.user_us + ended.system_us) as f64 / 1e6,
        peak_memory_bytes: ended.peak_memory_bytes,
        output: output.map(serde_bytes::Bytes::new),
    };
    plain(&dict).expect("numbers and bytes have a pickled form")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_pickle::{DeOptions, HashableValue, Value};

    #[test]
    fn a_program_is_a_dict_with_its_output_as_bytes() {
        let ended = ProcessOutcome { exit_code: Some(3), wall_us: 1_500_000, ..ProcessOutcome::default() };
        let bytes = program(&ended, b"out\xff", b"", None);
        let Value::Dict(dict) = serde_pickle::value_from_slice(&bytes, DeOptions::new()).unwrap() else {
            panic!("no dict")
        };
        let item = |key: &str| dict[&HashableValue::String(key.into())].clone();
        assert_eq!(item("exit_code"), Value::I64(3));
        assert_eq!(item("signal"), Value::None);
        assert_eq!(item("stdout"), Value::Bytes(b"out\xff".to_vec()));
        assert_eq!(item("wall_s"), Value::F64(1.5));
    }

    #[test]
    fn none_is_none() {
        assert_eq!(serde_pickle::value_from_slice(NONE, DeOptions::new()).unwrap(), Value::None);
    }
}
