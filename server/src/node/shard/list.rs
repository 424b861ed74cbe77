//! LIST: keys with a prefix over this core's partitions, page by page.
//!
//! Keys come partition by partition. A core lists its own range and then names the next core's
//! first partition; the client goes on there. Nothing is kept between requests: the cursor says
//! all.

use std::future::poll_fn;
use std::ops::Range;
use std::rc::Rc;
use std::task::Poll;

use coronet_lsm::env::TaskClass;
use coronet_lsm::{Keyspace, Scan, ScanRange};
use coronet_net::codec::{Cursor, Entry, ListRequest, PageWriter};
use coronet_net::{ErrorCode, FrameWriter, ReplyFlags, Status};
use coronet_ring::causality::object::ObjectRef;
use coronet_ring::{CoreId, KeyspaceId, PartitionId};

use super::Inner;
use super::dispatch::{Call, Progress};
use super::reply::{Failure, Ticket};
use super::spaces::Space;
use crate::node::NodeEnv;
use crate::node::stats::count;

/// Bytes from which a page is ended: a page may hold one key more.
const PAGE_BYTES: usize = 256 << 10;
/// Entries between two chances for others to run.
const COOP_ENTRIES: u32 = 32;

/// A listing in progress.
struct Listing<E: NodeEnv> {
    ticket: Ticket,
    keyspace: KeyspaceId,
    tree: Keyspace<E>,
    prefix: Vec<u8>,
    page_limit: u32,
    credit: u16,
    /// Partitions this core lists.
    own: Range<u16>,
    /// Partitions are scanned one by one: filters can tell that one has no key with the prefix,
    /// but not that all have none.
    one_by_one: bool,
    /// The partition scanned, or with all in one scan the first.
    partition: u16,
    /// The page being written.
    page: Vec<u8>,
    /// Where the listing goes on: after this key of this partition.
    at: (PartitionId, Vec<u8>),
}

/// Why a page ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// It is full.
    Page,
    /// This core has no more keys.
    Core,
}

impl<E: NodeEnv> Inner<E> {
    pub(super) fn list(
        self: &Rc<Self>,
        call: &Call<'_>,
        space: &Space<E>,
        request: &ListRequest<'_>,
        ticket: &mut Ticket,
        out: &mut Vec<u8>,
    ) -> Progress {
        let start = if request.cursor.is_empty() {
            Ok(Cursor { partition: PartitionId(0), last_key: &[] })
        } else {
            Cursor::decode(request.cursor, space.id, request.prefix, self.map.partitions())
        };
        let start = match start {
            Ok(start) => start,
            Err(error) => {
                ticket.fail(&Failure::new(ErrorCode::BadCursor, error.to_string()), out);
                return Progress::Answered;
            }
        };
        ticket.partition = start.partition;
        ticket.owner = self.map.core_of(start.partition);
        if ticket.owner != self.me {
            return self.forward(call, ticket, out);
        }
        count(&self.counters.lists);
        let listing = Listing {
            ticket: ticket.clone(),
            keyspace: space.id,
            tree: space.tree.clone(),
            prefix: request.prefix.to_vec(),
            page_limit: request.page_limit,
            // Only the core of the connection knows how much output waits there.
            credit: if ticket.forwarded { 1 } else { request.credit },
            own: self.map.range_of(self.me),
            one_by_one: space.settings.filters(request.prefix),
            partition: start.partition.0,
            page: Vec::new(),
            at: (start.partition, start.last_key.to_vec()),
        };
        let shard = Rc::clone(self);
        self.env.spawn(TaskClass::Foreground, async move { shard.run_listing(listing).await });
        Progress::Pending
    }

    /// Lists until the credit is used up, this core has no more, or something fails.
    async fn run_listing(&self, mut listing: Listing<E>) {
        let mut scan = match listing.tree.scan(listing.range()).await {
            Ok(scan) => scan,
            Err(error) => return self.fail_listing(&listing, &Failure::of_engine(&error)),
        };
        loop {
            if listing.ticket.is_late(self.env.now()) {
                count(&self.counters.deadline_exceeded);
                return self.fail_listing(&listing, &Failure::late());
            }
            let end = match self.fill_page(&mut listing, &mut scan).await {
                Ok(end) => end,
                Err(failure) => return self.fail_listing(&listing, &failure),
            };
            listing.credit -= 1;
            if end == End::Core || listing.credit == 0 {
                return self.send_last_page(&listing, end);
            }
            if !self.send_page(&listing) || !self.room(&listing.ticket).await {
                return; // the connection is gone
            }
        }
    }

