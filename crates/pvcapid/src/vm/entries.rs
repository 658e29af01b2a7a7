//! Guests as they are sent, kept until they change.
//!
//! To show a guest its XML is parsed and a few hundred fields are written. A list is put together from what was made before
//! for the guests that have not changed since.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use actix_web::web::{Bytes, BytesMut};
use actix_web::{HttpRequest, HttpResponse, web};
use futures::stream;
use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::mirror::{Branch, View};
use pvc_common::store::Store;
use pvc_core::ids::VmId;

use super::list;
use super::parsed::Parsed;
use crate::app::App;
use crate::error::ApiError;
use crate::gzip::Part;
use crate::reply::{self, Body, Element, Replies};

/// Bytes that are kept in all: what some thousand guests need. Beyond that the rest is made for each request.
const MOST_BYTES: usize = 32 * 1024 * 1024;
/// With more guests than this a list is made while it is sent, rather than held in memory as a whole.
pub(crate) const MOST_AT_ONCE: usize = 3000;
/// Guests in each piece of such a list: some milliseconds of work between which other requests have their turn.
const AT_ONCE: usize = 32;

/// A guest as it is sent.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The guest as a list of one.
    json: Bytes,
    serial: u64,
    /// Shows an age, so it is good for one second only.
    timed: bool,
    part: OnceLock<Part>,
}

impl Element for Entry {
    /// Without the brackets.
    fn plain(&self) -> &[u8] {
        self.json
            .get(1..self.json.len().saturating_sub(1))
            .unwrap_or_default()
    }

    fn part(&self) -> &Part {
        self.part.get_or_init(|| Part::new(self.plain()))
    }
}

impl Entry {
    /// The reply that shows this guest alone.
    pub(crate) fn body(&self, replies: &Replies) -> Body {
        Body::new(self.json.clone(), replies.tag(self.serial))
    }
}

/// What was made.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    all: Mutex<All>,
    /// What their XML says.
    pub(crate) parsed: Parsed,
    /// All guests, as a long list showed them last.
    long: Mutex<Option<Long>>,
}

#[derive(Debug)]
struct Long {
    guests: Branch,
    serial: u64,
    /// Some of it shows an age.
    timed: bool,
}

#[derive(Debug, Default)]
struct All {
    kept: HashMap<VmId, Kept>,
    bytes: usize,
    /// The view whose guests were last compared with those that are kept.
    compared: Option<u64>,
}

#[derive(Debug)]
struct Kept {
    guest: Branch,
    second: u64,
    entry: Arc<Entry>,
}

fn second(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Entries {
    /// That guest as it is in `view`.
    ///
    /// # Errors
    /// 404 if it is not there.
    pub(crate) fn entry(
        &self,
        replies: &Replies,
        view: &View,
        now: SystemTime,
        id: VmId,
    ) -> Result<Arc<Entry>, ApiError> {
        let guest = view.branch(keys::domain(id).path());
        let second = second(now);
        if let Some(kept) = self.lock().kept.get(&id)
            && kept.guest.is_same(&guest)
            && (kept.second == second || !kept.entry.timed)
        {
            return Ok(Arc::clone(&kept.entry));
        }
        let vm = list::one(view, now, id, &self.parsed)?;
        let entry = Arc::new(Entry {
            timed: !vm.snapshots.is_empty(),
            json: reply::to_json(&[vm])?.into(),
            serial: replies.next_serial(),
            part: OnceLock::new(),
        });
        let kept = Kept {
            guest,
            second,
            entry: Arc::clone(&entry),
        };
        self.lock().keep(id, kept, view);
        Ok(entry)
    }

    /// The reply that shows these guests, in their order.
    pub(crate) fn listed(
        &self,
        replies: &Replies,
        view: &View,
        now: SystemTime,
        guests: &[VmId],
    ) -> Result<Body, ApiError> {
        let mut tag = blake3::Hasher::new();
        let mut elements: Vec<Arc<dyn Element>> = Vec::with_capacity(guests.len());
        for id in guests {
            let entry = self.entry(replies, view, now, *id)?;
            tag.update(&entry.serial.to_le_bytes());
            elements.push(entry);
        }
        let tag: String = tag.finalize().to_hex().chars().take(20).collect();
        Ok(Body::list(elements, replies.tag(tag)))
    }

    /// The tag of a list that is made while it is sent: another as soon as anything of any guest is another.
    fn long_tag(&self, replies: &Replies, view: &View, now: SystemTime) -> String {
        let guests = view.branch(keys::domains().path());
        let mut long = self.long.lock().unwrap_or_else(PoisonError::into_inner);
        let (serial, timed) = match &*long {
            Some(long) if long.guests.is_same(&guests) => (long.serial, long.timed),
            Some(_) | None => {
                let has_snapshots = |id: &VmId| view.branch(keys::domain(*id).snapshots().path()).count() > 0;
                let timed = view.children(&keys::domains()).iter().any(has_snapshots);
                let serial = replies.next_serial();
                *long = Some(Long {
                    guests,
                    serial,
                    timed,
                });
                (serial, timed)
            }
        };
        if timed {
            replies.tag(format_args!("l{serial}-{}", second(now)))
        } else {
            replies.tag(format_args!("l{serial}"))
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, All> {
        // Nothing is ever half done under this lock.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    fn keep(&mut self, id: VmId, new: Kept, view: &View) {
        if let Some(before) = self.kept.remove(&id) {
            self.bytes -= before.entry.json.len();
        }
        let bytes = new.entry.json.len();
        if self.bytes + bytes > MOST_BYTES && self.compared != Some(view.number()) {
            // Guests that were removed make room. To look for them takes milliseconds, and one view has the same ones for all
            // that do not fit.
            self.compared = Some(view.number());
            self.kept
                .retain(|id, _| view.znode(keys::domain(*id).path()).is_some());
            self.bytes = self.kept.values().map(|kept| kept.entry.json.len()).sum();
        }
        if self.bytes + bytes <= MOST_BYTES {
            self.bytes += bytes;
            self.kept.insert(id, new);
        }
    }
}

/// The answer to a client that has the list of so many guests already.
pub(crate) fn long_unchanged<S: Store>(
    app: &App<S>,
    view: &View,
    request: &HttpRequest,
) -> Option<HttpResponse> {
    let tag = app.entries.long_tag(&app.replies, view, app.clock.wall());
    reply::has(request, &tag).then(|| reply::unchanged(&tag))
}

/// The reply that shows these guests, in their order, made as it is sent.
pub(crate) fn streamed<S: Store>(
    app: web::Data<App<S>>,
    view: View,
    guests: Vec<VmId>,
    request: &HttpRequest,
) -> HttpResponse {
    let now = app.clock.wall();
    let tag = app.entries.long_tag(&app.replies, &view, now);
    if reply::has(request, &tag) {
        return reply::unchanged(&tag);
    }
    let pieces: Vec<Vec<VmId>> = guests.chunks(AT_ONCE).map(<[VmId]>::to_vec).collect();
    let (last, count) = (pieces.len().saturating_sub(1), pieces.len());
    let pieces = pieces.into_iter().zip(0..count).map(move |(piece, place)| {
        let mut text = BytesMut::new();
        for (inner, id) in piece.into_iter().enumerate() {
            text.extend_from_slice(if place == 0 && inner == 0 { b"[" } else { b"," });
            text.extend_from_slice(app.entries.entry(&app.replies, &view, now, id)?.plain());
        }
        if place == last {
            text.extend_from_slice(b"]");
        }
        Ok::<Bytes, ApiError>(text.freeze())
    });
    reply::begin(&tag).streaming(stream::iter(pieces))
}
