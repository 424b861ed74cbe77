//! The wires between the nodes of a test cluster, which can be cut.
//!
//! Each node is dialed at the address of a relay. Cutting loses bytes instead of closing
//! connections, as a broken network does: nobody is told. Healing ends what the cut had hold of.
//! Used by process tests as a module.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use coronet_net::Parsed;
use coronet_net::peer::{Frame, Greeting};
use coronet_ring::NodeId;

/// Longest greeting that is awaited.
const LONGEST_GREETING: u32 = 4096;

/// A connection through a relay.
struct Wire {
    from: NodeId,
    to: usize,
    ends: Vec<TcpStream>,
    /// Bytes are lost.
    cut: Arc<AtomicBool>,
}

#[derive(Default)]
struct State {
    /// Which node is at which place, once known.
    places: BTreeMap<NodeId, usize>,
    /// The places cut off from all others.
    island: BTreeSet<usize>,
    wires: Vec<Wire>,
}

impl State {
    fn is_cut(&self, from: NodeId, to: usize) -> bool {
        let from = self.places.get(&from);
        !self.island.is_empty()
            && from.is_none_or(|from| self.island.contains(from) != self.island.contains(&to))
    }
}

/// See the module. Relays end with the process.
pub struct Wires {
    addresses: Vec<String>,
    state: Arc<Mutex<State>>,
}

impl Wires {
    /// A relay to each of these addresses.
    pub fn to(targets: &[String]) -> Wires {
        let state = Arc::default();
        let relay = |(place, target): (usize, &String)| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
            let address = listener.local_addr().expect("address").to_string();
            let (state, target) = (Arc::clone(&state), target.parse().expect("an address"));
            thread::spawn(move || accept(&listener, place, target, &state));
            address
        };
        let addresses = targets.iter().enumerate().map(relay).collect();
        Wires { addresses, state }
    }

    /// Where the relays listen.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Says which nodes there are, in order of their places.
    pub fn name(&self, nodes: impl IntoIterator<Item = NodeId>) {
        let places = nodes.into_iter().enumerate().map(|(place, node)| (node, place));
        locked(&self.state).places = places.collect();
    }

    /// From now on nothing passes between the nodes at these places and the others.
    pub fn cut_off(&self, island: &[usize]) {
        let mut state = locked(&self.state);
        state.island = island.iter().copied().collect();
        for wire in &state.wires {
            if state.is_cut(wire.from, wire.to) {
                wire.cut.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Everything passes again, on new connections where old ones lost bytes.
    pub fn heal(&self) {
        let mut state = locked(&self.state);
        state.island.clear();
        state.wires.retain(|wire| {
            let cut = wire.cut.load(Ordering::SeqCst);
            if cut {
                wire.ends.iter().for_each(close);
            }
            !cut
        });
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn close(stream: &TcpStream) {
    // Whoever is gone already needs no closing.
    let _ = stream.shutdown(Shutdown::Both);
}

fn accept(listener: &TcpListener, place: usize, target: SocketAddr, state: &Arc<Mutex<State>>) {
    for stream in listener.incoming().flatten() {
        let state = Arc::clone(state);
        thread::spawn(move || {
            if carry(stream.try_clone().expect("handle"), place, target, &state).is_none() {
                close(&stream);
            }
        });
    }
}

/// Connects a dialing node through; `None` when there is nobody to connect.
fn carry(
    mut dialer: TcpStream,
    place: usize,
    target: SocketAddr,
    state: &Mutex<State>,
) -> Option<()> {
    let (greeting, from) = read_greeting(&mut dialer)?;
    let cut = Arc::new(AtomicBool::new(false));
    let mut ends = vec![dialer.try_clone().ok()?];
    {
        let mut state = locked(state);
        if state.is_cut(from, place) {
            // Held open without a word until the network heals.
            cut.store(true, Ordering::SeqCst);
            state.wires.push(Wire { from, to: place, ends, cut });
            return Some(());
        }
    }
    let mut dialed = TcpStream::connect(target).ok()?;
    dialed.write_all(&greeting).ok()?;
    ends.push(dialed.try_clone().ok()?);
    let pumps = [
        (dialer.try_clone().ok()?, dialed.try_clone().ok()?, Arc::clone(&cut)),
        (dialed, dialer, Arc::clone(&cut)),
    ];
    {
        let mut state = locked(state);
        cut.store(state.is_cut(from, place), Ordering::SeqCst);
        state.wires.push(Wire { from, to: place, ends, cut });
    }
    for (from, to, cut) in pumps {
        thread::spawn(move || pump(from, to, &cut));
    }
    Some(())
}

/// The dialer's first frame, and who it is.
fn read_greeting(dialer: &mut TcpStream) -> Option<(Vec<u8>, NodeId)> {
    let mut bytes = Vec::new();
    loop {
        match Frame::parse(&bytes, LONGEST_GREETING) {
            Ok(Parsed::Frame { frame, consumed }) if consumed == bytes.len() => {
                let node = Greeting::decode(frame.body)?.node;
                return Some((bytes, node));
            }
            Ok(Parsed::Incomplete { .. }) => {
                let mut byte = [0];
                dialer.read_exact(&mut byte).ok()?;
                bytes.push(byte[0]);
            }
            _ => return None,
        }
    }
}

/// Moves bytes until one side ends; while the wire is cut they are lost.
fn pump(mut from: TcpStream, mut to: TcpStream, cut: &AtomicBool) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(length) if length > 0 => {
                if !cut.load(Ordering::SeqCst) && to.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
            _ => break,
        }
    }
    // A cut wire is not seen to end: the other side hears of it when the network heals.
    if !cut.load(Ordering::SeqCst) {
        close(&from);
        close(&to);
    }
}
