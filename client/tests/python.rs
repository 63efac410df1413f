//! The client with Python engines that have `NumPy`, behind a controller of either kind.
//!
//! ```sh
//! remuda controller --profile-dir=/tmp/stock &  # or ipcontroller
//! ipengine --profile-dir=/tmp/stock & ipengine --profile-dir=/tmp/stock &
//! REMUDA_STOCK_FILE=/tmp/stock/security/ipcontroller-client.json cargo test -p remuda-client --test python -- --ignored
//! ```

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use remuda_client::{Client, ConnectOptions, DirectView, PythonCall, SubmitError, Targets, TaskError};
use remuda_proto::value::{Array, Buffer};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// How long anything may take before it counts as hung.
const DEADLINE: Duration = Duration::from_secs(60);
const IGNORED: &str = "REMUDA_STOCK_FILE names the client file";

async fn connect() -> (Client, DirectView) {
    let file = std::env::var_os("REMUDA_STOCK_FILE").expect(IGNORED);
    let client = Client::connect(ConnectOptions::file(file)).await.unwrap();
    client.wait_for_engines(2, DEADLINE).await.unwrap();
    let direct = client.direct_view(Targets::All);
    (client, direct)
}

/// All that an error says, its causes included.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Model {
    weights: Array<f32>,
    blob: Buffer,
    names: Vec<String>,
    scale: Option<f64>,
    large: u64,
}

