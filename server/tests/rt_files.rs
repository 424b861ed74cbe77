//! The file side of the runtime on a real disk.
#![allow(clippy::unwrap_used, clippy::type_complexity)] // a failure here is the test's failure

use std::future::{Future, poll_fn};
use std::io;
use std::path::Path;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use coronet_lsm::env::{AlignedBuf, Env, File, OpenMode, PAGE, TaskClass};
use coronet_server::rt::{self, CoresConfig, RtEnv};

/// Runs `test` on one core and returns what it returns.
fn on_core<F, Fut, T>(test: F) -> T
where
    F: FnOnce(RtEnv) -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let mut test = Some(test);
    let cores = rt::executor::start_each(&CoresConfig::first(1), |_| {
        let test = test.take().unwrap();
        |context| test(context.env)
    })
    .unwrap();
    cores.join().pop().unwrap().unwrap()
}

fn pattern(pages: usize, salt: u8) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(pages * PAGE);
    for (at, byte) in buf.iter_mut().enumerate() {
        *byte = (at / 7) as u8 ^ salt;
    }
    buf
}

/// Polls a future exactly once.
async fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[test]
fn what_is_written_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/er/file");
    on_core(|env| async move {
        let folder = path.parent().unwrap();
        env.create_dir_all(folder).await.unwrap();
        env.create_dir_all(folder).await.unwrap();
        let file = env.open(&path, OpenMode::CreateNew).await.unwrap();
        let taken = env.open(&path, OpenMode::CreateNew).await.err().unwrap();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        assert!(file.read_at(0, PAGE).await.unwrap().is_empty());

        let written = pattern(9, 3);
        let (result, back) = file.write_at(PAGE as u64, written.clone()).await;
        result.unwrap();
        assert_eq!(&back[..], &written[..]);
        file.sync().await.unwrap();
        env.sync_dir(folder).await.unwrap();
        assert_eq!(file.len().await.unwrap(), 10 * PAGE as u64);
        assert_eq!(&file.read_at(PAGE as u64, 9 * PAGE).await.unwrap()[..], &written[..]);
        // Across the end: what there is. Behind it: nothing.
        assert_eq!(file.read_at(9 * PAGE as u64, 8 * PAGE).await.unwrap().len(), PAGE);
        assert!(file.read_at(64 * PAGE as u64, PAGE).await.unwrap().is_empty());

        file.set_len(32 * PAGE as u64).await.unwrap();
        let zeros = file.read_at(10 * PAGE as u64, 22 * PAGE).await.unwrap();
        assert!(zeros.len() == 22 * PAGE && zeros.iter().all(|byte| *byte == 0));
        file.set_len(PAGE as u64).await.unwrap();
        assert_eq!(file.len().await.unwrap(), PAGE as u64);
    });
}

#[test]
fn names_change_as_asked() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_owned();
    on_core(|env| async move {
        let at = |name: &str| root.join(name);
        for name in ["b", "a"] {
            env.open(&at(name), OpenMode::CreateNew).await.unwrap();
        }
        env.link(&at("a"), &at("c")).await.unwrap();
        env.rename(&at("a"), &at("d")).await.unwrap();
        env.rename(&at("d"), &at("b")).await.unwrap();
        let missing = [
            env.open(Path::new("/nowhere/at/all"), OpenMode::Read).await.err().unwrap(),
            env.remove(&at("nothing")).await.unwrap_err(),
            env.list(&at("nothing")).await.unwrap_err(),
        ];
        assert!(missing.iter().all(|error| error.kind() == io::ErrorKind::NotFound));
        env.remove(&at("c")).await.unwrap();
        env.create_dir_all(&at("e")).await.unwrap();
        assert!(env.create_dir_all(&at("b/x")).await.is_err());
        assert_eq!(env.list(&root).await.unwrap().last(), Some(&at("e")));
        env.remove_dir(&at("e")).await.unwrap();
        env.remove(&at("b")).await.unwrap();
        assert_eq!(env.list(&root).await.unwrap().len(), 0);
    });
}

#[test]
fn dropping_operations_in_flight_frees_nothing_the_kernel_uses() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dropped-in-flight");
    on_core(|env| async move {
        let file = env.open(&path, OpenMode::CreateNew).await.unwrap();
        file.write_at(0, pattern(256, 1)).await.0.unwrap();
        for round in 0..200u8 {
            assert!(poll_once(file.read_at(0, 256 * PAGE)).await.is_none());
            assert!(
                poll_once(file.write_at(512 * PAGE as u64, pattern(16, round))).await.is_none()
            );
            assert!(poll_once(env.open(&path, OpenMode::Read)).await.is_none());
            // Memory of the same sizes is handed out at once; the kernel must not scribble on it.
            let canary = pattern(256, round);
            env.sleep(Duration::from_micros(50)).await;
            assert_eq!(&canary[..], &pattern(256, round)[..]);
        }
        assert_eq!(&file.read_at(0, 256 * PAGE).await.unwrap()[..], &pattern(256, 1)[..]);
    });
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten().filter(|fd| {
        std::fs::read_link(fd.path()).is_ok_and(|to| to.ends_with("dropped-in-flight"))
    });
    assert_eq!(open.count(), 0, "descriptors leaked");
}

#[test]
fn many_operations_and_tasks_overlap() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    on_core(|env| async move {
        let file = env.open(&path, OpenMode::CreateNew).await.unwrap();
        let pages = 2000; // several times the ring's depth
        let writes = (0..pages).map(|page| {
            let file = file.clone();
            async move { file.write_at((page * PAGE) as u64, pattern(1, page as u8)).await.0 }
        });
        for result in futures_util::future::join_all(writes).await {
            result.unwrap();
        }
        file.sync().await.unwrap();
        let (send, receive) = std::sync::mpsc::channel();
        for page in 0..pages {
            let (env, file, send) = (env.clone(), file.clone(), send.clone());
            let class = [TaskClass::Foreground, TaskClass::Flush, TaskClass::Compaction][page % 3];
            env.clone().spawn(class, async move {
                let got = file.read_at((page * PAGE) as u64, PAGE).await.unwrap();
                env.coop().await;
                send.send(got[..] == pattern(1, page as u8)[..]).unwrap();
            });
        }
        drop(send);
        let mut seen = 0;
        while seen < pages {
            while let Ok(equal) = receive.try_recv() {
                assert!(equal);
                seen += 1;
            }
            env.sleep(Duration::from_micros(200)).await;
        }
    });
}
