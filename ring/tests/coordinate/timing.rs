//! When machines reply, whom they ask again, and what they leave for later: driven step by step.

use coronet_ring::coordinate::Effect;
use coronet_ring::coordinate::budget::{Budget, Budgets};
use coronet_ring::coordinate::get::Get;
use coronet_ring::coordinate::message::{Answer, Ask, Refusal};
use coronet_ring::coordinate::put::Put;
use coronet_ring::coordinate::quorum::{Failure, Mode, Need, Outcome, Peer, Replicas};
use coronet_ring::{Actor, Context, Dot, Epoch, Hlc, NodeId, Object, PartitionId, Sibling};

use crate::world::{DEADLINE, get_request, put_request};

fn replicas(homes: u128, stand_ins: u128) -> Replicas {
    let peer = |n: u128| Peer { node: NodeId(n), rack: n as u16, alive: true };
    Replicas {
        partition: PartitionId(0),
        epoch: Epoch(1),
        homes: (1..=homes).map(peer).collect(),
        stand_ins: (homes + 1..=homes + stand_ins).map(peer).collect(),
    }
}

fn object(counter: u64) -> Vec<u8> {
    let dot = Dot::new(Actor(1), counter);
    let version =
        Sibling { dot, hlc: Hlc(1), tombstone: false, token: None, value: vec![counter as u8] };
    let mut bytes = Vec::new();
    Object::new(Context::default(), version).encode(&mut bytes).unwrap();
    bytes
}

fn named(stored: bool) -> Answer {
    Answer::Named { object: object(1), context: vec![1], hlc: Hlc(1), versions: 1, stored }
}

/// Nodes asked, and what was replied, since the last look.
fn look(effects: &mut Vec<Effect>) -> (Vec<u128>, Option<Outcome>) {
    let (mut asked, mut reply) = (Vec::new(), None);
    for effect in effects.drain(..) {
        match effect {
            Effect::Send { to, .. } => asked.push(to.0),
            Effect::Reply(outcome) => reply = Some(outcome),
            Effect::Repair { .. } | Effect::Hint { .. } | Effect::Done => {}
        }
    }
    (asked, reply)
}

fn budgets(tokens: u32) -> Budgets {
    Budgets { repair: Budget::new(0, tokens), hedge: Budget::new(0, tokens) }
}

#[test]
fn a_put_replies_at_w_and_gives_late_replicas_hints() {
    let mut effects = Vec::new();
    let request = put_request(b"v", Need::Count(2), Mode::Strict);
    let mut put = Put::start(request, &replicas(3, 0), 0, &mut effects);
    assert_eq!(look(&mut effects), (vec![1], None), "one replica names");
    put.on_answer(NodeId(1), named(false), 1, &mut effects);
    assert_eq!(look(&mut effects), (vec![2, 3], None), "the others merge meanwhile");
    put.on_answer(NodeId(2), Answer::Stored, 2, &mut effects);
    assert_eq!(look(&mut effects).1, None);
    put.on_answer(NodeId(2), Answer::Stored, 2, &mut effects);
    assert_eq!(look(&mut effects).1, None, "the same node twice is one node");
    put.on_answer(NodeId(1), Answer::Stored, 3, &mut effects);
    let (_, reply) = look(&mut effects);
    assert!(matches!(reply, Some(Outcome::Written { proof, .. }) if proof.acknowledgements == 2));
    assert_eq!(put.next_tick(), Some(DEADLINE));
    put.tick(DEADLINE, &mut effects);
    let hint = Effect::Hint { target: NodeId(3), object: object(1) };
    assert_eq!(effects, [hint, Effect::Done]);
    assert_eq!(put.next_tick(), None);
}

#[test]
fn a_put_that_runs_out_of_time_is_in_doubt_and_says_who_has_it() {
    let mut effects = Vec::new();
    let request = put_request(b"v", Need::All, Mode::Strict);
    let mut put = Put::start(request, &replicas(3, 0), 0, &mut effects);
    put.on_answer(NodeId(1), named(true), 1, &mut effects);
    put.tick(DEADLINE, &mut effects);
    let doubt = Failure::InDoubt { acknowledgements: 1, need: 3 };
    assert_eq!(look(&mut effects).1, Some(Outcome::Failed(doubt)));
}

