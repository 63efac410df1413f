//! The client against a stock controller with two stock engines.
//!
//! ```sh
//! ipcontroller --profile-dir=/tmp/stock & ipengine --profile-dir=/tmp/stock & ipengine --profile-dir=/tmp/stock &
//! REMUDA_STOCK_FILE=/tmp/stock/security/ipcontroller-client.json cargo test -p remuda-client --test stock -- --ignored
//! ```

use std::time::Duration;

use remuda_client::error::Dependency as Broken;
use remuda_client::query::Purge;
use remuda_client::{
    Client, ConnectOptions, DefinitionError, Dependency, MsgId, ProcessTask, QueryError, Targets, TaskError,
};
use serde_json::json;

/// How long anything may take before it counts as hung.
const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test]
#[ignore = "needs a stock cluster with two engines, whose client file REMUDA_STOCK_FILE names"]
async fn a_stock_cluster_serves_this_client() {
    let file = std::env::var_os("REMUDA_STOCK_FILE").expect("REMUDA_STOCK_FILE names the client file");
    let client = Client::connect(ConnectOptions::file(file)).await.unwrap();
    assert_eq!(client.controller(), None);
    let ids = client.wait_for_engines(2, DEADLINE).await.unwrap();
    let view = client.load_balanced_view();
    assert!(matches!(client.definitions().get(1).await, Err(DefinitionError::Unsupported)));

    // Code strings, with their output.
    let direct = client.direct_view(Targets::All);
    let results = direct.label("l").execute("import os, sys\nprint('hé', file=sys.stderr)\nprint(os.getpid())\n6 * 7");
    assert_eq!(results.len(), ids.len());
    for result in results.results() {
        let result = result.as_ref().unwrap();
        assert_eq!(result.timeout(DEADLINE).await.unwrap().execution_count, 1);
        let output = result.output().await;
        assert!(output.complete, "{output:?}");
        assert_eq!(output.stderr(), "hé\n");
        assert!(output.stdout().trim().parse::<u32>().is_ok(), "{output:?}");
        assert_eq!(output.execute_result().unwrap()["text/plain"], "42");
        let metadata = result.metadata().unwrap();
        assert!(metadata.submitted <= metadata.started && metadata.started <= metadata.completed);
        assert!(ids.contains(&metadata.engine_id.unwrap()));
        assert_eq!(metadata.label, Some(json!("l")));
    }
    let failed = client.direct_view([ids[0]]).execute("1 / 0").await.unwrap_err();
    let TaskError::Remote(error) = failed.first().error.clone() else { panic!("{failed:?}") };
    assert_eq!(error.ename, "ZeroDivisionError");

    // Python functions by name, balanced and direct, with plain values of all kinds.
    let product = view.call_python::<_, i64>("operator", "mul", &(6, 7)).unwrap();
    assert_eq!(product.timeout(DEADLINE).await.unwrap(), 42);
    let split: (String, String) = view.call_python("os.path", "split", &("/a/b",)).unwrap().await.unwrap();
    assert_eq!((&*split.0, &*split.1), ("/a", "b"));
    let texts: Vec<String> = direct.call_python("platform", "python_implementation", &()).unwrap().await.unwrap();
    assert_eq!(texts, ["CPython"; 2]);
    let bytes = view.call_python::<_, Vec<u8>>("os", "urandom", &(8,)).unwrap().await.unwrap();
    assert_eq!(bytes.len(), 8);
    let object = view.call_python::<_, String>("decimal", "Decimal", &(8,)).unwrap().await.unwrap_err();
    assert!(matches!(&object, TaskError::Decode { .. }), "{object:?}");

    // The same by broadcast, each engine's part by itself or all of it in one reply.
    let broadcast = client.broadcast_view(Targets::All).label("b");
    let results = broadcast.execute("import os\nprint(os.getpid(), end='')\n6 * 7").unwrap();
    let mut pids: Vec<u32> = Vec::new();
    for (id, result) in ids.iter().zip(results.results()) {
        let result = result.as_ref().unwrap();
        result.timeout(DEADLINE).await.unwrap();
        let output = result.output().await;
        assert!(output.complete, "{output:?}");
        assert_eq!(output.execute_result().unwrap()["text/plain"], "42");
        pids.push(output.stdout().parse().unwrap());
        let metadata = result.metadata().unwrap();
        assert_eq!((metadata.engine_id, metadata.label), (Some(*id), Some(json!("b"))));
    }
    assert_ne!(pids[0], pids[1]);
    for coalesce in [false, true] {
        let results = broadcast.coalesce(coalesce).call_python::<_, u32>("os", "getpid", &()).unwrap();
        let results = tokio::time::timeout(DEADLINE, results.get()).await.expect("all engines answer");
        assert_eq!(results.unwrap(), pids, "coalesced: {coalesce}");
    }
    // A function that one engine has and the other has not. Of a coalesced reply only the last one's error is told; the other
    // is missed.
    for (late, told) in [(ids[0], "AttributeError"), (ids[1], "1 buffers from 2 engines")] {
        let there = client.direct_view([ids[1]]).execute("import math, time; math.seven = lambda: 7");
        there.await.unwrap();
        let slow = client.direct_view([late]).execute("import time; time.sleep(1)");
        let error = broadcast.coalesce(true).call_python::<_, i64>("math", "seven", &()).unwrap().await.unwrap_err();
        assert_eq!((error.failed(), error.total), (2, 2));
        let chain: Vec<_> = std::iter::successors(std::error::Error::source(&error), |error| error.source())
            .map(ToString::to_string)
            .collect();
        assert!(chain.iter().any(|text| text.contains(told)), "{chain:?}");
        slow.await.unwrap();
        let error = broadcast.call_python::<_, i64>("math", "seven", &()).unwrap().await.unwrap_err();
        assert_eq!((error.first().items.clone(), error.failed(), &error.succeeded[..]), (0..1, 1, &[(1, 7)][..]));
    }

    // Dependencies, as the stock scheduler has them.
    let after = Dependency::all_succeed([product.msg_id().clone()]);
    assert_eq!(view.after(after).call_python::<_, i64>("operator", "neg", &(1,)).unwrap().await.unwrap(), -1);
    let unknown = view.after(Dependency::all_succeed([MsgId::from("never")]));
    let error = unknown.call_python::<_, i64>("operator", "neg", &(1,)).unwrap().await.unwrap_err();
    assert!(matches!(error, TaskError::Unreachable { dependency: Broken::Invalid, .. }), "{error:?}");

    // A program: every Python engine passes it on, and no engine is left.
    let task = ProcessTask { argv: vec!["true".into()], ..ProcessTask::default() };
    let error = view.timeout(Duration::from_secs(1)).process(task.clone(), None).unwrap().await.unwrap_err();
    assert!(matches!(error, TaskError::TimedOut { .. }), "{error:?}");
    let error = client.direct_view([ids[0]]).process(task, None).unwrap().await.unwrap_err();
    assert!(matches!(error.into_first(), TaskError::Remote(remote) if remote.ename == "UnmetDependency"));

    // An abort comes in time for what is queued behind something else.
    let one = client.direct_view([ids[0]]);
    let long = one.execute("import time; time.sleep(1)");
    let queued = one.execute("print('never')");
    queued.abort().await.unwrap();
    let error = queued.await.unwrap_err();
    assert!(matches!(error.first().error, TaskError::Aborted { .. }), "{error:?}");
    long.await.unwrap();

    // What runs is interrupted by a signal.
    let endless = one.execute("print('on', flush=True)\nwhile True: pass");
    let handle = endless.results().next().unwrap().unwrap().clone();
    handle.live_output().next().await.expect("it runs");
    client.signal(2, [ids[0]]).await.unwrap();
    assert!(
        matches!(handle.timeout(DEADLINE).await, Err(TaskError::Remote(remote)) if remote.ename == "KeyboardInterrupt")
    );

    // Questions.
    let status = client.status().await.unwrap();
    assert_eq!(status.remuda, None);
    assert_eq!(status.queues.engines.keys().copied().collect::<Vec<_>>(), ids);
    let done = client.result_status(&[product.msg_id().clone()]).await.unwrap();
    assert_eq!(done.completed, [product.msg_id().clone()]);
    assert!(client.history().await.unwrap().contains(product.msg_id()));
    let query = json!({"msg_id": product.msg_id()});
    let records = client.db_query(query, Some(&["msg_id", "queue"])).await.unwrap();
    assert_eq!(records[0]["queue"], "task");
    client.purge(Purge::Tasks(vec![product.msg_id().clone()])).await.unwrap();
    assert!(matches!(client.resubmit(&["never".into()]).await, Err(QueryError::Refused { .. })));

    // An engine that is shut down leaves, and takes a direct task with it.
    let lost =
        client.direct_view([ids[1]]).execute("import os, time; print('on', flush=True); time.sleep(1); os._exit(1)");
    let parts = broadcast.execute("1").unwrap();
    let coalesced = broadcast.coalesce(true).call_python::<_, u32>("os", "getpid", &()).unwrap();
    let error = lost.await.unwrap_err();
    assert!(matches!(error.first().error, TaskError::EngineLost { .. }), "{error:?}");
    let error = parts.await.unwrap_err();
    assert_eq!((error.first().items.clone(), error.failed()), (1..2, 1));
    assert!(matches!(error.first().error, TaskError::EngineLost { .. }), "{error:?}");
    let error = coalesced.await.unwrap_err();
    assert_eq!(error.failed(), 2);
    assert!(matches!(error.first().error, TaskError::EngineLost { .. }), "{error:?}");
    assert_eq!(client.engine_ids(), [ids[0]]);

    // And at the end all of it.
    client.shutdown(Targets::All, true).await.unwrap();
}