#[tokio::test]
#[ignore = "needs a cluster with two Python engines, whose client file REMUDA_STOCK_FILE names"]
async fn arrays_and_bytes_are_arguments_and_results() {
    let (client, _) = connect().await;
    let view = client.load_balanced_view();
    let grid = || Array::new([2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();

    // As arguments, by position and by name.
    let call = PythonCall::new("numpy", "sum").arg(&grid()).kwarg("axis", &1).kwarg("keepdims", &true);
    let sums: Array<f64> = view.python(call).unwrap().timeout(DEADLINE).await.unwrap();
    assert_eq!((sums.shape(), &*sums), (&[2, 1][..], &[6.0, 15.0][..]));
    let sum: f64 = view.call_python("numpy", "sum", &(grid(),)).unwrap().await.unwrap();
    assert!((sum - 21.0).abs() < 1e-9);
    let all: bool = view.call_python("numpy", "all", &(grid(),)).unwrap().await.unwrap();
    assert!(all);
    let turned: Vec<Vec<f64>> = view.call_python("numpy", "transpose", &(grid(),)).unwrap().await.unwrap();
    assert_eq!(turned, [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]);
    let hash: Vec<u8> = view.call_python("zlib", "compress", &(Buffer::from(vec![7; 5000]),)).unwrap().await.unwrap();
    let back: Buffer = view.call_python("zlib", "decompress", &(Buffer::from(hash),)).unwrap().await.unwrap();
    assert_eq!(back, Buffer::from(vec![7; 5000]));

    // Without dimensions, without numbers, with numbers of other kinds, in lists and in lists of lists, small and large.
    for shape in [vec![], vec![1], vec![0], vec![2, 0, 3], vec![40, 50]] {
        let len = shape.iter().product();
        let array = Array::new(shape, vec![-5_i16; len]).unwrap();
        let same: Array<i16> = view.call_python("copy", "copy", &(&array,)).unwrap().await.unwrap();
        assert_eq!(same, array);
        let same: (u8, Array<i16>) = view.call_python("copy", "copy", &((1, &array),)).unwrap().await.unwrap();
        assert_eq!(same, (1, array.clone()));
        let same: Vec<Vec<Array<i16>>> = view.call_python("copy", "copy", &([[&array]],)).unwrap().await.unwrap();
        assert_eq!(same, [[array.clone()]]);
        let many = vec![array.clone(); 70];
        let same: Vec<Array<i16>> = view.call_python("copy", "copy", &(&many,)).unwrap().await.unwrap();
        assert_eq!(same, many);
        let dict = BTreeMap::from([("b", (&array, 1)), ("a", (&array, 2))]);
        let same: BTreeMap<String, (Array<i16>, u8)> =
            view.call_python("copy", "copy", &(&dict,)).unwrap().await.unwrap();
        assert_eq!((&same["a"], &same["b"]), (&(array.clone(), 2), &(array, 1)));
    }

    // A struct is a dict, and back.
    let model = Model {
        weights: Array::from(vec![0.5; 2000]),
        blob: Buffer::from(vec![1; 2000]),
        names: vec!["é".into()],
        scale: None,
        large: u64::MAX,
    };
    let same: Model = view.call_python("copy", "copy", &(&model,)).unwrap().await.unwrap();
    assert_eq!(same, model);
    let text: String =
        view.call_python("builtins", "repr", &(vec![Array::from(vec![1_u8, 2])],)).unwrap().await.unwrap();
    assert_eq!(text, "[array([1, 2], dtype=uint8)]");

    // What is not read says why.
    let error = view.call_python::<_, Array<f64>>("builtins", "bytes", &(5,)).unwrap().await.unwrap_err();
    assert!(chain(&error).contains("it is bytes, not an array"), "{}", chain(&error));
    let objects = view.python::<Array<f64>>(PythonCall::new("numpy", "array").arg(&[1]).kwarg("dtype", "O"));
    let error = objects.unwrap().await.unwrap_err();
    assert!(chain(&error).contains("dtype=object"), "{}", chain(&error));
    let error = view.call_python::<_, i64>("numpy", "dtype", &("f8",)).unwrap().await.unwrap_err();
    assert!(chain(&error).contains("`numpy.dtype`"), "{}", chain(&error));
    let error = view.call_python::<_, i64>("decimal", "Decimal", &(1,)).unwrap().await.unwrap_err();
    assert!(chain(&error).contains("`decimal.Decimal`"), "{}", chain(&error));
}

#[tokio::test]
#[ignore = "needs a cluster with two Python engines, whose client file REMUDA_STOCK_FILE names"]
async fn names_are_pushed_and_pulled_scattered_and_gathered() {
    let (client, direct) = connect().await;
    let ids = client.engine_ids();
    direct.push("x", &5).unwrap().await.unwrap();
    direct.push("grid", &Array::from(vec![1.5, 2.5])).unwrap().await.unwrap();
    direct.execute("y = x * grid.sum(); z = float(y)").await.unwrap();
    assert_eq!(direct.pull::<f64>("y").unwrap().await.unwrap(), vec![20.0; ids.len()]);
    assert_eq!(direct.pull::<Option<f64>>("z").unwrap().await.unwrap(), vec![Some(20.0); ids.len()]);
    let names = BTreeMap::from([("a", "text".to_owned()), ("größe", "b".to_owned())]);
    direct.push_all(&names).unwrap().await.unwrap();
    assert_eq!(direct.pull::<String>("größe").unwrap().await.unwrap(), vec!["b"; ids.len()]);

    // What is not there, and what cannot be.
    let error = direct.pull::<u8>("missing_name").unwrap().await.unwrap_err();
    let TaskError::Remote(error) = error.into_first() else { panic!("no remote error") };
    assert_eq!((&*error.ename, &*error.evalue), ("NameError", "name 'missing_name' is not defined"));
    assert!(matches!(direct.pull::<u8>("1 + 1"), Err(SubmitError::NotIdentifier { .. })));
    assert!(matches!(direct.push("class", &1), Err(SubmitError::NotIdentifier { .. })));
    let wrong = direct.push_all(&BTreeMap::from([("a b", 1)]));
    assert!(matches!(wrong, Err(SubmitError::NotIdentifier { name }) if name == "a b"));
    assert!(matches!(direct.push_all(&5), Err(SubmitError::NoNames)));
    let nobody = client.direct_view([]);
    assert!(matches!(nobody.scatter("s", &vec![1]), Err(SubmitError::NoTargets)));
    let error = nobody.gather::<Vec<u8>>("s").await.unwrap_err();
    assert!(matches!(&error, TaskError::NotSubmitted(why) if matches!(**why, SubmitError::NoTargets)), "{error:?}");

    // Split as stock does, and put together again.
    let items: Vec<i64> = (0..11).collect();
    direct.scatter("items", &items).unwrap().await.unwrap();
    let lens: Vec<usize> = direct.pull::<Vec<i64>>("items").unwrap().await.unwrap().iter().map(Vec::len).collect();
    assert_eq!((lens.iter().sum::<usize>(), lens[0]), (11, 11_usize.div_ceil(ids.len())));
    direct.execute("squares = [item ** 2 for item in items]").await.unwrap();
    let squares: Vec<i64> = direct.gather("squares").await.unwrap();
    assert_eq!(squares, items.iter().map(|item| item * item).collect::<Vec<_>>());
    let rows = Array::new([5, 2], (0..10).map(f64::from).collect()).unwrap();
    direct.scatter("rows", &rows).unwrap().await.unwrap();
    assert_eq!(direct.gather::<Array<f64>>("rows").await.unwrap(), rows);
    let few = Array::from(vec![1_u8]);
    direct.scatter("few", &few).unwrap().await.unwrap();
    assert_eq!(direct.gather::<Array<u8>>("few").await.unwrap(), few, "an engine without items has none");
    client.direct_view([ids[1]]).push("rows", &Array::from(vec![1.0])).unwrap().await.unwrap();
    let error = direct.gather::<Array<f64>>("rows").await.unwrap_err();
    assert!(chain(&error).contains("does not go behind"), "{}", chain(&error));

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "ran = 1\n").unwrap();
    direct.run(file.path()).unwrap().await.unwrap();
    assert_eq!(direct.pull::<u8>("ran").unwrap().await.unwrap(), vec![1; ids.len()]);
    assert!(direct.run("/no/such/file").is_err());
}

/// The most memory that this process ever had, in bytes.
fn peak_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[tokio::test]
#[ignore = "needs a cluster with two Python engines, whose client file REMUDA_STOCK_FILE names"]
async fn a_hundred_megabytes_go_there_and_back_without_a_copy_here() {
    const BYTES: usize = 100_000_000;
    let (client, _) = connect().await;
    let view = client.load_balanced_view();
    let array = Array::from(vec![0.5_f64; BYTES / 8]);
    let _: i64 = view.call_python("operator", "neg", &(1,)).unwrap().await.unwrap();
    let (before, started) = (peak_memory(), Instant::now());
    let twice: Array<f64> = view.call_python("numpy", "add", &(&array, 0.5)).unwrap().timeout(DEADLINE).await.unwrap();
    let (took, grown) = (started.elapsed(), peak_memory() - before);
    assert_eq!((twice.len(), twice[0]), (BYTES / 8, 1.0));
    println!("100 MB there and back: {took:?}, {:.1} MB more memory", grown as f64 / 1e6);
    // The reply, and not also a copy of the request or of the reply.
    assert!(grown < BYTES * 3 / 2, "{grown} bytes");
}