/// The namer may be about to apply it: that too few replicas are left says nothing about that.
#[test]
fn a_put_that_is_being_named_is_in_doubt_when_others_fail() {
    for token in [None, Some([7; 16])] {
        let mut effects = Vec::new();
        let mut request = put_request(b"v", Need::All, Mode::Strict);
        request.write.token = token;
        let mut put = Put::start(request, &replicas(3, 0), 0, &mut effects);
        put.on_failed(NodeId(2), 1, &mut effects);
        let doubt = Failure::InDoubt { acknowledgements: 0, need: 3 };
        assert_eq!(look(&mut effects).1, Some(Outcome::Failed(doubt)));
        put.on_answer(NodeId(1), named(true), 2, &mut effects);
        assert!(!look(&mut effects).0.is_empty(), "the other replicas get it all the same");
    }
}

#[test]
fn a_silent_namer_is_replaced_only_when_the_write_has_a_token() {
    for token in [None, Some([1; 16])] {
        let mut effects = Vec::new();
        let mut request = put_request(b"v", Need::Count(2), Mode::Strict);
        (request.write.token, request.patience) = (token, 100);
        let mut put = Put::start(request, &replicas(3, 0), 0, &mut effects);
        look(&mut effects);
        put.tick(100, &mut effects);
        let (asked, reply) = look(&mut effects);
        assert_eq!((asked, reply), (token.map(|_| vec![2]).unwrap_or_default(), None));
        if token.is_some() {
            put.on_answer(NodeId(2), named(true), 101, &mut effects);
            assert_eq!(look(&mut effects).0, [1, 3], "the silent one merges like the others");
            put.on_answer(NodeId(1), named(true), 102, &mut effects);
            assert_eq!(look(&mut effects).1, None, "its own name for the write is not the others'");
        }
        put.on_failed(NodeId(1), 103, &mut effects);
        let (_, reply) = look(&mut effects);
        let doubt = Outcome::Failed(Failure::InDoubt { acknowledgements: 0, need: 2 });
        assert_eq!(reply, token.is_none().then_some(doubt));
    }
}

#[test]
fn a_refusing_namer_is_replaced_and_all_refusing_applies_nothing() {
    let mut effects = Vec::new();
    let request = put_request(b"v", Need::Count(2), Mode::Strict);
    let mut put = Put::start(request, &replicas(3, 0), 0, &mut effects);
    put.on_answer(NodeId(1), Answer::Refused(Refusal::Busy), 1, &mut effects);
    assert_eq!(look(&mut effects), (vec![1, 2], None));
    put.on_answer(NodeId(2), Answer::Refused(Refusal::Busy), 1, &mut effects);
    let unavailable = Failure::Unavailable { alive: 1, need: 2 };
    assert_eq!(look(&mut effects).1, Some(Outcome::Failed(unavailable)));
}

#[test]
fn a_stand_in_takes_over_for_a_replica_that_fails_midway() {
    let mut effects = Vec::new();
    let request = put_request(b"v", Need::All, Mode::Sloppy);
    let mut put = Put::start(request, &replicas(3, 1), 0, &mut effects);
    put.on_answer(NodeId(1), named(true), 1, &mut effects);
    look(&mut effects);
    put.on_failed(NodeId(3), 1, &mut effects);
    let Some(Effect::Send { to: NodeId(4), ask: Ask::Merge { hint_for, .. } }) = effects.first()
    else {
        panic!("{effects:?}")
    };
    assert_eq!(*hint_for, Some(NodeId(3)));
    effects.clear();
    put.on_answer(NodeId(2), Answer::Stored, 2, &mut effects);
    put.on_answer(NodeId(4), Answer::Stored, 2, &mut effects);
    let (_, reply) = look(&mut effects);
    assert!(matches!(reply, Some(Outcome::Written { proof, .. }) if proof.sloppy));
}

