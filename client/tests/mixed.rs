//! The client against a controller of either kind, with one native engine that runs programs and has the functions of the
//! example engine, and, if the file says so, a Python engine beside it.
//!
//! ```sh
//! REMUDA_MIXED_FILE=/tmp/mixed/security/ipcontroller-client.json cargo test -p remuda-client --test mixed -- --ignored
//! ```

use std::time::Duration;

use bytes::Bytes;
use remuda_client::{Client, ConnectOptions, Named, PieceKind, ProcessTask, Targets, TaskError};

/// How long anything may take before it counts as hung.
const DEADLINE: Duration = Duration::from_secs(60);

/// A function of the example engine.
fn factor() -> Named<u64, Vec<u64>> {
    Named::new("examples.factor")
}

fn shell(script: &str) -> ProcessTask {
    ProcessTask { argv: ["sh", "-c", script].map(str::to_owned).to_vec(), ..ProcessTask::default() }
}

#[tokio::test]
#[ignore = "needs a cluster with a native engine, whose client file REMUDA_MIXED_FILE names"]
async fn programs_run_on_native_engines_whatever_the_controller() {
    let file = std::env::var_os("REMUDA_MIXED_FILE").expect("REMUDA_MIXED_FILE names the client file");
    let client = Client::connect(ConnectOptions::file(file)).await.unwrap();
    client.wait_for_engines(1, DEADLINE).await.unwrap();
    let view = client.load_balanced_view();

    // More of them than there are engines, so that each engine gets some.
    let tasks: Vec<_> =
        (0..8).map(|code| view.process(shell(&format!("echo {code}; exit {code}")), None).unwrap()).collect();
    for (code, task) in (0..).zip(&tasks) {
        let result = task.timeout(DEADLINE).await.unwrap();
        assert_eq!((result.outcome.exit_code, &*result.stdout_text()), (Some(code), &*format!("{code}\n")));
        assert_eq!(result.checked().is_ok(), code == 0);
    }
    let missing = ProcessTask { argv: vec!["/no/such/program".into()], ..ProcessTask::default() };
    let error = view.process(missing, None).unwrap().timeout(DEADLINE).await.unwrap_err();
    assert!(matches!(error, TaskError::Remote(_)), "{error:?}");

    // Output comes while the program runs, and a stop ends it.
    let endless = view.process(shell("echo on; sleep 1000"), None).unwrap();
    let first = endless.live_output().next().await.expect("it runs");
    assert_eq!(first.kind, PieceKind::Stdout("on\n".into()));
    assert!(!endless.is_ready());
    endless.stop().await.unwrap();
    let stopped = endless.timeout(DEADLINE).await.unwrap();
    assert_eq!(stopped.outcome.exit_code, None, "{stopped:?}");
    let output = endless.output().await;
    assert!(output.complete && output.stdout() == "on\n", "{output:?}");

    let python = client.controller().is_none() && client.engine_ids().len() > 1;
    if !python {
        // What has an argument cannot tell a stock scheduler that a Python engine is not meant.
        assert_eq!(view.call(factor(), 84).unwrap().timeout(DEADLINE).await.unwrap(), [2, 2, 3, 7]);
        let cat = view.process(shell("cat"), Bytes::from_static(b"in")).unwrap();
        assert_eq!(&*cat.timeout(DEADLINE).await.unwrap().stdout, b"in");
        // To all engines in one message, whose replies come one by one or as one.
        let engines = client.engine_ids().len();
        for coalesce in [false, true] {
            let broadcast = client.broadcast_view(Targets::All).coalesce(coalesce);
            let factors = broadcast.call(factor(), 15).unwrap();
            let factors = tokio::time::timeout(DEADLINE, factors.get()).await.expect("all engines answer");
            assert_eq!(factors.unwrap(), vec![vec![3, 5]; engines]);
            let cats = broadcast.process(shell("cat"), Bytes::from_static(b"in")).unwrap();
            assert_eq!(cats.len(), engines);
            for cat in cats.results() {
                let cat = cat.unwrap();
                assert_eq!(&*cat.timeout(DEADLINE).await.unwrap().stdout, b"in");
                assert_eq!(cat.output().await.stdout(), "in");
            }
        }
    }
    // A native engine has no names.
    if !python {
        let error = client.direct_view(Targets::All).push("x", &1).unwrap().await.unwrap_err();
        assert!(error.first().error.to_string().contains("has no Python namespace"), "{error:?}");
    }
    let status = client.status().await.unwrap();
    assert_eq!(status.remuda.is_some(), client.controller().is_some());
}