    /// Writes one page to the listing's buffer.
    async fn fill_page(
        &self,
        listing: &mut Listing<E>,
        scan: &mut Scan<E>,
    ) -> Result<End, Failure> {
        listing.page.clear();
        let mut page = PageWriter::new(&mut listing.page);
        let mut seen = 0_u32;
        let end = loop {
            if page.count() >= listing.page_limit || page.len() >= PAGE_BYTES {
                break End::Page;
            }
            seen = seen.wrapping_add(1);
            if seen.is_multiple_of(COOP_ENTRIES) {
                self.env.coop().await;
            }
            let next = scan.next().await.map_err(|error| Failure::of_engine(&error))?;
            let Some((engine_key, stored)) = next else {
                if !listing.one_by_one || listing.partition + 1 >= listing.own.end {
                    break End::Core;
                }
                listing.partition += 1;
                let range = partition_range(listing.partition, &listing.prefix);
                let opened = listing.tree.scan(range).await;
                *scan = opened.map_err(|error| Failure::of_engine(&error))?;
                continue;
            };
            let Some((partition, key)) = engine_key.split_first_chunk::<2>() else { continue };
            let partition = u16::from_be_bytes(*partition);
            if !key.starts_with(&listing.prefix) {
                // Before the prefix in this partition, or beyond it: then on to the next one.
                let beyond = key > listing.prefix.as_slice();
                let partition = partition.saturating_add(u16::from(beyond));
                if partition >= listing.own.end {
                    break End::Core;
                }
                let mut target = Vec::new();
                Self::engine_key(PartitionId(partition), &listing.prefix, &mut target);
                scan.seek(&target).await.map_err(|error| Failure::of_engine(&error))?;
                continue;
            }
            let object = ObjectRef::decode(&stored).map_err(|error| {
                Failure::new(ErrorCode::Corruption, format!("stored object: {error}"))
            })?;
            if !object.is_deleted() {
                page.push(entry_of(key, &object));
            }
            listing.at = (PartitionId(partition), key.to_vec());
        };
        let (partition, last_key) = match end {
            End::Page => (listing.at.0, listing.at.1.as_slice()),
            End::Core => (PartitionId(listing.own.end), &[][..]),
        };
        let partitions = self.map.partitions();
        page.finish(|into| {
            if u32::from(partition.0) < partitions {
                Cursor { partition, last_key }.encode(
                    listing.keyspace,
                    &listing.prefix,
                    partitions,
                    into,
                );
            }
        });
        Ok(end)
    }

    /// Appends the page with more to follow; `false` when the connection is gone.
    fn send_page(&self, listing: &Listing<E>) -> bool {
        let mut conns = self.conns.borrow_mut();
        let Some(conn) = conns.get_mut(&listing.ticket.conn) else { return false };
        let mut head = listing.ticket.head(Status::Ok);
        head.flags = head.flags | ReplyFlags::MORE;
        let mut frame = FrameWriter::reply(&mut conn.output, &head);
        frame.body().extend_from_slice(&listing.page);
        frame.finish();
        self.mark(conn, listing.ticket.conn);
        self.env.output_ready();
        true
    }

    /// Answers with the last page; its header names who goes on.
    fn send_last_page(&self, listing: &Listing<E>, end: End) {
        let next = match end {
            End::Page => listing.at.0,
            End::Core => PartitionId(listing.own.end),
        };
        let mut head = listing.ticket.head_at(Status::Ok, self.env.now());
        (head.partition, head.owner) = if u32::from(next.0) < self.map.partitions() {
            (next, self.map.core_of(next))
        } else {
            (PartitionId::NONE, CoreId::ANY)
        };
        self.answer(&listing.ticket, |out| {
            let mut frame = FrameWriter::reply(out, &head);
            frame.body().extend_from_slice(&listing.page);
            frame.finish();
        });
    }

    fn fail_listing(&self, listing: &Listing<E>, failure: &Failure) {
        self.answer(&listing.ticket, |out| listing.ticket.fail(failure, out));
    }

    /// Waits until the connection has room for more output; `false` when it is gone.
    async fn room(&self, ticket: &Ticket) -> bool {
        poll_fn(|task| {
            let mut conns = self.conns.borrow_mut();
            let Some(conn) = conns.get_mut(&ticket.conn) else { return Poll::Ready(false) };
            if conn.output.len() < self.config.limits.output_bytes {
                return Poll::Ready(true);
            }
            conn.wait_for_room(task.waker());
            Poll::Pending
        })
        .await
    }
}

impl<E: NodeEnv> Listing<E> {
    /// What is left of this core's share.
    fn range(&self) -> ScanRange {
        let (partition, last_key) = &self.at;
        let mut start = partition.0.to_be_bytes().to_vec();
        if last_key.is_empty() {
            start.extend_from_slice(&self.prefix);
        } else {
            start.extend_from_slice(last_key);
            start.push(0); // the next key there can be
        }
        let end = match self.one_by_one {
            true => partition_range(partition.0, &self.prefix).end,
            false => Some(self.own.end.to_be_bytes().to_vec()),
        };
        ScanRange { start, end }
    }
}

/// All keys of a partition that begin with a prefix.
fn partition_range(partition: u16, prefix: &[u8]) -> ScanRange {
    ScanRange::prefix(&[&partition.to_be_bytes(), prefix].concat())
}

fn entry_of<'a>(key: &'a [u8], object: &ObjectRef<'_>) -> Entry<'a> {
    let mut entry = Entry { key, versions: 0, bytes: 0, hlc: object.latest() };
    for version in object.values() {
        entry.versions = entry.versions.saturating_add(1);
        entry.bytes += version.value.len() as u64;
    }
    entry
}
