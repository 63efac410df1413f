//! Reading what the real package makes, and writing what it reads.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::collections::BTreeMap;
use std::fmt::Debug;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use remuda_proto::value::{Array, Buffer};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_bytes::ByteBuf;
use serde_pickle::{HashableValue, Value};

use super::{PickleError, PythonCall, Unfit, golden, read, read_value};

fn one<T: DeserializeOwned>(pickle: &'static [u8]) -> Result<T, PickleError> {
    read(&[Bytes::from_static(pickle)])
}

fn error<T: DeserializeOwned + Debug>(pickle: &'static [u8]) -> String {
    one::<T>(pickle).unwrap_err().to_string()
}

#[test]
fn plain_values_as_python_pickles_them_are_read() {
    #[derive(Deserialize, PartialEq, Debug)]
    struct Dict {
        a: (i64, Option<String>, f64),
        b: bool,
    }
    // pickle.dumps({'a': [1, None, 2.5], 'b': True}, 4)
    let dict = b"\x80\x04\x95\x1b\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94]\x94(K\x01NG@\x04\x00\x00\x00\x00\x00\x00e\x8c\x01b\x94\x88u.";
    assert_eq!(one::<Dict>(dict).unwrap(), Dict { a: (1, None, 2.5), b: true });
    assert_eq!(one::<Option<u8>>(b"\x80\x04N.").unwrap(), None);
    one::<()>(b"\x80\x04N.").unwrap();
    assert_eq!(one::<BTreeMap<i32, u8>>(b"}K\x05K\x06s.").unwrap(), BTreeMap::from([(5, 6)]));
    assert!(matches!(one::<String>(b"\x80\x04K\x01."), Err(PickleError::Shape(_))));
    assert_eq!(one::<(u64, i128)>(golden::LONG).unwrap(), (1 << 63, -(1 << 70)));
    for set in [golden::SET, golden::SET_3] {
        assert_eq!(one::<Vec<u8>>(set).unwrap(), [1]);
        assert_eq!(read_value(&[Bytes::from_static(set)]).unwrap(), Value::Set([HashableValue::I64(1)].into()));
    }
}

#[test]
fn what_serde_pickle_writes_is_read() {
    #[derive(serde::Serialize, Deserialize, Clone, PartialEq, Debug)]
    enum Enum {
        Unit,
        New(u8),
        Tuple(u8, u8),
        Struct { a: u8 },
    }
    let enums = vec![Enum::Unit, Enum::New(1), Enum::Tuple(2, 3), Enum::Struct { a: 4 }];
    let value = (vec![1_i64, -5, 1 << 40], "é".to_owned(), BTreeMap::from([(1, true)]), [0.5; 3], enums);
    let bytes = serde_pickle::to_vec(&value, serde_pickle::SerOptions::new()).unwrap();
    let mut back = value.clone();
    back.0.clear();
    assert_ne!(back, value);
    back = read(&[bytes.into()]).unwrap();
    assert_eq!(back, value);
}

#[test]
fn bytes_are_read_in_each_of_their_forms() {
    for (pickle, text) in [(golden::BYTES, &b"abc"[..]), (golden::MEMORYVIEW, b"ab"), (golden::BYTEARRAY, b"ab")] {
        assert_eq!(&one::<Buffer>(pickle).unwrap()[..], text);
        assert_eq!(one::<ByteBuf>(pickle).unwrap(), text);
        assert_eq!(one::<Vec<u8>>(pickle).unwrap(), text);
        assert_eq!(one::<Option<Buffer>>(pickle).unwrap().as_deref(), Some(text));
        assert_eq!(read_value(&[Bytes::from_static(pickle)]).unwrap(), Value::Bytes(text.to_vec()));
    }
}

