//! The simulator's own promises: one seed one history, crashes lose only what was not synced,
//! faults are reported where they should be.
#![allow(clippy::unwrap_used)] // outside #[test] functions too: a helper that fails fails the test

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use coronet_lsm::env::{AlignedBuf, Env, File, OpenMode, PAGE, TaskClass};
use coronet_sim::{Faults, Sim, SimEnv, SimFile};

fn page(byte: u8) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(PAGE);
    buf.fill(byte);
    buf
}

async fn create(env: &SimEnv, path: &str) -> SimFile {
    env.open(Path::new(path), OpenMode::CreateNew).await.unwrap()
}

/// Several tasks that sleep, yield and write; their order of completion is the history.
fn history(seed: u64) -> (u64, Vec<u64>) {
    let sim = Sim::new(seed);
    let env = sim.node_env("a");
    let order = Rc::new(RefCell::new(Vec::new()));
    for task in 0..8u64 {
        let (env, order) = (env.clone(), Rc::clone(&order));
        env.clone().spawn(TaskClass::Background, async move {
            let file = create(&env, &format!("/{task}")).await;
            for _ in 0..5 {
                env.sleep(Duration::from_micros(env.random() % 100)).await;
                env.coop().await;
                file.write_at(0, page(1)).await.0.unwrap();
                order.borrow_mut().push(task);
            }
            file.sync().await.unwrap();
        });
    }
    sim.run_for(Duration::from_millis(1));
    let env = sim.crash(&env);
    sim.note(env.disk().files().len() as u64, 0);
    let order = order.borrow().clone();
    (sim.trace_hash(), order)
}

#[test]
fn same_seed_same_history_and_different_seeds_differ() {
    let mut hashes = BTreeSet::new();
    let mut orders = BTreeSet::new();
    for seed in 0..20 {
        let first = history(seed);
        assert_eq!(first, history(seed), "seed={seed}");
        hashes.insert(first.0);
        orders.insert(first.1);
    }
    assert_eq!(hashes.len(), 20);
    assert!(orders.len() > 15, "only {} different orders", orders.len());
}

#[test]
fn time_is_virtual_and_timers_fire_in_order() {
    let sim = Sim::new(1);
    let env = sim.node_env("a");
    let (start, wall) = (env.now(), env.wall_micros());
    sim.block_on(env.sleep(Duration::from_secs(3600)));
    let passed = env.now().since(start);
    assert!(passed >= Duration::from_secs(3600) && passed < Duration::from_secs(3601));
    assert!(env.wall_micros() - wall >= 3_600_000_000);
    env.set_wall_offset(-7_200_000_000);
    assert!(env.wall_micros() < wall);
}

#[test]
#[should_panic(expected = "seed=5: deadlock")]
fn deadlock_is_reported_with_the_seed() {
    Sim::new(5).block_on(std::future::pending::<()>());
}

#[test]
fn a_cancelled_sleep_does_not_hold_the_clock() {
    let sim = Sim::new(1);
    let env = sim.node_env("a");
    sim.block_on(async {
        let long = Box::pin(env.sleep(Duration::from_secs(1000)));
        let short = Box::pin(env.sleep(Duration::from_millis(1)));
        drop(futures_util::future::select(long, short).await);
    });
    assert_eq!(sim.run_events(100), 0);
    assert!(sim.elapsed() < Duration::from_secs(1));
}

#[test]
fn crash_drops_tasks_of_that_node_only_and_kills_old_handles() {
    let sim = Sim::new(2);
    let (a, b) = (sim.node_env("a"), sim.node_env("b"));
    let counts = Rc::new((Cell::new(0), Cell::new(0)));
    for (env, second) in [(a.clone(), false), (b.clone(), true)] {
        let counts = Rc::clone(&counts);
        env.clone().spawn(TaskClass::Foreground, async move {
            loop {
                env.sleep(Duration::from_millis(1)).await;
                let count = if second { &counts.1 } else { &counts.0 };
                count.set(count.get() + 1);
            }
        });
    }
    let file = sim.block_on(create(&a, "/f"));
    sim.run_for(Duration::from_millis(10));
    let before = counts.0.get();
    let again = sim.crash(&a);
    sim.run_for(Duration::from_millis(10));
    assert_eq!(counts.0.get(), before);
    assert!(counts.1.get() > before);
    assert!(!a.is_alive() && again.is_alive() && a.restart().is_alive());
    assert!(sim.block_on(file.sync()).is_err());
    assert!(sim.block_on(a.list(Path::new("/"))).is_err());
    assert!(sim.block_on(again.list(Path::new("/"))).is_ok());
}

