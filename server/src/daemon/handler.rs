//! The node as the runtime's connection handler.

use crate::node::{ConnId, CoreMessage, Door, NodeCore, OutputState};
use crate::rt::{ConnectionHandler, RtEnv};

impl ConnectionHandler for NodeCore<RtEnv> {
    fn connect(&self, conn: ConnId, door: Door) {
        NodeCore::connect(self, conn, door);
    }

    fn dial_failed(&self, ticket: u64) {
        NodeCore::dial_failed(self, ticket);
    }

    fn receive(&self, conn: ConnId, bytes: &[u8]) {
        NodeCore::receive(self, conn, bytes);
    }

    fn end_of_input(&self, conn: ConnId) {
        NodeCore::end_of_input(self, conn);
    }

    fn disconnect(&self, conn: ConnId) {
        NodeCore::disconnect(self, conn);
    }

    fn release(&self, conn: ConnId) -> Vec<u8> {
        NodeCore::release(self, conn)
    }

    fn core_message(&self, message: CoreMessage) {
        NodeCore::core_message(self, message);
    }

    fn next_dirty(&self) -> Option<ConnId> {
        NodeCore::next_dirty(self)
    }

    fn take_output(&self, conn: ConnId, into: &mut Vec<u8>) -> OutputState {
        NodeCore::take_output(self, conn, into)
    }

    fn tick(&self) {
        NodeCore::tick(self);
    }

    fn drain(&self) {
        NodeCore::drain(self);
    }

    fn in_flight(&self) -> usize {
        NodeCore::in_flight(self)
    }
}
