//! A node's life on this machine: check, open the data folder, start the cores, serve, end.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use coronet_lsm::{Durability, Options};
use coronet_net::Limits as WireLimits;
use coronet_ring::PartitionMap;
use coronet_ring::coordinate::message::Durability as ReplicaDurability;
use coronet_ring::gossip::keyspace::Keyspace;
use coronet_ring::gossip::member::{Member, Newness, Standing};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{DaemonError, prefault, requirements};
use crate::config::{Config, ControlCore, memory};
use crate::data_dir::{DataDir, Wanted};
use crate::node::{
    Alone, BlindWrites, Cluster, ClusterConfig, Control, CoreId, Limits, NodeCore, Shard,
    ShardConfig, read_cluster_view, read_keyspaces,
};
use crate::rt::check::{Prepared, prepare};
use crate::rt::executor::available_cpus;
use crate::rt::{self, CoreContext, CoresConfig, RtEnv, ServeOptions, Stopper};

/// Bytes of a stored object beyond its value: vector, dots, token.
const OBJECT_OVERHEAD: usize = 64 << 10;

/// What a node says once it serves.
#[derive(Debug)]
pub(super) struct Ready {
    /// Where clients connect.
    pub clients: SocketAddr,
    /// The data folder.
    pub data_dir: PathBuf,
}

/// Everything the cores' threads need to know.
struct Plan {
    data: DataDir,
    dir: PathBuf,
    /// The keyspaces of a node in no cluster.
    keyspaces: Vec<Keyspace>,
    shard: ShardConfig,
    /// CPUs by core; the last one may be the control core's.
    cpus: Vec<usize>,
    data_cores: u16,
    connections: usize,
    listener: Mutex<Option<TcpListener>>,
    peers: Mutex<Option<TcpListener>>,
    cluster: Option<ClusterConfig>,
    opened: AtomicUsize,
    closed: AtomicUsize,
    /// A core writes under another incarnation than the folder's.
    renamed: AtomicBool,
    ready: mpsc::Sender<()>,
}

/// Runs a node until a signal ends it. `announce` is called once it serves.
pub(super) fn node(config: &Config, announce: impl FnOnce(&Ready)) -> Result<(), DaemonError> {
    let dir = config.data_dir.clone().ok_or(DaemonError::NoDataDir)?;
    let mut cpus = config.data_cores.choose(&available_cpus(), config.control_core);
    let data_cores = cpus.len().max(config.data_cores.at_least());
    if let ControlCore::Cpu(cpu) = config.control_core {
        cpus.push(cpu);
    }
    let Prepared { listener, peers, lock } = prepare(&requirements(config, dir.clone()))?;
    if let Some(shortfall) = config.cluster.shortfall() {
        eprintln!("coronetd: {shortfall}");
    }
    prefault::start();
    let data_cores = u16::try_from(data_cores).unwrap_or(u16::MAX);
    let Opened { data, view, keyspaces } = open_data_dir(config, &dir, data_cores, &cpus)?;
    let clients = listener.as_ref().and_then(|socket| socket.local_addr().ok());
    let clients = clients.unwrap_or(config.clients);
    let (ready, is_ready) = mpsc::channel();
    let plan = Arc::new(Plan {
        cluster: config
            .cluster
            .is_clustered()
            .then(|| cluster_config(config, &data, &dir, clients, view)),
        shard: shard_config(config, &data, clients.port()),
        data,
        dir: dir.clone(),
        keyspaces,
        cpus,
        data_cores,
        connections: usize::try_from(config.max_connections).unwrap_or(usize::MAX),
        listener: Mutex::new(listener),
        peers: Mutex::new(peers),
        opened: AtomicUsize::new(0),
        closed: AtomicUsize::new(0),
        renamed: AtomicBool::new(false),
        ready,
    });
    let ended = run_cores(&plan, &is_ready, || {
        log_ready(&plan, clients, &dir);
        announce(&Ready { clients, data_dir: dir.clone() });
    });
    drop(lock);
    ended
}

/// What the data folder has for the start.
struct Opened {
    data: DataDir,
    /// What was known of the cluster.
    view: Option<Vec<u8>>,
    keyspaces: Vec<Keyspace>,
}

