//! The socket side of the runtime against real TCP clients.
#![allow(clippy::unwrap_used, clippy::type_complexity)] // a failure here is the test's failure

#[path = "../examples/support/answers.rs"]
mod answers;
#[path = "../examples/support/echo_handler.rs"]
mod echo_handler;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use answers::{Answers, argument};
use coronet_server::node::{ConnId, CoreId, CoreMessage, Door, NodeEnv, OutputState};
use coronet_server::rt::{
    ConnectionHandler, Cores, CoresConfig, NetStats, RtEnv, RtError, ServeOptions, executor,
};
use echo_handler::EchoHandler;

/// A server whose handlers `make` builds, one per core; returns its address.
fn serve<H: ConnectionHandler>(
    cores: usize,
    limit: usize,
    make: impl Fn(RtEnv) -> H + Clone + Send + 'static,
) -> (SocketAddr, Cores<NetStats>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut listener = Some(listener);
    // More cores than CPUs share them: slower, but the same code runs.
    let cpus = executor::available_cpus();
    let config = CoresConfig { cpus: (0..cores).map(|core| cpus[core % cpus.len()]).collect() };
    let running = executor::start_each(&config, |_| {
        let options = ServeOptions {
            listener: listener.take(),
            peers: None,
            data_cores: cores as u16,
            connection_limit: limit,
            drain: Duration::from_secs(1),
        };
        let make = make.clone();
        move |context| async move {
            let env = context.env;
            env.serve(Rc::new(make(env.clone())), options).await;
            env.net_stats()
        }
    })
    .unwrap();
    (address, running)
}

fn finish(cores: Cores<NetStats>) -> NetStats {
    cores.stopper().stop();
    let mut total = NetStats::default();
    for stats in cores.join() {
        let stats = stats.unwrap();
        assert_eq!(stats.open, 0);
        total.accepted += stats.accepted;
        total.refused += stats.refused;
        total.received += stats.received;
        total.sent += stats.sent;
    }
    total
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let step = |state: &mut u64| {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 32) as u8
    };
    (0..len).map(|_| step(&mut state)).collect()
}

#[test]
fn a_hundred_connections_get_their_own_bytes_back() {
    assert_eq!(argument(usize::MAX, 5), 5);
    let (address, cores) = serve(2, 1000, |_| EchoHandler::new(Answers::of(0, 0)));
    let clients: Vec<_> = (0..100u64)
        .map(|client| {
            thread::spawn(move || {
                let mut stream = connect(address);
                let data = noise(client + 1, 20_000 + client as usize * 137);
                let mut at = 0;
                while at < data.len() {
                    let chunk = (usize::from(data[at]) * 37 + 1).min(data.len() - at);
                    stream.write_all(&data[at..at + chunk]).unwrap();
                    let mut back = vec![0; chunk];
                    stream.read_exact(&mut back).unwrap();
                    assert_eq!(back, data[at..at + chunk]);
                    at += chunk;
                }
                data.len() as u64
            })
        })
        .collect();
    let bytes: u64 = clients.into_iter().map(|client| client.join().unwrap()).sum();
    let stats = finish(cores);
    assert_eq!((stats.accepted, stats.received, stats.sent), (100, bytes, bytes));
}

