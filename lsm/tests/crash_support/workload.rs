//! Writers, readers and maintenance that run until somebody pulls the plug.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use coronet_lsm::env::{Env, TaskClass};
use coronet_lsm::{
    Durability, Engine, Error, Keyspace, KeyspaceId, KeyspaceOptions, Millis, WriteBatch,
};
use coronet_sim::{Rng, SimEnv};

use super::model::{Model, Stored};
use super::visitor::VISITOR;
use super::{DEFAULT_TTL, KEYSPACES, name, now, policy, scan_all, scan_one};

/// One life of an engine under load.
pub struct Workload {
    env: SimEnv,
    pub engine: Engine<SimEnv>,
    model: Rc<RefCell<Model>>,
    rng: RefCell<Rng>,
    keys: u64,
    /// Where keys come from, where they lie together in time: most tables meet few others then.
    window: Option<Cell<u64>>,
    /// Writes to several keyspaces, with expiries.
    pub wide: bool,
    stop: Cell<bool>,
    running: Cell<usize>,
    unanswered: Cell<usize>,
    /// The newest refusal of a write.
    pub refused: RefCell<Option<Error>>,
    /// Errors of reads are expected (faults are switched on).
    pub read_errors_allowed: Cell<bool>,
}

/// A value nobody else writes: its number in clear, then pseudo-random bytes that follow from it.
pub fn value(number: u64, op: usize, len: usize) -> Vec<u8> {
    let mut value = format!("{number}.{op}:").into_bytes();
    let start = value.len();
    value.resize(start.max(len), 0);
    Rng::new(number ^ (op as u64) << 48).fill(&mut value[start..]);
    value
}

impl Workload {
    /// A workload of the default keyspace alone, without expiries.
    pub fn new(
        env: &SimEnv,
        engine: Engine<SimEnv>,
        model: &Rc<RefCell<Model>>,
        rng: Rng,
    ) -> Rc<Self> {
        Self::with(env, engine, model, rng, false)
    }

    /// A workload; a wide one needs all of `super::KEYSPACES`.
    pub fn with(
        env: &SimEnv,
        engine: Engine<SimEnv>,
        model: &Rc<RefCell<Model>>,
        mut rng: Rng,
        wide: bool,
    ) -> Rc<Self> {
        let near = rng.below(3) == 0;
        let keys = if near { rng.range(500, 4_000) } else { rng.range(5, 200) };
        Rc::new(Workload {
            env: env.clone(),
            engine,
            model: Rc::clone(model),
            rng: RefCell::new(rng),
            keys,
            window: near.then(Cell::default),
            wide,
            stop: Cell::new(false),
            running: Cell::new(0),
            unanswered: Cell::new(0),
            refused: RefCell::new(None),
            read_errors_allowed: Cell::new(false),
        })
    }

    /// Starts writers, a reader and maintenance.
    pub fn start(self: &Rc<Self>) {
        for _ in 0..self.below(3) + 1 {
            self.spawn(|this| async move { this.write_until_stopped().await });
        }
        self.spawn(|this| async move { this.read_until_stopped().await });
        self.spawn(|this| async move { this.maintain_until_stopped().await });
        if self.wide {
            self.spawn(|this| async move { this.come_and_go_until_stopped().await });
        }
    }

    /// Ends the tasks after what they are at.
    pub async fn stop(&self) {
        self.stop.set(true);
        while self.running.get() > 0 || self.unanswered.get() > 0 {
            self.env.sleep(Duration::from_millis(1)).await;
        }
    }