#[test]
fn a_slow_replica_is_hedged_once_if_the_budget_allows() {
    for tokens in [0, 5] {
        let mut effects = Vec::new();
        let mut budgets = budgets(tokens);
        let request = get_request(Need::Count(2), Mode::Strict);
        let hedge_at = request.hedge_at;
        let mut get = Get::start(request, &replicas(3, 0), &mut effects);
        assert_eq!(look(&mut effects).0, [1, 2]);
        assert_eq!(get.next_tick(), Some(hedge_at));
        get.tick(hedge_at, &mut budgets, &mut effects);
        get.tick(hedge_at + 1, &mut budgets, &mut effects);
        let asked = look(&mut effects).0;
        assert_eq!(asked, if tokens > 0 { vec![3] } else { vec![] });
        get.on_answer(NodeId(2), Answer::Copy(None), 3, &mut budgets, &mut effects);
        get.on_answer(NodeId(3), Answer::Copy(Some(object(1))), 3, &mut budgets, &mut effects);
        let (_, reply) = look(&mut effects);
        let hedged = matches!(reply, Some(Outcome::Read { proof, .. }) if proof.hedged);
        assert_eq!(hedged, tokens > 0);
    }
}

/// The reply does not wait for the third answer, yet what it brings is repaired.
#[test]
fn an_answer_after_the_reply_is_still_repaired() {
    let mut effects = Vec::new();
    let mut budgets = budgets(5);
    let request = get_request(Need::Count(2), Mode::Strict);
    let hedge_at = request.hedge_at;
    let mut get = Get::start(request, &replicas(3, 0), &mut effects);
    get.tick(hedge_at, &mut budgets, &mut effects);
    get.on_answer(NodeId(2), Answer::Copy(Some(object(2))), 3, &mut budgets, &mut effects);
    get.on_answer(NodeId(3), Answer::Copy(Some(object(2))), 3, &mut budgets, &mut effects);
    let (_, reply) = look(&mut effects);
    assert!(matches!(reply, Some(Outcome::Read { proof, .. }) if !proof.repaired));
    get.on_answer(NodeId(1), Answer::Copy(None), 4, &mut budgets, &mut effects);
    let repair = Effect::Repair { to: NodeId(1), object: object(2) };
    assert_eq!(effects, [repair, Effect::Done]);
}

#[test]
fn a_stand_ins_nothing_does_not_outvote_a_replica() {
    let mut effects = Vec::new();
    let mut budgets = budgets(5);
    let mut replicas = replicas(3, 1);
    replicas.homes[0].alive = false;
    let mut get = Get::start(get_request(Need::One, Mode::Sloppy), &replicas, &mut effects);
    assert_eq!(look(&mut effects).0, [2, 4], "also the stand-in of the one that is away");
    get.on_answer(NodeId(4), Answer::Copy(None), 1, &mut budgets, &mut effects);
    assert_eq!(look(&mut effects).1, None);
    get.on_answer(NodeId(2), Answer::Copy(Some(object(1))), 2, &mut budgets, &mut effects);
    let (_, reply) = look(&mut effects);
    assert!(matches!(reply, Some(Outcome::Read { object: Some(_), .. })));
}

#[test]
fn a_read_without_enough_answers_says_so_at_its_deadline() {
    let mut effects = Vec::new();
    let mut budgets = budgets(0);
    let request = get_request(Need::Count(2), Mode::Strict);
    let mut get = Get::start(request, &replicas(3, 0), &mut effects);
    get.on_answer(NodeId(1), Answer::Copy(None), 1, &mut budgets, &mut effects);
    get.tick(DEADLINE, &mut budgets, &mut effects);
    let few = Failure::TooFewAnswers { answers: 1, need: 2 };
    assert_eq!(look(&mut effects).1, Some(Outcome::Failed(few)));
}
