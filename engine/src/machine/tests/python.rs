//! What is Python's: functions and code strings.

use super::*;
use crate::work::PythonOutcome;

impl Story {
    /// Registered, with Python.
    fn with_python() -> Self {
        let mut story = Self::new(Packer::Json);
        story.engine.announcement.python = Some("3.11.0".into());
        story.engine.python = Some(crate::machine::python::Python::default());
        story.serve();
        story
    }

    fn code(&mut self) -> Vec<String> {
        self.shell(MsgType::ExecuteRequest, &json!({"code": "1/0", "silent": false}), &[])
    }

    fn call(&mut self) -> Vec<String> {
        self.shell(MsgType::ApplyRequest, &json!({}), &[Bytes::from_static(b"a pickle")])
    }

    fn python_done(&mut self, task: usize, outcome: PythonOutcome) -> Vec<String> {
        self.done(task, Outcome::Python(Box::new(outcome)))
    }
}

fn fine() -> PythonOutcome {
    let (error, unmet, abort_queued, no_reply) = (false, false, false, false);
    PythonOutcome { error, unmet, abort_queued, no_reply, content: None, buffers: vec![Bytes::from_static(b"N.")] }
}

fn failed(abort_queued: bool) -> PythonOutcome {
    let content = json!({"status": "error", "ename": "ZeroDivisionError", "evalue": "", "traceback": []});
    PythonOutcome {
        error: true,
        abort_queued,
        content: Some(content.to_string().into()),
        buffers: Vec::new(),
        ..fine()
    }
}

#[test]
fn code_that_waits_is_not_run_once_code_before_it_failed_and_functions_are() {
    let mut story = Story::with_python();
    assert_eq!(story.code().last().unwrap(), "start #0: python execute_request");
    assert!(story.code().is_empty(), "whether it runs is not known yet");
    assert!(story.call().is_empty(), "one after the other");
    let told = story.python_done(0, failed(true)).join("\n");
    assert!(told.contains("execute_reply of #1"), "{told}");
    assert!(told.contains("start #2: python apply_request"), "{told}");
    assert_eq!(story.engine.load(), 1);
    story.python_done(2, fine());
    assert_eq!(story.engine.load(), 0);
}

#[test]
fn functions_are_lined_up_behind_whatever_runs() {
    let mut story = Story::with_python();
    assert_eq!(story.call().last().unwrap(), "start #0: python apply_request");
    assert_eq!(story.call(), ["line up #1: python apply_request"]);
    // One that fails takes no other along.
    let told = story.python_done(0, failed(false));
    assert_eq!(told.last().unwrap(), "engine.3.status status of #1: busy");
    let (_, content, _) = story.reply();
    assert_eq!(content["ename"], "ZeroDivisionError");
}