/// Opens the data folder on an executor of its own, before any core starts.
fn open_data_dir(
    config: &Config,
    dir: &Path,
    cores: u16,
    cpus: &[usize],
) -> Result<Opened, DaemonError> {
    let wanted = Wanted {
        cores,
        partitions: config.partitions,
        clustered: config.cluster.is_clustered(),
        engine: options(config, cores),
    };
    let path = dir.to_owned();
    let first = CoresConfig { cpus: cpus.iter().copied().take(1).collect() };
    let opened = rt::executor::start(&first, move |context: CoreContext| async move {
        let data = DataDir::open(&context.env, &path, &wanted).await?;
        let view = read_cluster_view(&context.env, &path).await;
        let view = view.map_err(DaemonError::ClusterView)?;
        let keyspaces = read_keyspaces(&context.env, &path).await;
        let keyspaces = keyspaces.map_err(DaemonError::Keyspaces)?;
        Ok::<_, DaemonError>(Opened { data, view, keyspaces })
    })?;
    let mut opened_data = None;
    for result in opened.join() {
        opened_data = Some(result??);
    }
    let opened = opened_data.ok_or(crate::rt::RtError::Cores(0))?;
    let data = &opened.data;
    if let Some(before) = data.changed_from {
        eprintln!("coronetd: changed from {before} to {cores} data cores");
    }
    let stored = data.identity().partitions;
    if stored != config.partitions {
        eprintln!(
            "coronetd: the data folder has {stored} partitions and keeps them; the setting says {}",
            config.partitions
        );
    }
    Ok(opened)
}

/// The node's part in its cluster.
fn cluster_config(
    config: &Config,
    data: &DataDir,
    dir: &Path,
    clients: SocketAddr,
    stored: Option<Vec<u8>>,
) -> ClusterConfig {
    let (settings, identity) = (&config.cluster, data.identity());
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let me = Member {
        id: identity.node_id,
        newness: Newness { generation: since.as_secs().max(1), ..Newness::default() },
        incarnation: identity.incarnation,
        standing: Standing::Up,
        client_address: clients.to_string(),
        peer_address: settings.reached_at(config).to_string(),
        rack: settings.rack.clone(),
        weight: 1,
        cores: identity.cores,
    };
    let shard = shard_config(config, data, clients.port());
    let to_u32 = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    ClusterConfig {
        founding: settings.founding(identity.partitions),
        me,
        stored,
        replicas: settings.n(),
        replicas_asked: settings.replicas,
        mode: settings.mode,
        durability: match shard.durability {
            Durability::Durable => ReplicaDurability::Durable,
            Durability::Buffered => ReplicaDurability::Buffered,
        },
        blind_replaces: config.blind_writes == BlindWrites::Replace,
        dir: dir.to_owned(),
        secret: settings.secret(),
        limits: WireLimits::new(to_u32(shard.limits.key_bytes), to_u32(shard.limits.value_bytes)),
    }
}

/// The engine of one of `cores` data cores.
fn options(config: &Config, cores: u16) -> Options {
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let cache = config.cache_bytes.unwrap_or_else(memory::default_cache);
    Options {
        memtable_bytes: bytes(config.memtable_bytes),
        cache_bytes: bytes(cache / u64::from(cores.max(1))),
        sync_interval: config.sync_interval,
        max_value_bytes: bytes(config.max_value_bytes) + OBJECT_OVERHEAD,
        ..Options::default()
    }
}

fn shard_config(config: &Config, data: &DataDir, port: u16) -> ShardConfig {
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let identity = data.identity();
    let defaults = Limits::default();
    let limits = Limits {
        key_bytes: bytes(config.max_key_bytes),
        value_bytes: bytes(config.max_value_bytes),
        in_flight: bytes(config.max_in_flight),
        in_flight_bytes: defaults.in_flight_bytes.max(bytes(config.max_value_bytes) * 2),
        output_bytes: bytes(config.max_output_bytes),
        idle: config.idle,
        commit_wait: config.commit_wait,
        ..defaults
    };
    let (node_id, incarnation) = (identity.node_id, identity.incarnation);
    let clustered = config.cluster.is_clustered();
    ShardConfig {
        // Contexts of one node must hold on all others.
        secret: if clustered { config.cluster.secret() } else { identity.secret },
        clustered,
        port,
        durability: if config.buffered_by_default {
            Durability::Buffered
        } else {
            Durability::Durable
        },
        blind_writes: config.blind_writes,
        limits,
        engine: options(config, identity.cores),
        ..ShardConfig::new(identity.cores, identity.partitions, node_id, incarnation)
    }
}

fn run_cores(
    plan: &Arc<Plan>,
    is_ready: &mpsc::Receiver<()>,
    announce: impl FnOnce(),
) -> Result<(), DaemonError> {
    let signals = Signals::new([SIGTERM, SIGINT]).map_err(DaemonError::Signals)?;
    let handle = signals.handle();
    let on_core = Arc::clone(plan);
    let cores = CoresConfig { cpus: plan.cpus.clone() };
    let cores = rt::executor::start(&cores, move |context| run_core(on_core, context))?;
    let watcher = std::thread::spawn({
        let stopper = cores.stopper();
        move || watch(signals, &stopper)
    });
    // The last core to open says so; when one fails, all end and the channel stays silent.
    let joined = std::thread::spawn(move || cores.join());
    while !joined.is_finished() {
        if is_ready.recv_timeout(Duration::from_millis(100)).is_ok() {
            announce();
            break;
        }
    }
    let results = joined.join().unwrap_or_default();
    handle.close();
    // A watcher that panicked has nothing more to say.
    let _ = watcher.join();
    results.into_iter().try_for_each(|result| result?)
}