    fn spawn<F: Future<Output = ()> + 'static>(self: &Rc<Self>, task: impl FnOnce(Rc<Self>) -> F) {
        self.running.set(self.running.get() + 1);
        let (this, task) = (Rc::clone(self), task(Rc::clone(self)));
        self.env.spawn(TaskClass::Foreground, async move {
            task.await;
            this.running.set(this.running.get() - 1);
        });
    }

    fn below(&self, bound: u64) -> u64 {
        self.rng.borrow_mut().below(bound)
    }

    fn keyspace(&self) -> KeyspaceId {
        if self.wide { KEYSPACES[self.below(3) as usize] } else { KeyspaceId::DEFAULT }
    }

    fn key(&self) -> Vec<u8> {
        let number = match &self.window {
            Some(window) => {
                if self.below(60) == 0 {
                    window.set(self.below(self.keys));
                }
                window.get() + self.below(40)
            }
            None => self.below(self.keys),
        };
        // Keys of different lengths that share prefixes.
        let tail = if number.is_multiple_of(3) { "/with/a/longer/tail" } else { "" };
        format!("key/{number:05}{tail}").into_bytes()
    }

    async fn pause(&self, max_micros: u64) {
        let pause = Duration::from_micros(self.below(max_micros));
        self.env.sleep(pause).await;
    }

    async fn write_until_stopped(self: Rc<Self>) {
        let pipelined = self.below(2) == 0;
        while !self.stop.get() {
            match self.write_one() {
                Ok(answer) if pipelined => {
                    let this = Rc::clone(&self);
                    self.unanswered.set(self.unanswered.get() + 1);
                    self.env.spawn(TaskClass::Foreground, async move {
                        answer.await;
                        this.unanswered.set(this.unanswered.get() - 1);
                    });
                    self.pause(200).await;
                }
                Ok(answer) => {
                    answer.await;
                    self.pause(30).await;
                }
                Err(error) => {
                    let wait = match error {
                        Error::Busy { retry_after_ms } => u64::from(retry_after_ms).max(1),
                        _ => 5,
                    };
                    *self.refused.borrow_mut() = Some(error);
                    self.env.sleep(Duration::from_millis(wait)).await;
                }
            }
        }
    }

    /// Writes one batch; the future completes when it is answered and noted.
    pub fn write_one(self: &Rc<Self>) -> Result<impl Future<Output = ()> + 'static, Error> {
        let number = self.model.borrow().total;
        let mut batch = WriteBatch::new();
        let mut ops = Vec::new();
        let count = if self.below(4) == 0 { 1 + self.below(12) } else { 1 };
        for op in 0..count as usize {
            let (keyspace, key) = (self.keyspace(), self.key());
            let name = name(keyspace, &key);
            batch.in_keyspace(keyspace);
            if self.below(5) == 0 {
                batch.delete(&key);
                ops.push((name, None));
                continue;
            }
            let max = if self.below(8) == 0 { 6000 } else { 300 };
            let value = value(number, op, self.below(max) as usize);
            let now = now(&self.env);
            let mut until = Millis(u64::MAX);
            if self.wide && self.below(3) == 0 {
                until = Millis(now.0 + self.below(60));
                batch.put_until(&key, &value, until);
            } else {
                if keyspace == KEYSPACES[2] {
                    until = Millis(now.0 + DEFAULT_TTL.as_millis() as u64);
                }
                batch.put(&key, &value);
            }
            ops.push((name, Some(Stored { value, until })));
        }
        let durability =
            if self.below(2) == 0 { Durability::Durable } else { Durability::Buffered };
        let commit = self.engine.write(&batch, durability)?;
        let at = self.model.borrow_mut().wrote(ops, durability, commit.seq());
        let model = Rc::clone(&self.model);
        Ok(async move {
            let answer = commit.await;
            model.borrow_mut().answered(at, answer);
        })
    }

    async fn read_until_stopped(self: Rc<Self>) {
        while !self.stop.get() {
            match self.below(20) {
                0 => self.read_scan().await,
                1..=3 => self.read_many().await,
                _ => self.read_one().await,
            }
            self.pause(300).await;
        }
    }

    fn accept_read_error(&self, error: &Error) {
        assert!(self.read_errors_allowed.get(), "read failed: {error}");
    }

    async fn read_one(&self) {
        let (keyspace, key) = (self.keyspace(), self.key());
        let (committed, now) = (self.model.borrow().committed(), now(&self.env));
        let handle = self.engine.keyspace(keyspace).expect("the keyspace stays");
        match handle.get(&key).await {
            Ok(value) => {
                let name = name(keyspace, &key);
                self.model.borrow_mut().check_get(&name, value.as_deref(), committed, now);
            }
            Err(error) => self.accept_read_error(&error),
        }
    }

    async fn read_many(&self) {
        let keyspace = self.keyspace();
        let keys: Vec<Vec<u8>> = (0..8).map(|_| self.key()).collect();
        let (committed, now) = (self.model.borrow().committed(), now(&self.env));
        let handle = self.engine.keyspace(keyspace).expect("the keyspace stays");
        match handle.multi_get(&keys).await {
            Ok(values) => {
                assert_eq!(values.len(), keys.len());
                for (key, value) in keys.iter().zip(values) {
                    let name = name(keyspace, key);
                    self.model.borrow_mut().check_get(&name, value.as_deref(), committed, now);
                }
            }
            Err(error) => self.accept_read_error(&error),
        }
    }

    async fn read_scan(&self) {
        // Batches that enter the log while the view is read may not be in it; they are no prefix
        // that fits either.
        let (from, now) = (self.model.borrow().committed(), now(&self.env));
        match scan_all(&self.engine).await {
            Ok(contents) => {
                let model = self.model.borrow();
                model.check_scan(&contents, from, model.len(), now);
            }
            Err(error) => self.accept_read_error(&error),
        }
    }

    async fn maintain_until_stopped(self: Rc<Self>) {
        while !self.stop.get() {
            self.pause(40_000).await;
            // Faults may make either fail; what counts is what is left afterwards.
            let done = match self.below(8) {
                0 => {
                    let policy = policy(&mut self.rng.borrow_mut());
                    self.engine.set_policy(policy).await
                }
                1 | 2 => self.engine.compact().await,
                3 if self.wide => self.alter().await,
                _ => self.engine.flush().await,
            };
            if let Err(error) = done {
                self.accept_read_error(&error);
            }
        }
    }

    /// Gives a keyspace other sizes.
    async fn alter(&self) -> coronet_lsm::Result<()> {
        let options = KeyspaceOptions {
            memtable_percent: Some(20 + self.below(80) as u32),
            block_bytes: Some(1 << (9 + self.below(4))),
            filter_prefix_bytes: Some(self.below(16) as u32),
            ..KeyspaceOptions::default()
        };
        self.engine.alter_keyspace(KEYSPACES[1], options).await
    }

    /// Creates, fills, checks and drops a keyspace, again and again. Every life of the keyspace
    /// has a number, and its entries carry it.
    async fn come_and_go_until_stopped(self: Rc<Self>) {
        while !self.stop.get() {
            self.pause(20_000).await;
            let done = match self.engine.keyspace(VISITOR) {
                Ok(_) if self.below(2) == 0 => {
                    self.model.borrow_mut().visitor.leaves();
                    let dropped = self.engine.drop_keyspace(VISITOR).await;
                    dropped.map(|()| self.model.borrow_mut().visitor.left())
                }
                Ok(keyspace) => self.visit(&keyspace).await,
                Err(_) => {
                    self.model.borrow_mut().visitor.comes();
                    let options = KeyspaceOptions::default();
                    match self.engine.create_keyspace(VISITOR, options).await {
                        // A drop failed before.
                        Err(Error::Keyspace { .. }) => Ok(()),
                        created => created.map(|_| self.model.borrow_mut().visitor.came()),
                    }
                }
            };
            if let Err(error) = done {
                self.accept_read_error(&error);
            }
        }
    }

    async fn visit(&self, keyspace: &Keyspace<SimEnv>) -> coronet_lsm::Result<()> {
        for _ in 0..self.below(6) {
            let key = self.key();
            let life = self.model.borrow().visitor.life();
            let commit = match keyspace.put(&key, life.as_bytes()) {
                Err(Error::Busy { .. }) => break,
                written => written?,
            };
            if commit.await.is_ok() {
                self.model.borrow_mut().visitor.wrote(key);
            }
        }
        let found = scan_one(keyspace).await?;
        self.model.borrow().visitor.check(Some(&found));
        Ok(())
    }
}
