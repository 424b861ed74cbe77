//! Our search for linearizable orders beside another one, that of the model checker `stateright`,
//! which has no memo and keeps precedence per client instead of instants: the verdicts on small
//! random histories are equal.
#![allow(clippy::unwrap_used)]

use coronet_sim::Rng;
use coronet_tools::sim::checkers::linear::{Verdict, check};
use coronet_tools::sim::checkers::{Kind, Op};
use stateright::semantics::register::{Register, RegisterOp, RegisterRet};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester};

const HISTORIES: u64 = 10_000;
const PLENTY: usize = 1_000_000;

/// A history, told to both as it happens.
struct History {
    ops: Vec<Op>,
    peer: LinearizabilityTester<usize, Register<u64>>,
    /// The operation of each client that is not answered yet.
    under_way: Vec<Option<usize>>,
    /// What a register that changes whenever a write begins or ends holds.
    value: u64,
}

impl History {
    fn new(clients: usize) -> Self {
        let peer = LinearizabilityTester::new(Register(0));
        History { ops: Vec::new(), peer, under_way: vec![None; clients], value: 0 }
    }

    fn begin(&mut self, client: usize, now: u64, rng: &mut Rng) {
        let (kind, told) = if rng.below(2) == 0 {
            // Few values, so that a read may be explained by more than one write.
            let value = rng.range(1, 3);
            if rng.below(2) == 0 {
                self.value = value;
            }
            (Kind::Write(value), RegisterOp::Write(value))
        } else {
            (Kind::Read(self.value), RegisterOp::Read)
        };
        self.peer.on_invoke(client, told).unwrap();
        self.under_way[client] = Some(self.ops.len());
        self.ops.push(Op { call: now, ret: None, kind });
    }

    fn end(&mut self, client: usize, now: u64, rng: &mut Rng) {
        let Some(at) = self.under_way[client].take() else { return };
        let op = &mut self.ops[at];
        op.ret = Some(now);
        let told = match &mut op.kind {
            Kind::Write(value) => {
                if rng.below(3) == 0 {
                    self.value = *value;
                }
                RegisterRet::WriteOk
            }
            Kind::Read(found) => {
                match rng.below(8) {
                    0..2 => *found = rng.below(4),
                    2..5 => *found = self.value,
                    _ => {}
                }
                RegisterRet::ReadOk(*found)
            }
        };
        self.peer.on_return(client, told).unwrap();
    }
}

/// Two to four clients and up to eight operations; each moment is the begin or the end of one,
/// and what is under way at the last moment stays unanswered.
fn any_history(rng: &mut Rng) -> History {
    let clients = 2 + rng.index(3);
    let most = 1 + rng.index(8);
    let mut history = History::new(clients);
    for now in 0..rng.range(2, 20) {
        let client = rng.index(clients);
        if history.under_way[client].is_some() {
            history.end(client, now, rng);
        } else if history.ops.len() < most {
            history.begin(client, now, rng);
        }
    }
    history
}

#[test]
fn verdicts_are_those_of_another_tester() {
    let mut rng = Rng::new(5);
    let (mut linear, mut not, mut unanswered) = (0, 0, 0);
    for nth in 0..HISTORIES {
        let history = any_history(&mut rng);
        let ours = check(&history.ops, PLENTY);
        assert_ne!(ours, Verdict::Undecided, "history {nth}: {:?}", history.ops);
        let ours = ours == Verdict::Linearizable;
        assert_eq!(ours, history.peer.is_consistent(), "history {nth}: {:?}", history.ops);
        if ours {
            linear += 1
        } else {
            not += 1
        }
        unanswered += u64::from(history.under_way.iter().any(Option::is_some));
    }
    println!("{linear} linearizable, {not} not, {unanswered} with unanswered operations");
    let often = HISTORIES / 10;
    assert!(linear > often && not > often, "{linear} linearizable, {not} not");
    assert!(unanswered > often, "{unanswered} with unanswered operations");
}