/// Stops the cores at the first signal and the process at the second.
fn watch(mut signals: Signals, stopper: &Stopper) {
    let mut stopping = false;
    for signal in &mut signals {
        if stopping {
            eprintln!("coronetd: second signal, ending at once");
            std::process::exit(128 + signal);
        }
        stopping = true;
        eprintln!("coronetd: stopping: finishing requests in flight");
        stopper.stop();
    }
}

/// One core from its engine's opening to its closing.
async fn run_core(plan: Arc<Plan>, context: CoreContext) -> Result<(), DaemonError> {
    let env = context.env;
    let core = crate::node::NodeEnv::core(&env);
    let is_data = core.0 < plan.data_cores;
    let has_own_control = plan.cpus.len() > usize::from(plan.data_cores);
    let shard = if is_data {
        let dir = plan.data.core_dir(core.0);
        match Shard::open(env.clone(), &dir, plan.shard.clone()).await {
            Ok(shard) => Some(shard),
            Err(cause) => {
                env.stop_all();
                return Err(DaemonError::Engine { core, cause });
            }
        }
    } else {
        None
    };
    let runs_control = if has_own_control { !is_data } else { core == CoreId(0) };
    let control = match runs_control.then(|| control(&plan, &env)).transpose() {
        Ok(control) => control,
        Err(error) => {
            env.stop_all();
            return Err(error);
        }
    };
    // Whoever runs the control core accepts connections too.
    let listener = match plan.listener.lock() {
        Ok(mut listener) if runs_control => listener.take(),
        _ => None,
    };
    if plan.opened.fetch_add(1, Ordering::SeqCst) + 1 == plan.cpus.len() {
        // Nobody listens any more when the process is ending already.
        let _ = plan.ready.send(());
    }
    let peers = match plan.peers.lock() {
        Ok(mut peers) if runs_control => peers.take(),
        _ => None,
    };
    let options = ServeOptions {
        listener,
        peers,
        data_cores: plan.data_cores,
        connection_limit: plan.connections,
        ..ServeOptions::default()
    };
    env.serve(Rc::new(NodeCore::new(shard.clone(), control)), options).await;
    let Some(shard) = shard else { return Ok(()) };
    shard.close().await.map_err(|cause| DaemonError::Close { core, cause })?;
    if !shard.keeps_its_name() {
        plan.renamed.store(true, Ordering::SeqCst);
    }
    let closed = plan.closed.fetch_add(1, Ordering::SeqCst) + 1;
    if closed == usize::from(plan.data_cores) && !plan.renamed.load(Ordering::SeqCst) {
        plan.data.mark_clean(&env).await?;
    }
    Ok(())
}

/// The control core, with the node's part in its cluster if it has one.
fn control(plan: &Plan, env: &RtEnv) -> Result<Control<RtEnv>, DaemonError> {
    let control = Control::new(env.clone(), plan.data_cores);
    let map = PartitionMap::new(plan.shard.partitions, plan.data_cores);
    let keyspaces = || {
        let (me, cores, dir) = (plan.shard.node_id, plan.data_cores, plan.dir.clone());
        Alone::new(env.clone(), me, cores, dir, plan.keyspaces.clone())
    };
    match (&plan.cluster, map) {
        (Some(config), Ok(map)) => {
            let cluster = Cluster::new(env.clone(), config.clone(), map);
            let cluster = cluster.map_err(DaemonError::OtherCluster)?;
            cluster.adopt_keyspaces(plan.keyspaces.clone());
            Ok(control.with_cluster(cluster))
        }
        _ => Ok(control.with_keyspaces(keyspaces())),
    }
}

fn log_ready(plan: &Plan, clients: SocketAddr, dir: &std::path::Path) {
    let (data, control) = plan.cpus.split_at(usize::from(plan.data_cores).min(plan.cpus.len()));
    let control = match control.first() {
        Some(cpu) => format!("on CPU {cpu}"),
        None => "shared with core 0".to_owned(),
    };
    eprintln!(
        "coronetd {} ready: clients {clients}, data folder {}, node {}, {} data cores on CPUs \
         {data:?}, control {control}",
        env!("CARGO_PKG_VERSION"),
        dir.display(),
        plan.data.identity().node_id,
        plan.data_cores,
    );
}