#[test]
fn an_array_is_read_as_one_or_as_lists() {
    let floats: Array<f64> = one(golden::FLOATS).unwrap();
    assert_eq!((floats.shape(), &*floats), (&[3][..], &[0.0, 1.0, 2.0][..]));
    assert_eq!(one::<Vec<f64>>(golden::FLOATS).unwrap(), [0.0, 1.0, 2.0]);
    assert_eq!(one::<Vec<Vec<Array<u8>>>>(golden::DEEP).unwrap()[0][0].as_slice(), [0, 1]);
    assert_eq!(one::<Vec<Vec<Vec<Option<u8>>>>>(golden::DEEP).unwrap(), [[[Some(0), Some(1)]]]);
    assert_eq!(one::<Vec<Array<f64>>>(golden::DEEP_5).unwrap()[0].as_slice(), [0.0, 1.0]);
    let single: Array<f64> = one(golden::NO_DIMENSIONS).unwrap();
    assert_eq!((single.shape(), &*single), (&[][..], &[1.5][..]));
    assert_eq!(one::<Option<f64>>(golden::NO_DIMENSIONS).unwrap(), Some(1.5));
    assert_eq!(one::<Array<f64>>(golden::EMPTY).unwrap().shape(), [0]);
    assert_eq!(one::<Vec<f64>>(golden::EMPTY).unwrap(), [0.0; 0]);
}

#[test]
fn a_number_of_numpys_is_a_number() {
    assert_eq!(one::<Option<f64>>(golden::SCALAR).unwrap(), Some(2.5));
    assert!(one::<bool>(golden::BOOL_SCALAR).unwrap());
    assert_eq!(one::<i64>(golden::INT_SCALAR).unwrap(), -3);
    assert_eq!(read_value(&[Bytes::from_static(golden::INT_SCALAR)]).unwrap(), Value::I64(-3));
}

#[test]
fn data_beside_the_pickle_is_not_copied() {
    #[derive(Deserialize)]
    struct Dict {
        a: Buffer,
        b: Buffer,
        c: u8,
    }
    let numbers: Vec<i32> = (0..600).collect();
    let data = Array::from(numbers.repeat(2)).bytes().clone();
    let whole = data.slice(..2400);
    // What is smaller than 4096 bytes is copied, rather than that it keeps the message.
    let grid: Array<i32> = read(&[Bytes::from_static(golden::GRID_ASIDE), whole.clone()]).unwrap();
    assert_eq!((grid.shape(), &*grid), (&[20, 30][..], &numbers[..]));
    assert_ne!(grid.bytes().as_ptr(), whole.as_ptr());
    let rows: Vec<Vec<i32>> = read(&[Bytes::from_static(golden::GRID_ASIDE), whole.clone()]).unwrap();
    assert_eq!((rows.len(), &rows[19][..]), (20, &numbers[570..]));
    let large = Bytes::from(vec![7; 5000]);
    let buffers = [Bytes::from_static(golden::DICT_ASIDE), large.clone(), Bytes::from_static(&[8; 2000])];
    let dict: Dict = read(&buffers).unwrap();
    // In the order of the keys, in which they are pickled too.
    assert_eq!((dict.a.as_ptr(), dict.a.len(), dict.b.len(), dict.c), (large.as_ptr(), 5000, 2000, 1));
    let missing = read::<Dict>(&buffers[..2]).err().unwrap();
    assert!(matches!(missing, PickleError::Unfit(Unfit::NoBuffer { index: 2 })), "{missing}");
    let list: (Buffer, Array<u8>, ByteBuf) = read(&[Bytes::from_static(golden::LIST), vec![9; 1025].into()]).unwrap();
    assert_eq!((&list.0[..], &list.1[..], &list.2[..]), (&b"x"[..], &[0, 1][..], &[9; 1025][..]));
}

#[test]
fn an_array_that_is_not_read_says_why() {
    assert!(error::<Vec<Vec<Array<f64>>>>(golden::DEEP_FORTRAN).contains("Fortran order"));
    assert!(error::<Array<f64>>(golden::OBJECTS).contains("`dtype=object`"));
    assert!(error::<Array<f64>>(golden::STRUCTURED).contains("structured"));
    assert!(error::<Array<i16>>(golden::BIG_END).contains("`>i2`, not `<i2`"));
    assert!(error::<Vec<i16>>(golden::BIG_END).contains("`>i2` are not read"));
    assert!(error::<Array<f32>>(golden::FLOATS).contains("`<f8`, not `<f4`"));
    assert!(error::<String>(golden::TEXT_SCALAR).contains("`<U2` are not read"));
    assert!(error::<Array<u8>>(golden::BYTES).contains("it is bytes, not an array"));
}

