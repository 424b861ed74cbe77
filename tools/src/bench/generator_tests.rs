//! The generator against a small RESP server in a thread, real sockets on loopback.

use super::*;
use crate::bench::keys::Distribution;
use crate::bench::resp::RespDriver;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

type Store = Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>;

/// Answers GET and SET; `refuse` makes the first so many writes fail.
fn serve(stream: TcpStream, store: &Store, refuse: &Mutex<u32>) -> std::io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if line == "PING\r\n" {
            writer.write_all(b"+PONG\r\n")?;
            continue;
        }
        let mut parts = Vec::new();
        for _ in 0..line[1..].trim().parse::<usize>().unwrap() {
            line.clear();
            reader.read_line(&mut line)?;
            let mut part = vec![0; line[1..].trim().parse::<usize>().unwrap() + 2];
            reader.read_exact(&mut part)?;
            part.truncate(part.len() - 2);
            parts.push(part);
        }
        let mut store = store.lock().unwrap();
        if parts[0] == b"SET" {
            let mut refuse = refuse.lock().unwrap();
            if *refuse > 0 {
                *refuse -= 1;
                writer.write_all(b"-BUSY later\r\n")?;
                continue;
            }
            store.insert(parts[1].clone(), parts[2].clone());
            writer.write_all(b"+OK\r\n")?;
        } else if let Some(value) = store.get(&parts[1]) {
            let mut reply = format!("${}\r\n", value.len()).into_bytes();
            reply.extend_from_slice(value);
            reply.extend_from_slice(b"\r\n");
            // Two writes, so that replies arrive in pieces.
            let (first, second) = reply.split_at(reply.len() / 2);
            writer.write_all(first)?;
            writer.write_all(second)?;
        } else {
            writer.write_all(b"$-1\r\n")?;
        }
    }
}

fn server(refuse: u32) -> (String, Store) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let store = Store::default();
    let (shared, refuse) = (store.clone(), Arc::new(Mutex::new(refuse)));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (store, refuse) = (shared.clone(), refuse.clone());
            std::thread::spawn(move || serve(stream.unwrap(), &store, &refuse));
        }
    });
    (addr, store)
}

fn generator(addr: &str, keys: u64, value_size: usize) -> Generator<RespDriver> {
    let setup = Setup {
        connections: 3,
        depth: 4,
        keys,
        format: KeyFormat::new("k:", 0),
        values: Values::new(value_size),
        check: true,
    };
    Generator::open(RespDriver::new(addr), setup, |_| {
        KeyPicker::new(Distribution::Uniform, keys, 0.99, 1)
    })
    .unwrap()
}

fn plan(work: Work) -> Plan {
    Plan { work, rate: None, time: None, requests: None, progress: false }
}

#[test]
fn a_fill_stores_every_key_even_when_some_writes_are_refused() {
    let (addr, store) = server(7);
    let mut generator = generator(&addr, 500, 100);
    let filled = generator.run(plan(Work::Fill)).unwrap();
    assert_eq!(store.lock().unwrap().len(), 500);
    assert_eq!(filled.recorder.put.count, 500);
    assert_eq!(filled.recorder.errors["BUSY"], 7);
    let read = generator.run(Plan { requests: Some(2000), ..plan(Work::Mix(100)) }).unwrap();
    assert_eq!((read.recorder.get.count, read.recorder.get.missing), (2000, 0));
    assert_eq!(read.recorder.error_count(), 0);
}

#[test]
fn replies_larger_than_the_read_buffer_are_put_together() {
    let (addr, _store) = server(0);
    let mut generator = generator(&addr, 6, 3 * READ_BYTES + 17);
    generator.run(plan(Work::Fill)).unwrap();
    let read = generator.run(Plan { requests: Some(60), ..plan(Work::Mix(100)) }).unwrap();
    assert_eq!((read.recorder.get.count, read.recorder.error_count()), (60, 0));
}

#[test]
fn misses_and_wrong_values_are_told_apart() {
    let (addr, store) = server(0);
    let mut generator = generator(&addr, 1, 20);
    let read = |generator: &mut Generator<RespDriver>| {
        generator.run(Plan { requests: Some(1), ..plan(Work::Mix(100)) }).unwrap().recorder
    };
    assert_eq!(read(&mut generator).get.missing, 1);
    store.lock().unwrap().insert(b"k:000000000000".to_vec(), vec![0; 20]);
    assert_eq!(read(&mut generator).errors["wrong-content"], 1);
    store.lock().unwrap().insert(b"k:000000000000".to_vec(), vec![0; 21]);
    assert_eq!(read(&mut generator).errors["wrong-length"], 1);
}

#[test]
fn a_fixed_rate_sends_exactly_what_is_due() {
    let (addr, _store) = server(0);
    let mut generator = generator(&addr, 10, 10);
    let paced = Plan { rate: Some(5_000.0), requests: Some(500), ..plan(Work::Mix(50)) };
    let result = generator.run(paced).unwrap();
    assert_eq!(result.recorder.replies(), 500);
    // The 500th request starts 99.8 ms after the first; it cannot be faster.
    assert!(result.window >= Duration::from_micros(99_800), "{:?}", result.window);
    assert!(result.recorder.figures(Op::Get).unwrap().response_us.is_some());
}

#[test]
fn a_server_that_goes_away_ends_the_run_with_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut streams = Vec::new();
        for stream in listener.incoming().take(3) {
            let mut stream = stream.unwrap();
            stream.read_exact(&mut [0; 6]).unwrap();
            stream.write_all(b"+PONG\r\n").unwrap();
            streams.push(stream);
        }
    });
    let mut generator = generator(&addr, 10, 10);
    assert!(generator.run(plan(Work::Fill)).is_err());
}