#[test]
fn a_task_may_crash_its_own_node() {
    let sim = Rc::new(Sim::new(3));
    let env = sim.node_env("a");
    let reached = Rc::new(Cell::new(0));
    let (inside, world, node) = (Rc::clone(&reached), Rc::clone(&sim), env.clone());
    env.spawn(TaskClass::Foreground, async move {
        inside.set(1);
        world.crash(&node);
        node.coop().await;
        node.sleep(Duration::from_millis(1)).await;
        inside.set(2);
    });
    sim.run_for(Duration::from_secs(1));
    assert_eq!(reached.get(), 1);
}

#[test]
fn synced_bytes_and_names_survive_and_others_may_not() {
    let (mut data_lost, mut name_lost, mut all_kept) = (false, false, false);
    for seed in 0..100 {
        let sim = Sim::new(seed);
        let env = sim.node_env("a");
        sim.block_on(async {
            let synced = create(&env, "/synced").await;
            synced.write_at(0, page(1)).await.0.unwrap();
            synced.sync().await.unwrap();
            env.sync_dir(Path::new("/")).await.unwrap();
            synced.write_at(PAGE as u64, page(2)).await.0.unwrap();
            let nameless = create(&env, "/nameless").await;
            nameless.write_at(0, page(3)).await.0.unwrap();
            nameless.sync().await.unwrap();
        });
        let env = sim.crash(&env);
        let bytes = env.disk().read_raw(Path::new("/synced")).unwrap();
        assert_eq!(bytes[..PAGE], page(1)[..], "seed={seed}");
        let rest = &bytes[PAGE..];
        assert!(rest.iter().all(|b| *b == 0 || *b == 2), "seed={seed}");
        let data_kept = rest.len() == PAGE && rest.iter().all(|b| *b == 2);
        let named = env.disk().read_raw(Path::new("/nameless"));
        if let Ok(bytes) = &named {
            assert_eq!(bytes[..], page(3)[..], "data was synced, only its name was not");
        }
        data_lost |= !data_kept;
        name_lost |= named.is_err();
        all_kept |= data_kept && named.is_ok();
    }
    assert!(data_lost && name_lost && all_kept);
}

#[test]
fn a_killed_process_loses_no_completed_write() {
    for seed in 0..50 {
        let sim = Sim::new(seed);
        let env = sim.node_env("a");
        let node = env.clone();
        env.spawn(TaskClass::Foreground, async move {
            let file = create(&node, "/f").await;
            file.write_at(0, page(1)).await.0.unwrap();
            node.spawn(TaskClass::Foreground, async move {
                drop(file.write_at(PAGE as u64, page(2)).await);
            });
            std::future::pending::<()>().await;
        });
        while env.disk().stats().writes == 0 {
            sim.run_events(1);
        }
        sim.run_events(2);
        let env = sim.kill(&env);
        let bytes = env.disk().read_raw(Path::new("/f")).unwrap();
        assert_eq!(bytes[..PAGE], page(1)[..]);
        assert!(bytes[PAGE..].iter().all(|b| *b == 2));
    }
}

#[test]
fn hard_links_share_bytes_and_outlive_the_first_name() {
    let sim = Sim::new(4);
    let env = sim.node_env("a");
    sim.block_on(async {
        let file = create(&env, "/one").await;
        env.link(Path::new("/one"), Path::new("/two")).await.unwrap();
        file.write_at(0, page(9)).await.0.unwrap();
        drop(file);
        env.remove(Path::new("/one")).await.unwrap();
        let two = env.open(Path::new("/two"), OpenMode::Read).await.unwrap();
        assert_eq!(two.read_at(0, PAGE).await.unwrap()[..], page(9)[..]);
        let denied = two.write_at(0, page(1)).await.0.unwrap_err();
        assert_eq!(denied.kind(), io::ErrorKind::PermissionDenied);
    });
    assert_eq!(env.disk().files().len(), 1);
}

