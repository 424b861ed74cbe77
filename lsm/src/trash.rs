//! Files nobody needs any more, removed in the background.

use crate::env::{Env, TaskClass};
use crate::signal::Signal;
use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;

/// What happens to a file.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Remove,
    SetAside,
}

/// Collects paths; a background task removes the files. What is left at a crash is found and
/// removed by the next opening, so failures here lose nothing but space.
#[derive(Debug, Default)]
pub(crate) struct Trash {
    paths: RefCell<Vec<(PathBuf, Fate)>>,
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
        self.hand_over(path, Fate::Remove);
    }

    /// Hands over a damaged file: it is kept under another name, for an operator to look at.
    pub fn set_aside(&self, path: PathBuf) {
        self.hand_over(path, Fate::SetAside);
    }

    fn hand_over(&self, path: PathBuf, fate: Fate) {
        self.paths.borrow_mut().push((path, fate));
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
                Some((path, Fate::Remove)) => drop(env.remove(&path).await),
                Some((path, Fate::SetAside)) => {
                    drop(env.rename(&path, &path.with_extension("sst.damaged")).await);
                }
                None if self.closed.get() => return,
                None => self.signal.changed(epoch).await,
            }
        }
    }
}