#[test]
fn a_half_closed_peer_still_gets_its_answer() {
    let (address, cores) = serve(1, 10, |_| EchoHandler::new(Answers::of(0, 0)));
    for round in 0..20 {
        let mut stream = connect(address);
        let data = noise(round, 100_000);
        // The peer reads only after it said everything: the answer must survive its end.
        let sent = data.clone();
        let mut writer = stream.try_clone().unwrap();
        let writing = thread::spawn(move || {
            writer.write_all(&sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        writing.join().unwrap();
        assert_eq!(back, data);
    }
    finish(cores);
}

#[test]
fn resets_and_silence_cost_nothing() {
    let (address, cores) = serve(1, 300, |_| EchoHandler::new(Answers::of(0, 0)));
    let silent: Vec<_> = (0..200).map(|_| connect(address)).collect();
    for round in 0..100 {
        let mut stream = connect(address);
        stream.write_all(&noise(round, 5000)).unwrap();
        drop(stream); // unread answers turn this into a reset
    }
    let mut stream = connect(address);
    stream.write_all(b"alive").unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"alive");
    drop(silent);
    assert_eq!(finish(cores).accepted, 301);
}

#[test]
fn large_answers_wait_for_a_slow_reader() {
    const LEN: usize = 16 << 20;
    let (address, cores) = serve(1, 10, |_| EchoHandler::new(Answers::of(4, LEN)));
    let mut stream = connect(address);
    for _ in 0..3 {
        stream.write_all(b"more").unwrap();
    }
    let (mut total, mut buf) = (0, vec![0; 300_000]);
    while total < 3 * LEN {
        let count = stream.read(&mut buf).unwrap();
        assert!(count > 0 && buf[..count].iter().all(|byte| *byte == 7));
        total += count;
        thread::sleep(Duration::from_millis(2));
    }
    // Others were served meanwhile and are now.
    stream.write_all(b"more").unwrap();
    stream.read_exact(&mut buf).unwrap();
    drop(stream);
    finish(cores);
}

#[test]
fn a_peer_that_never_reads_is_not_read_from_either() {
    let (address, cores) = serve(1, 10, |_| EchoHandler::new(Answers::of(0, 0)));
    let mut stream = connect(address);
    stream.set_nonblocking(true).unwrap();
    let chunk = vec![1; 1 << 20];
    let (mut sent, mut refusals) = (0, 0);
    // Stops accepting once the socket buffers of both directions are full.
    while refusals < 200 {
        match stream.write(&chunk) {
            Ok(count) => (sent, refusals) = (sent + count, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                refusals += 1;
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("{error}"),
        }
        assert!(sent < 256 << 20, "the server swallows everything");
    }
    stream.set_nonblocking(false).unwrap();
    let mut reader = stream.try_clone().unwrap();
    let reading = thread::spawn(move || {
        let mut back = Vec::new();
        reader.read_to_end(&mut back).unwrap();
        back.len()
    });
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(reading.join().unwrap(), sent);
    finish(cores);
}

#[test]
fn the_newest_connection_goes_when_there_are_too_many() {
    let (address, cores) = serve(2, 5, |_| EchoHandler::new(Answers::of(0, 0)));
    let mut kept: Vec<_> = (0..5).map(|_| connect(address)).collect();
    for stream in &mut kept {
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
    }
    let mut refused = connect(address);
    assert!(matches!(refused.read(&mut [0]), Ok(0) | Err(_)));
    kept.pop();
    // The place is free again once the server has seen the end.
    let mut served = false;
    while !served {
        let mut stream = connect(address);
        served = stream.write_all(b"y").is_ok() && matches!(stream.read(&mut [0]), Ok(1));
    }
    assert!(finish(cores).refused >= 1);
}

/// Collects input; `>` followed by a digit moves the connection to that core, `?` makes the core
/// answer with its number and everything it got since.
struct Mover {
    env: RtEnv,
    inputs: RefCell<BTreeMap<ConnId, (Vec<u8>, Vec<u8>, Option<CoreId>)>>,
    dirty: RefCell<VecDeque<ConnId>>,
}

impl Mover {
    fn new(env: RtEnv) -> Self {
        Self { env, inputs: RefCell::default(), dirty: RefCell::default() }
    }
}

impl ConnectionHandler for Mover {
    fn dial_failed(&self, _: u64) {}

    fn connect(&self, conn: ConnId, _: Door) {
        self.inputs.borrow_mut().insert(conn, Default::default());
    }

    fn receive(&self, conn: ConnId, bytes: &[u8]) {
        let mut inputs = self.inputs.borrow_mut();
        let (input, output, moving) = inputs.get_mut(&conn).unwrap();
        input.extend_from_slice(bytes);
        while moving.is_none() {
            let Some(at) = input.iter().position(|byte| b">?".contains(byte)) else { break };
            if input[at] == b'?' {
                output.push(b'0' + self.env.core().0 as u8);
                output.extend(input.drain(..=at));
            } else if let Some(digit) = input.get(at + 1) {
                let to = CoreId(u16::from(digit - b'0'));
                input.drain(at..at + 2);
                // Moving to oneself is no move, as in HELLO.
                *moving = (to != self.env.core()).then_some(to);
            } else {
                break;
            }
        }
        self.dirty.borrow_mut().push_back(conn);
    }

    fn end_of_input(&self, conn: ConnId) {
        self.dirty.borrow_mut().push_back(conn);
    }

    fn disconnect(&self, conn: ConnId) {
        self.inputs.borrow_mut().remove(&conn);
    }

    fn release(&self, conn: ConnId) -> Vec<u8> {
        self.inputs.borrow_mut().remove(&conn).unwrap().0
    }

    fn core_message(&self, _: CoreMessage) {}

    fn next_dirty(&self) -> Option<ConnId> {
        self.dirty.borrow_mut().pop_front()
    }

    fn take_output(&self, conn: ConnId, into: &mut Vec<u8>) -> OutputState {
        let mut inputs = self.inputs.borrow_mut();
        let Some((_, output, moving)) = inputs.get_mut(&conn) else {
            return OutputState::default();
        };
        into.append(output);
        OutputState { hand_over: *moving, ..OutputState::default() }
    }

    fn tick(&self) {}

    fn drain(&self) {}

    fn in_flight(&self) -> usize {
        0
    }
}

#[test]
fn moving_between_cores_loses_no_byte() {
    let (address, cores) = serve(3, 100, Mover::new);
    let mut stream = connect(address);
    let mut expected = Vec::new();
    let mut sent = Vec::new();
    for round in 0..300usize {
        let to = round * 7 % 3;
        let text = "abcdefgh".repeat(round % 40);
        sent.extend_from_slice(format!(">{to}{text}?").as_bytes());
        expected.extend_from_slice(format!("{to}{text}?").as_bytes());
    }
    // In pieces that cut commands and moves anywhere.
    let mut writer = stream.try_clone().unwrap();
    let writing = thread::spawn(move || {
        for piece in sent.chunks(61) {
            writer.write_all(piece).unwrap();
        }
    });
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).unwrap();
    writing.join().unwrap();
    assert!(got == expected, "bytes lost or reordered");
    drop(stream);
    finish(cores);
}

/// Bounces one message between two cores.
struct Bouncer {
    env: RtEnv,
    left: Cell<u64>,
    bounced: Arc<AtomicU64>,
}

impl ConnectionHandler for Bouncer {
    fn connect(&self, _: ConnId, _: Door) {}
    fn dial_failed(&self, _: u64) {}
    fn receive(&self, _: ConnId, _: &[u8]) {}
    fn end_of_input(&self, _: ConnId) {}
    fn disconnect(&self, _: ConnId) {}

    fn release(&self, _: ConnId) -> Vec<u8> {
        Vec::new()
    }

    fn core_message(&self, message: CoreMessage) {
        self.bounced.fetch_add(1, Ordering::Relaxed);
        if self.left.get() > 0 {
            self.left.set(self.left.get() - 1);
            self.env.send(CoreId(1 - self.env.core().0), message);
        }
    }

    fn next_dirty(&self) -> Option<ConnId> {
        None
    }

    fn take_output(&self, _: ConnId, _: &mut Vec<u8>) -> OutputState {
        OutputState::default()
    }

    fn tick(&self) {}
    fn drain(&self) {}

    fn in_flight(&self) -> usize {
        0
    }
}

fn message() -> CoreMessage {
    CoreMessage::Ping { beat: 7 }
}

#[test]
fn a_hundred_thousand_messages_cross_between_sleeping_cores() {
    const BOUNCES: u64 = 50_000; // each way
    let bounced = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&bounced);
    let (_, cores) = serve(2, 10, move |env| {
        if env.core() == CoreId(0) {
            env.send(CoreId(1), message());
        }
        Bouncer { env, left: Cell::new(BOUNCES), bounced: Arc::clone(&counter) }
    });
    // One message at a time: every receiver has gone to wait when it comes.
    while bounced.load(Ordering::Relaxed) < 2 * BOUNCES {
        thread::sleep(Duration::from_millis(5));
    }
    finish(cores);
}

#[test]
fn a_flood_of_messages_overflows_without_loss() {
    const FLOOD: u64 = 100_000;
    let bounced = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&bounced);
    let (_, cores) = serve(2, 10, move |env| {
        for _ in 0..if env.core() == CoreId(0) { FLOOD } else { 0 } {
            env.send(CoreId(1), message());
        }
        Bouncer { env, left: Cell::new(0), bounced: Arc::clone(&counter) }
    });
    while bounced.load(Ordering::Relaxed) < FLOOD {
        thread::sleep(Duration::from_millis(5));
    }
    finish(cores);
    assert_eq!(bounced.load(Ordering::Relaxed), FLOOD);
}

