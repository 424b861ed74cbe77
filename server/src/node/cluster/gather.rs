//! MULTI_GET: one read per key, answered together.

use coronet_lsm::env::Nanos;
use coronet_net::codec::MultiWriter;
use coronet_net::{ErrorCode, FrameWriter, ReplyFlags, Status};
use coronet_ring::Epoch;
use coronet_ring::causality::object::ObjectRef;
use coronet_ring::coordinate::quorum::{Outcome, Proof};

use super::client::{Client, View, meaning, write_versions};

/// Body bytes from which a frame is ended and another one begun.
const FRAME_BYTES: usize = 256 << 10;

/// What was read of one key.
enum Part {
    Missing,
    Object(Option<Vec<u8>>),
    Failed(ErrorCode),
}

/// The keys of one request.
pub(super) struct Gather {
    client: Client,
    views: Vec<View>,
    parts: Vec<Part>,
    missing: usize,
    /// The weakest of the parts' proofs.
    proof: Option<Proof>,
}

impl Gather {
    /// A request for these keys, by the views they are shown in.
    pub(super) fn new(client: Client, views: Vec<View>) -> Self {
        let parts = views.iter().map(|_| Part::Missing).collect();
        let missing = views.len();
        Gather { client, views, parts, missing, proof: None }
    }

    /// Whether every key was read.
    pub(super) fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// Whom the answer goes to.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Takes what became of the read of one key.
    pub(super) fn add(&mut self, index: usize, outcome: Outcome) {
        let Some(part @ Part::Missing) = self.parts.get_mut(index) else { return };
        self.missing -= 1;
        *part = match outcome {
            Outcome::Read { object, proof } => {
                self.proof = Some(self.proof.map_or(proof, |all| weaker(all, proof)));
                Part::Object(object)
            }
            Outcome::Failed(failure) => Part::Failed(meaning(&failure).0),
            Outcome::Written { .. } | Outcome::Page(_) => Part::Failed(ErrorCode::Internal),
        };
    }

    /// The whole answer. Values beyond `budget` bytes are not sent: those keys are busy.
    pub(super) fn reply(&self, secret: u64, budget: usize, epoch: Epoch, now: Nanos) -> Vec<u8> {
        let proof = self.proof.unwrap_or_default();
        let last = self.client.head(Status::Ok, &proof, epoch, now);
        let mut head = last;
        head.flags = head.flags | ReplyFlags::MORE;
        let mut out = Vec::new();
        let mut parts = self.views.iter().zip(&self.parts).enumerate().peekable();
        while parts.peek().is_some() {
            let before = out.len();
            let mut frame = FrameWriter::reply(&mut out, &head);
            let mut multi = MultiWriter::new(frame.body());
            while multi.len() < FRAME_BYTES
                && let Some((index, (view, part))) = parts.next()
            {
                let index = index as u16; // keys of a request are far fewer
                if before + multi.len() >= budget {
                    multi.failed(index, ErrorCode::Busy);
                } else {
                    write_part(&mut multi, index, view, part, secret);
                }
            }
            multi.finish();
            frame.finish();
        }
        let mut frame = FrameWriter::reply(&mut out, &last);
        MultiWriter::new(frame.body()).finish();
        frame.finish();
        out
    }
}

fn weaker(a: Proof, b: Proof) -> Proof {
    Proof {
        acknowledgements: a.acknowledgements.min(b.acknowledgements),
        racks: a.racks.min(b.racks),
        sloppy: a.sloppy | b.sloppy,
        repaired: a.repaired | b.repaired,
        hedged: a.hedged | b.hedged,
    }
}

fn write_part(multi: &mut MultiWriter<'_>, index: u16, view: &View, part: &Part, secret: u64) {
    match part {
        Part::Missing => multi.failed(index, ErrorCode::Internal),
        Part::Failed(code) => multi.failed(index, *code),
        Part::Object(None) => multi.not_found(index, |_| {}),
        Part::Object(Some(bytes)) => match ObjectRef::decode(bytes) {
            Ok(object) if view.shows(&object) => {
                write_versions(multi.found(index), &object, view, secret);
            }
            Ok(object) => {
                multi.not_found(index, |into| view.write_context(&object, secret, into));
            }
            Err(_) => multi.failed(index, ErrorCode::Corruption),
        },
    }
}
