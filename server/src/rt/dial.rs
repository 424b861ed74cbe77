//! Connecting to another node, without blocking the core.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::{Either, select};
use io_uring::{opcode, types};

use super::core::{Core, Envelope};
use super::listener::set_nodelay;
use super::op::{Op, Owned};
use super::timers::Sleep;
use crate::node::Door;

/// How long a connection may take to come to be.
const PATIENCE: Duration = Duration::from_secs(3);

/// An address in the kernel's form.
pub(super) struct SocketAddress {
    bytes: libc::sockaddr_storage,
    len: libc::socklen_t,
}

impl SocketAddress {
    #[allow(unsafe_code)]
    fn new(address: SocketAddr) -> Self {
        // SAFETY: the type is plain data for which zeros are valid.
        let mut bytes: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let place = (&raw mut bytes).cast::<u8>();
        let len = match address {
            SocketAddr::V4(v4) => {
                let raw = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                    sin_zero: [0; 8],
                };
                // SAFETY: the storage is large enough and aligned for every kind of address.
                unsafe { place.cast::<libc::sockaddr_in>().write(raw) };
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(v6) => {
                let raw = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: v6.scope_id(),
                };
                // SAFETY: as above.
                unsafe { place.cast::<libc::sockaddr_in6>().write(raw) };
                size_of::<libc::sockaddr_in6>()
            }
        };
        Self { bytes, len: len as libc::socklen_t }
    }

    fn family(&self) -> libc::c_int {
        libc::c_int::from(self.bytes.ss_family)
    }
}

/// Connects and sends this core the connection, or the news that there is none.
pub(super) async fn dial(core: Rc<Core>, ticket: u64, address: SocketAddr) {
    let envelope = match connect(&core, address).await {
        Ok(socket) => {
            core.shared.connections.fetch_add(1, Ordering::Relaxed);
            Envelope::Socket { socket, door: Door::Dialed(ticket), unread: Vec::new() }
        }
        Err(_) => Envelope::NotDialed { ticket },
    };
    core.send(core.id, envelope);
}

#[allow(unsafe_code)]
async fn connect(core: &Rc<Core>, address: SocketAddr) -> io::Result<OwnedFd> {
    let address = Box::new(SocketAddress::new(address));
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::socket(address.family(), libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor of the kernel's that nobody else owns.
    let socket = Rc::new(unsafe { OwnedFd::from_raw_fd(fd) });
    set_nodelay(&socket)?;
    let pointer = (&raw const address.bytes).cast::<libc::sockaddr>();
    let entry = opcode::Connect::new(types::Fd(socket.as_raw_fd()), pointer, address.len).build();
    let owned =
        Owned { _address: Some(address), _file: Some(Rc::clone(&socket)), ..Owned::default() };
    // SAFETY: the pointer is into the boxed address that `owned` keeps, with its socket.
    let op = unsafe { Op::start(&core.ring, entry, owned) };
    match select(pin!(op), pin!(Sleep::new(core, PATIENCE))).await {
        Either::Left(((result, owned), _)) => {
            result?;
            drop(owned);
            Rc::try_unwrap(socket).map_err(|_| io::Error::other("the socket is still in use"))
        }
        Either::Right(_) => {
            // Ends the attempt: the kernel completes the operation, whose slot lets go of the
            // socket then.
            // SAFETY: no memory is passed.
            unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
            Err(io::ErrorKind::TimedOut.into())
        }
    }
}