#[test]
fn a_stopped_server_leaves_its_port_free() {
    let (address, cores) = serve(1, 10, |_| EchoHandler::new(Answers::of(0, 0)));
    let mut stream = connect(address);
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    finish(cores);
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    assert!(TcpStream::connect(address).is_err());
    TcpListener::bind(address).unwrap();
}

#[test]
fn the_other_cores_end_when_one_panics() {
    let cpu = executor::available_cpus()[0];
    let cores = executor::start(&CoresConfig { cpus: vec![cpu; 2] }, |context| async move {
        let env = context.env;
        assert_eq!(env.core(), CoreId(0), "core 1 panics, as this test wants");
        env.serve(Rc::new(EchoHandler::new(Answers::of(0, 0))), ServeOptions::default()).await;
    })
    .unwrap();
    let results = cores.join();
    assert!(results[0].is_ok());
    assert!(matches!(results[1], Err(RtError::Panicked(CoreId(1)))), "{:?}", results[1]);
}

/// Cores that start while others compete for their CPU come up and end, again and again: an
/// executor that is preempted before its first step must not sleep for good.
#[test]
fn cores_start_and_end_under_pressure() {
    let busy = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let cpus = executor::available_cpus();
    let load: Vec<_> = (0..cpus.len() * 2)
        .map(|_| {
            let busy = Arc::clone(&busy);
            thread::spawn(move || {
                while busy.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    for _ in 0..40 {
        let config = CoresConfig { cpus: cpus.iter().cycle().take(8).copied().collect() };
        let cores = executor::start(&config, |context| async move { context.cpu }).unwrap();
        assert_eq!(cores.join().into_iter().map(Result::unwrap).collect::<Vec<_>>(), config.cpus);
    }
    busy.store(false, Ordering::Relaxed);
    load.into_iter().for_each(|thread| thread.join().unwrap());
}
