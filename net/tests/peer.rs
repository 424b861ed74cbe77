//! Messages between nodes: they come back, and no bytes from outside do harm.
#![allow(clippy::unwrap_used)] // a failure here is the test's failure

use coronet_net::fuzz;
use coronet_net::peer::{MessageError, PeerMessage};
use coronet_ring::coordinate::message::{Answer, Ask, Durability, ListedKey, NewWrite, Refusal};
use coronet_ring::{Epoch, Hlc, NodeId, PartitionId};
use proptest::collection::vec;
use proptest::prelude::*;

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..40)
}

fn durability() -> impl Strategy<Value = Durability> {
    prop_oneof![Just(Durability::Durable), Just(Durability::Buffered)]
}

fn hint() -> impl Strategy<Value = Option<NodeId>> {
    proptest::option::of(any::<u128>().prop_map(NodeId))
}

fn ask() -> impl Strategy<Value = Ask> {
    let token = proptest::option::of(any::<[u8; 16]>());
    let write = (proptest::option::of(bytes()), bytes(), any::<bool>(), token)
        .prop_map(|(value, context, replace, token)| NewWrite { value, context, replace, token });
    let after = proptest::option::of(bytes());
    prop_oneof![
        (write, durability(), hint()).prop_map(|(write, durability, hint_for)| Ask::Name {
            write,
            durability,
            hint_for
        }),
        (bytes(), durability(), hint()).prop_map(|(object, durability, hint_for)| Ask::Merge {
            object,
            durability,
            hint_for
        }),
        any::<u32>().prop_map(|inline| Ask::Read { inline }),
        (bytes(), after, any::<u32>()).prop_map(|(prefix, after, limit)| Ask::List {
            prefix,
            after,
            limit
        }),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    let named = (bytes(), bytes(), any::<u64>(), any::<u16>(), any::<bool>());
    let entries =
        vec((bytes(), bytes()).prop_map(|(key, outline)| ListedKey { key, outline }), 0..5);
    let refusals = [
        Refusal::Busy,
        Refusal::NotReplica,
        Refusal::DiskFull,
        Refusal::ShuttingDown,
        Refusal::Corrupt,
        Refusal::Fenced,
        Refusal::BadContext,
        Refusal::TooManyVersions,
        Refusal::Invalid,
    ];
    prop_oneof![
        named.prop_map(|(object, context, hlc, versions, stored)| Answer::Named {
            object,
            context,
            hlc: Hlc(hlc),
            versions,
            stored
        }),
        Just(Answer::Stored),
        proptest::option::of(bytes()).prop_map(Answer::Copy),
        any::<u64>().prop_map(Answer::Digest),
        (entries, any::<bool>()).prop_map(|(entries, complete)| Answer::Keys { entries, complete }),
        proptest::sample::select(refusals.to_vec()).prop_map(Answer::Refused),
    ]
}

fn message() -> impl Strategy<Value = PeerMessage> {
    prop_oneof![
        (any::<[u64; 2]>(), any::<[u32; 2]>(), any::<u16>(), bytes(), ask()).prop_map(
            |([ticket, epoch], [left_us, keyspace], partition, key, ask)| PeerMessage::Ask {
                ticket,
                epoch: Epoch(epoch),
                left_us,
                keyspace,
                partition: PartitionId(partition),
                key,
                ask,
            }
        ),
        (any::<u64>(), answer())
            .prop_map(|(ticket, answer)| PeerMessage::Answer { ticket, answer }),
        bytes().prop_map(PeerMessage::Gossip),
    ]
}

proptest! {
    #[test]
    fn messages_come_back_and_every_cut_is_noticed(message in message()) {
        let mut encoded = Vec::new();
        message.write(&mut encoded);
        prop_assert_eq!(PeerMessage::decode(&encoded), Ok(message));
        for len in 0..encoded.len() {
            prop_assert!(PeerMessage::decode(&encoded[..len]).is_err());
        }
        encoded.push(0);
        prop_assert_eq!(PeerMessage::decode(&encoded), Err(MessageError::Excess(1)));
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in vec(any::<u8>(), 0..200)) {
        fuzz::peer_stream(&bytes);
        fuzz::peer_message(&bytes);
    }
}

#[test]
fn an_ask_has_these_bytes() {
    let write = NewWrite {
        value: Some(b"v".to_vec()),
        context: b"cx".to_vec(),
        replace: true,
        token: Some([7; 16]),
    };
    let ask = Ask::Name { write, durability: Durability::Buffered, hint_for: Some(NodeId(5)) };
    let message = PeerMessage::Ask {
        ticket: 0x0102,
        epoch: Epoch(3),
        left_us: 4,
        keyspace: 6,
        partition: PartitionId(9),
        key: b"k".to_vec(),
        ask,
    };
    let mut encoded = Vec::new();
    message.write(&mut encoded);
    let mut golden =
        vec![1, 2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 6, 0, 0, 0];
    golden.extend([9, 0, 1, 0, 0, 0, b'k']);
    golden.extend([1, 1, 0, 0, 0, b'v', 2, 0, 0, 0, b'c', b'x', 1, 1]);
    golden.extend([7; 16]);
    golden.extend([1, 1, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(encoded, golden);
}
