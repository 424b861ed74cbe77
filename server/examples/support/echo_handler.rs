//! A connection handler that echoes or answers frames of fixed sizes.

use std::cell::RefCell;
use std::collections::VecDeque;

use ahash::AHashMap;
use coronet_server::node::{ConnId, CoreMessage, Door, OutputState};
use coronet_server::rt::ConnectionHandler;

use super::answers::Answers;

#[derive(Default)]
struct Connection {
    output: Vec<u8>,
    partial: usize,
    dirty: bool,
    ended: bool,
}

#[derive(Default)]
struct State {
    connections: AHashMap<ConnId, Connection>,
    dirty: VecDeque<ConnId>,
}

/// See the module.
pub struct EchoHandler {
    answers: Answers,
    state: RefCell<State>,
}

impl EchoHandler {
    /// A handler that answers as told.
    pub fn new(answers: Answers) -> Self {
        Self { answers, state: RefCell::default() }
    }

    fn with(&self, conn: ConnId, f: impl FnOnce(&mut Connection)) {
        let state = &mut *self.state.borrow_mut();
        let Some(connection) = state.connections.get_mut(&conn) else { return };
        f(connection);
        let changed = !connection.output.is_empty() || connection.ended;
        if changed && !std::mem::replace(&mut connection.dirty, true) {
            state.dirty.push_back(conn);
        }
    }
}

impl ConnectionHandler for EchoHandler {
    fn dial_failed(&self, _: u64) {}

    fn connect(&self, conn: ConnId, _: Door) {
        self.state.borrow_mut().connections.insert(conn, Connection::default());
    }

    fn receive(&self, conn: ConnId, bytes: &[u8]) {
        self.with(conn, |connection| {
            self.answers.answer(&mut connection.partial, bytes, &mut connection.output);
        });
    }

    fn end_of_input(&self, conn: ConnId) {
        self.with(conn, |connection| connection.ended = true);
    }

    fn disconnect(&self, conn: ConnId) {
        self.state.borrow_mut().connections.remove(&conn);
    }

    fn release(&self, conn: ConnId) -> Vec<u8> {
        self.disconnect(conn);
        Vec::new()
    }

    fn core_message(&self, _: CoreMessage) {}

    fn next_dirty(&self) -> Option<ConnId> {
        self.state.borrow_mut().dirty.pop_front()
    }

    fn take_output(&self, conn: ConnId, into: &mut Vec<u8>) -> OutputState {
        let mut state = self.state.borrow_mut();
        let Some(connection) = state.connections.get_mut(&conn) else {
            return OutputState::default();
        };
        connection.dirty = false;
        if into.is_empty() {
            std::mem::swap(into, &mut connection.output);
        } else {
            into.append(&mut connection.output);
        }
        OutputState { close_after: connection.ended, ..OutputState::default() }
    }

    fn tick(&self) {}

    fn drain(&self) {}

    fn in_flight(&self) -> usize {
        0
    }
}
