//! Files nobody needs any more, removed in the background.

use crate::env::{Env, TaskClass};
use crate::signal::Signal;
use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;

/// Collects paths; a background task removes the files. What is left at a crash is found and
/// removed by the next opening, so failures here lose nothing but space.
#[derive(Debug, Default)]
pub(crate) struct Trash {
    paths: RefCell<Vec<PathBuf>>,
    closed: Cell<bool>,
    signal: Signal,
}

impl Trash {
    /// Starts the removing task.
    pub fn start<E: Env>(env: E) -> Rc<Self> {
        let trash = Rc::new(Trash::default());
        env.spawn(TaskClass::Background, trash.clone().run(env.clone()));
        trash
    }

    /// Hands over a file.
    pub fn discard(&self, path: PathBuf) {
        self.paths.borrow_mut().push(path);
        self.signal.notify();
    }

    /// Files that wait.
    pub fn len(&self) -> usize {
        self.paths.borrow().len()
    }

    /// Ends the task after what it has.
    pub fn close(&self) {
        self.closed.set(true);
        self.signal.notify();
    }

    async fn run<E: Env>(self: Rc<Self>, env: E) {
        loop {
            let epoch = self.signal.epoch();
            let next = self.paths.borrow_mut().pop();
            match next {
                // The file may be gone already, or stay until the next opening.
                Some(path) => drop(env.remove(&path).await),
                None if self.closed.get() => return,
                None => self.signal.changed(epoch).await,
            }
        }
    }
}