#[test]
fn another_object_is_refused_by_its_name() {
    assert!(error::<String>(golden::DTYPE).contains("`numpy.dtype`"));
    assert!(matches!(
        one::<IgnoredAny>(golden::PARTIAL_OBJECT),
        Err(PickleError::Unfit(Unfit::Object { name: Some(name) })) if name == "decimal.Decimal"
    ));
}

#[test]
fn no_shape_makes_lists_of_nothing_without_end() {
    // numpy.ndarray((2**40, 0), 'f8', b''), which Python pickles in these few bytes.
    let huge = golden::EMPTY.to_vec();
    let at = huge.windows(3).rposition(|window| window == b"K\x00\x85").unwrap();
    let shape = b"\x8a\x06\x00\x00\x00\x00\x00\x01K\x00\x86";
    let mut inner = [&huge[..at], shape, &huge[at + 3..]].concat();
    // The pickle in the pickle has grown.
    let length = huge.windows(2).position(|window| window[0] == b'C' && window[1] > 100).unwrap() + 1;
    inner[length] += u8::try_from(shape.len() - 3).unwrap();
    let read = read::<Vec<Vec<f64>>>(&[inner.into()]).unwrap_err().to_string();
    assert!(read.contains("[1099511627776, 0]"), "{read}");
}

#[test]
fn a_call_is_packed_as_the_original_packs_it() {
    let buffers = PythonCall::new("operator", "mul").args(&(6, 7)).buffers().unwrap();
    assert_eq!(buffers.len(), 4);
    assert_eq!(&*buffers[0], b"\x80\x04X\x08\x00\x00\x00operatorX\x03\x00\x00\x00mul\x93.");
    assert_eq!(read::<i64>(&buffers[2..]).unwrap(), 6);
    assert_eq!(PythonCall::new("m", "f").args(&()).buffers().unwrap().len(), 2);
    assert!(matches!(PythonCall::new("m", "f").args(&5).buffers(), Err(PickleError::NoSequence)));
    let shell = PythonCall::shell("ev").buffers().unwrap();
    // pickletools.dis: getattr(IPython.get_ipython(*()), 'ev')
    let expected = b"\x80\x04X\x08\x00\x00\x00builtinsX\x07\x00\x00\x00getattr\x93X\x07\x00\x00\x00IPython\
        X\x0b\x00\x00\x00get_ipython\x93)RX\x02\x00\x00\x00ev\x86R.";
    assert_eq!(&*shell[0], expected);
}

#[test]
fn the_buffers_of_each_argument_follow_it_and_keywords_come_last() {
    #[derive(Deserialize, Debug, PartialEq)]
    struct Info {
        nargs: usize,
        narg_bufs: usize,
        kw_keys: Vec<String>,
    }
    let (large, small) = (Buffer::from(vec![7; 5000]), Buffer::from(vec![8; 10]));
    let array = Array::new([2, 1500], vec![1_i16; 3000]).unwrap();
    let call = PythonCall::new("m", "f").arg(&large).args(&[(&small, 5)]).kwarg("b", &array).kwarg("a", &Some(1));
    let buffers = call.buffers().unwrap();
    let info: Info = read(&buffers[1..2]).unwrap();
    assert_eq!(info, Info { nargs: 2, narg_bufs: 3, kw_keys: vec!["a".into(), "b".into()] });
    assert_eq!(read::<Buffer>(&buffers[2..]).unwrap().as_ptr(), large.as_ptr());
    assert_eq!(read::<(Buffer, u8)>(&buffers[4..]).unwrap(), (small, 5));
    assert_eq!(read::<u8>(&buffers[5..]).unwrap(), 1);
    let back: Array<i16> = read(&buffers[6..]).unwrap();
    assert_eq!((back.shape(), back.as_ptr()), (array.shape(), array.as_ptr()));
    assert_eq!(buffers.len(), 8);
}