#[test]
fn reads_end_with_the_file_and_lengths_may_be_odd() {
    let sim = Sim::new(4);
    let env = sim.node_env("a");
    sim.block_on(async {
        let file = create(&env, "/f").await;
        file.set_len(PAGE as u64 + 100).await.unwrap();
        assert_eq!(file.len().await.unwrap(), PAGE as u64 + 100);
        assert_eq!(file.read_at(0, 3 * PAGE).await.unwrap().len(), PAGE + 100);
        assert_eq!(file.read_at(8 * PAGE as u64, PAGE).await.unwrap().len(), 0);
    });
}

#[test]
#[should_panic(expected = "direct I/O")]
fn unaligned_access_is_a_bug_of_the_caller() {
    let sim = Sim::new(4);
    let env = sim.node_env("a");
    sim.block_on(async {
        let file = create(&env, "/f").await;
        drop(file.read_at(100, PAGE).await);
    });
}

#[test]
fn faults_are_reported_and_counted() {
    let sim = Sim::new(6);
    let env = sim.node_env("a");
    sim.block_on(async {
        let file = create(&env, "/f").await;
        file.write_at(0, page(1)).await.0.unwrap();
        let always = 1_000_000;
        env.disk().set_faults(Faults {
            read_error: always,
            write_error: always,
            sync_error: always,
            ..Faults::none()
        });
        assert!(file.read_at(0, PAGE).await.is_err());
        assert!(file.write_at(0, page(2)).await.0.is_err());
        assert!(file.sync().await.is_err());
        assert!(env.sync_dir(Path::new("/")).await.is_err());
        env.disk().set_faults(Faults { bit_flip: always, ..Faults::none() });
        file.write_at(0, page(0)).await.0.unwrap();
        let ones: u32 = file.read_at(0, PAGE).await.unwrap().iter().map(|b| b.count_ones()).sum();
        assert_eq!(ones, 1);
        let only = Some("/other".to_owned());
        env.disk().set_faults(Faults { read_error: always, only, ..Faults::none() });
        file.read_at(0, PAGE).await.unwrap();
    });
    assert_eq!(env.disk().stats().faults, 5);
}

#[test]
fn a_full_disk_refuses_growth_only_and_frees_what_is_removed() {
    let sim = Sim::new(7);
    let env = sim.node_env("a");
    sim.block_on(async {
        let capacity = Some(2 * PAGE as u64);
        env.disk().set_faults(Faults { capacity, ..Faults::none() });
        let (a, b) = (create(&env, "/a").await, create(&env, "/b").await);
        a.write_at(0, page(1)).await.0.unwrap();
        b.write_at(0, page(1)).await.0.unwrap();
        let full = b.write_at(PAGE as u64, page(1)).await.0.unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        assert_eq!(b.len().await.unwrap(), PAGE as u64);
        b.write_at(0, page(2)).await.0.unwrap();
        drop(a);
        env.remove(Path::new("/a")).await.unwrap();
        b.write_at(PAGE as u64, page(1)).await.0.unwrap();
    });
    assert_eq!(env.disk().used(), 2 * PAGE as u64);
}

#[test]
fn images_restore_bytes_and_flips_change_them() {
    let sim = Sim::new(8);
    let env = sim.node_env("a");
    let path = Path::new("/f");
    sim.block_on(async {
        let file = create(&env, "/f").await;
        file.write_at(0, page(1)).await.0.unwrap();
        file.sync().await.unwrap();
        env.sync_dir(Path::new("/")).await.unwrap();
    });
    let env = sim.crash(&env);
    let image = env.disk().image();
    env.disk().flip(path, 10, 0x80).unwrap();
    assert_eq!(env.disk().read_raw(path).unwrap()[10], 0x81);
    env.disk().write_raw(path, vec![5; 3]).unwrap();
    assert_eq!(env.disk().read_raw(path).unwrap(), [5; 3]);
    env.disk().restore(&image);
    assert_eq!(env.disk().read_raw(path).unwrap()[..], page(1)[..]);
}

#[test]
fn time_passes_although_nothing_happens() {
    let sim = Sim::new(1);
    for _ in 0..3 {
        let before = sim.elapsed();
        sim.run_for(Duration::from_millis(20));
        assert_eq!(sim.elapsed() - before, Duration::from_millis(20));
    }
}
