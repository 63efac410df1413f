//! An engine on a thread of the test.

use std::thread::JoinHandle;

use remuda_engine::{EngineBuilder, StopHandle, read_engine};

use crate::Place;

/// A native engine with functions of the test's own. Dropping it stops it, and waits for its end.
pub struct EngineThread {
    stop: StopHandle,
    thread: Option<JoinHandle<()>>,
}

impl EngineThread {
    /// Starts it for the controller of that place.
    ///
    /// # Panics
    /// When it cannot be built, or there is no controller.
    pub fn start(place: &Place, builder: EngineBuilder) -> Self {
        let connection = read_engine(&place.profile().engine_file()).expect("a controller has written its file");
        let engine = builder.build().expect("an engine with functions");
        let stop = engine.stop_handle();
        let thread = std::thread::spawn(move || drop(engine.run(&connection)));
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for EngineThread {
    fn drop(&mut self) {
        self.stop.stop();
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