#[test]
fn an_argument_is_canned_one_level_deep_and_no_deeper() {
    let large = || Buffer::from(vec![7; 5000]);
    let frames = |call: PythonCall| call.buffers().unwrap()[2..].to_vec();
    let call = || PythonCall::new("m", "f");
    let list = frames(call().arg(&[large(), large()]));
    assert_eq!(list.len(), 3);
    assert_eq!(read::<Vec<Buffer>>(&list).unwrap(), [large(), large()]);
    let map = BTreeMap::from([("é", large()), ("a", Buffer::from(vec![6; 2000]))]);
    let map = frames(call().arg(&map));
    assert_eq!((map.len(), map[1].len()), (3, 2000), "in the order of the keys");
    for inside in [
        frames(call().arg(&[[large()]])),
        frames(call().arg(&vec![large(); 64])),
        frames(call().arg(&BTreeMap::from([(1, large())]))),
    ] {
        assert_eq!(inside.len(), 1, "ipyparallel does not look there");
    }
    assert_eq!(read::<Vec<Vec<Buffer>>>(&frames(call().arg(&[[large()]]))).unwrap(), [[large()]]);
    // [[numpy.ndarray((2,), '<u2', b'..')]]
    let deep = frames(call().arg(&vec![vec![Array::from(vec![1_u16, 2])]]));
    let expected =
        b"\x80\x04](](X\x05\x00\x00\x00numpyX\x07\x00\x00\x00ndarray\x93(\x8a\x08\x02\x00\x00\x00\x00\x00\x00\x00t\
        X\x03\x00\x00\x00<u2B\x04\x00\x00\x00\x01\x00\x02\x00\x87Ree.";
    assert_eq!(&*deep[0], expected);
}

fn read_all(buffers: &[Bytes]) {
    let _ = read_value(buffers);
    let _ = read::<Value>(buffers);
    let _ = read::<(Buffer, Array<u8>, ByteBuf)>(buffers);
    let _ = read::<Vec<Vec<Array<f64>>>>(buffers);
    let _ = read::<BTreeMap<String, Buffer>>(buffers);
    let _ = read::<Array<i32>>(buffers);
}

const OPCODES: [&[u8]; 40] = [
    b"N",
    b"\x88",
    b"(",
    b"]",
    b"a",
    b"e",
    b"l",
    b")",
    b"\x85",
    b"\x86",
    b"\x87",
    b"t",
    b"}",
    b"s",
    b"u",
    b"d",
    b"\x8f",
    b"\x90",
    b"\x91",
    b"\x94",
    b"0",
    b"1",
    b"2",
    b"K\x05",
    b"q\x01",
    b"h\x01",
    b"h\x00",
    b"X\x01\x00\x00\x00a",
    b"X\x07\x00\x00\x00buffers",
    b"C\x03\x80N.",
    b"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01",
    b"R",
    b"\x81",
    b"b",
    b"cipyparallel.serialize.canning\nCannedBytes\n)\x81}X\x07\x00\x00\x00buffers]Nasb",
    b"cipyparallel.serialize.canning\nCannedArray\n",
    b"cnumpy._core.multiarray\nscalar\n",
    b"cnumpy._core.multiarray\n_reconstruct\n",
    b"cnumpy\ndtype\nX\x02\x00\x00\x00f8\x85R",
    b"cbuiltins\nbytearray\n",
];

const GOLDEN: [&[u8]; 12] = [
    golden::BYTES,
    golden::FLOATS,
    golden::GRID_ASIDE,
    golden::SCALAR,
    golden::NO_DIMENSIONS,
    golden::DICT_ASIDE,
    golden::LIST,
    golden::DEEP,
    golden::DEEP_5,
    golden::STRUCTURED,
    golden::OBJECTS,
    golden::LONG,
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in vec(any::<u8>(), 0..200)) {
        read_all(&[bytes.into(), Bytes::from_static(b"01234567")]);
    }

    /// Bytes that are nearly always opcodes get further into the machine than random ones.
    #[test]
    fn no_row_of_opcodes_makes_it_panic(at in vec(0..OPCODES.len(), 0..100)) {
        let bytes: Vec<u8> = at.into_iter().flat_map(|at| OPCODES[at].to_vec()).chain(*b".").collect();
        read_all(&[bytes.into(), Bytes::from_static(b"01234567")]);
    }

    #[test]
    fn nor_does_a_real_one_with_some_bytes_changed(
        which in 0..GOLDEN.len(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = GOLDEN[which].to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        read_all(&[bytes.into(), vec![1; 2400].into(), vec![2; 2000].into()]);
    }
}
