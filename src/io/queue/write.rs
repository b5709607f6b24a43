//! How is a write planned by one thread, copied by several, and ended by the last?
//!
//! Invariants:
//! 1. A part is copied and fenced by one thread, which leaves the proof of that with the write. The last part to be done
//!    gets the write for itself: `Arc::into_inner` gives it to exactly one.
//! 2. What could not be written ends the write where it starts: what comes after it is not converted, though other parts of
//!    it may have been copied (R21, R22). Bytes that the file had there before may then be old or new.
//! 3. Blocks are filled as a whole: who copies a place's first or last bytes zeroes the rest of that block (R23). No other
//!    request has bytes of the block meanwhile (R24).

use super::{After, Completed, Completer, HeldBytes, Queue, Ticket, Want, end};
use crate::error::{Error, Result};
use crate::inode::{Fs, coarse_now};
use crate::io::end_io::{self, Finished};
use crate::io::write::{block_start, held_bytes, zero_tail};
use crate::io::{Handle, group, sequential, turn, unshare};
use crate::iomap::{Before, DetachedTransition, FileRange, Transition, WriteMap};
use crate::layout::Durability;
use crate::mapper::{Planned, Writer};
use crate::pmem::mutation::{self, Mutation};
use crate::pmem::{DataWriter, Durable};
use crate::sync::{Arc, Mutex};
use crate::units::{BLOCK_BYTES, PoolOff};

/// Everything a write needs before it is copied.
#[derive(Debug)]
pub(super) struct Plan {
    turn: DetachedTransition,
    planned: Planned,
    held: HeldBytes,
    /// What it takes.
    pub range: FileRange,
    places: Vec<WriteMap>,
    /// Of the zeros at the old end.
    durable: Durable,
}

/// What the parts that are done have left.
#[derive(Debug)]
struct Parts {
    durable: Option<Durable>,
    /// The first byte that could not be written, and why.
    failed: Option<(u64, Error)>,
}

/// A write in flight. Dropped in this order: what is not the file's goes back, the bytes are let go, the end is told.
#[derive(Debug)]
pub(super) struct WriteIo {
    turn: Option<DetachedTransition>,
    planned: Option<Planned>,
    held: Option<HeldBytes>,
    handle: Handle,
    range: FileRange,
    places: Vec<WriteMap>,
    buffers: Vec<Vec<u8>>,
    parts: Mutex<Parts>,
    completer: Completer,
}

/// A part of a write. Dropped before it is done, as by a thread that panics, nothing of the write is accepted from where it
/// begins.
#[derive(Debug)]
pub(super) struct Part {
    io: Option<Arc<WriteIo>>,
    range: FileRange,
}

impl Part {
    pub(super) fn new(io: Arc<WriteIo>, range: FileRange) -> Self {
        Self { io: Some(io), range }
    }

    /// How many bytes it has.
    pub(super) fn bytes(&self) -> u64 {
        self.range.len
    }

    /// Notes what was copied, with the proof that it is durable, or where that failed: the write, if this was the last of it.
    fn done(mut self, durable: Durable, failed: Option<(u64, Error)>) -> Option<WriteIo> {
        let io = self.io.take()?;
        io.done(durable, failed);
        Arc::into_inner(io)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(io) = self.io.take()
            && !mutation::is(Mutation::ForgetPart)
        {
            io.done(Durable::no_data(), Some((self.range.offset, Error::Abandoned)));
        }
    }
}

impl Queue {
    /// Plans a write of `len` bytes. Where there is no space, first what was submitted before ends and gives back
    /// what it did not need, then space is reclaimed.
    ///
    /// `None` where the write has to be done as a whole: the file's level of durability asks for it, or it shares blocks there.
    pub(super) fn plan(&self, handle: &Handle, want: Want, len: u64, ticket: Ticket) -> Result<Option<Plan>> {
        let fs = handle.fs();
        fs.journal().writable()?;
        if fs.durability_of(handle.core()) != Durability::Strict {
            return Ok(None);
        }
        match self.plan_once(handle, want, len, ticket) {
            Err(Error::NoSpace { .. }) => {}
            done => return done,
        }
        self.drain_before(ticket, None);
        fs.with_room(|| self.plan_once(handle, want, len, ticket))
    }

    fn plan_once(&self, handle: &Handle, want: Want, len: u64, ticket: Ticket) -> Result<Option<Plan>> {
        let core = handle.core();
        loop {
            let size = core.size();
            let (range, is_append) = match want {
                Want::Write(offset) => (FileRange::new(offset, len)?, false),
                _ => (FileRange::new(size, len)?, true),
            };
            let (start, end) = held_bytes(range, size);
            let held = self.hold(handle, start, end, true);
            if core.size() == size {
                return self.plan_held(handle, held, range, is_append, ticket);
            }
        }
    }

    fn plan_held(
        &self,
        handle: &Handle,
        held: HeldBytes,
        mut range: FileRange,
        is_append: bool,
        ticket: Ticket,
    ) -> Result<Option<Plan>> {
        let (fs, core) = (handle.fs(), handle.core());
        let size = core.size();
        sequential::admit(core, range, size)?;
        if unshare::any(fs, core, range, size)? {
            return Ok(None);
        }
        group::settle(fs)?;
        if core.space.get().is_some() {
            // Their turns may be coarser than their bytes.
            self.drain_before(ticket, Some(core.ino));
        }
        let turn = turn::allocate(fs, core, range, size, range.end() > size)?;
        let (planned, places, taken) = Writer::new(fs, core, range, size)?.plan()?;
        if is_append && taken < range.len {
            return Err(Error::TooBig { needed: range.len, capacity: fs.journal().capacity() });
        }
        range.len = taken;
        let turn = if planned.needs_record(range.end()) { turn } else { ended(turn) };
        let mut durable = Durable::no_data();
        if range.offset > size && !mutation::is(Mutation::NoTailZero) {
            let mut data = fs.region().data_writer();
            if zero_tail(fs, core, &mut data, size, range.offset)? {
                durable = data.fence()?;
            }
        }
        Ok(Some(Plan { turn: turn.detach(), planned, held, range, places, durable }))
    }
}

/// Nobody's turn in place of one that is not needed.
fn ended(turn: Transition) -> Transition {
    drop(turn);
    Transition::none()
}

impl WriteIo {
    pub(super) fn new(handle: Handle, plan: Plan, buffers: Vec<Vec<u8>>, completer: Completer) -> Self {
        let Plan { turn, planned, held, range, places, durable } = plan;
        let parts = Mutex::new(Parts { durable: Some(durable), failed: None });
        let (turn, planned, held) = (Some(turn), Some(planned), Some(held));
        Self { turn, planned, held, handle, range, places, buffers, parts, completer }
    }

    /// Whether the write, if it ends at byte `end`, needs a record.
    fn needs_record(&self, end: u64) -> bool {
        self.planned.as_ref().is_some_and(|planned| planned.needs_record(end))
    }

    /// Copies what of the source belongs to `part`; the first byte that could not be written, with the cause.
    fn copy(&self, data: &mut DataWriter<'_>, part: FileRange) -> Result<(), (u64, Error)> {
        if !self.needs_record(self.range.end()) {
            // What takes a lock comes before the copies: a locked instruction between them and the fence waits for them.
            let touched = self.handle.core().touch_lazily(self.handle.fs().region(), coarse_now());
            touched.map_err(|error| (part.offset, error))?;
        }
        for place in &self.places {
            let from = place.range.offset.max(part.offset);
            let to = place.range.end().min(part.end());
            if from < to {
                self.fill(data, place, from, to)?;
            }
        }
        Ok(())
    }

    /// Copies bytes `from` to `to` into their place, and zeroes what the write leaves out of its first and last block.
    fn fill(
        &self,
        data: &mut DataWriter<'_>,
        place: &WriteMap,
        from: u64,
        to: u64,
    ) -> Result<(), (u64, Error)> {
        let at = |offset: u64| place.at.plus(offset - place.range.offset);
        let failed = |offset: u64| move |error: Error| (offset, error);
        if place.before != Before::Data {
            let head = if from == place.range.offset { from % BLOCK_BYTES } else { 0 };
            data.zero(PoolOff(at(from).0 - head), head).map_err(failed(from))?;
            let tail = if to == place.range.end() { to.next_multiple_of(BLOCK_BYTES) - to } else { 0 };
            data.zero(at(to), tail).map_err(failed(block_start(to).max(from)))?;
        }
        let (mut skip, mut done) = (from - self.range.offset, from);
        for buffer in &self.buffers {
            let len = buffer.len() as u64;
            let own = &buffer[skip.min(len) as usize..len.min(skip + (to - done)) as usize];
            skip = skip.saturating_sub(len);
            self.copy_sound(data, at(done), own).map_err(|(sound, error)| (done + sound, error))?;
            done += own.len() as u64;
        }
        Ok(())
    }

    /// Copies `bytes` to `at`, or those before the first that the medium has lost: how many, with the cause.
    fn copy_sound(&self, data: &mut DataWriter<'_>, at: PoolOff, bytes: &[u8]) -> Result<(), (u64, Error)> {
        let lost = self.handle.fs().region().bad(at, bytes.len() as u64);
        let sound = lost.map_or(bytes.len() as u64, |(bad, _)| bad.0 - at.0);
        data.copy(at, &bytes[..sound as usize]).map_err(|error| (0, error))?;
        match lost {
            None => Ok(()),
            Some((at, len)) => {
                let error = Error::BadMedium { at, ino: self.handle.ino().0, offset: 0, len };
                Err((sound, error))
            }
        }
    }

    /// Notes that a part is done: what was copied of it is durable, and what could not be.
    fn done(&self, durable: Durable, failed: Option<(u64, Error)>) {
        let mut parts = self.parts.lock();
        let before = parts.durable.take();
        parts.durable = before.map(|before| before.and(durable));
        if let Some((at, error)) = failed
            && parts.failed.as_ref().is_none_or(|(first, _)| at < *first)
        {
            parts.failed = Some((at, error));
        }
    }

    /// The first byte that was not accepted, and the error where that is the first of all. What was not accepted goes
    /// back (R17).
    fn accepted(&mut self) -> (u64, Option<Error>) {
        let Some((at, error)) = self.parts.lock().failed.take() else { return (self.range.end(), None) };
        if mutation::is(Mutation::ConvertAll) {
            return (self.range.end(), None);
        }
        if let Some(planned) = &mut self.planned {
            planned.cut(at);
        }
        (at, (at == self.range.offset).then(|| at_offset(error, at)))
    }

    /// Ends the write, of which everything before byte `end` is the file's.
    fn complete(mut self, result: Result<u64>, after: &mut Vec<After>) {
        drop(self.planned.take());
        drop(self.turn.take());
        drop(self.held.take());
        let result = result.map(|end| (end - self.range.offset) as usize);
        let completed = Completed { result, offset: self.range.offset, buffers: self.buffers };
        end(self.handle, self.completer, completed, after);
    }
}

/// The error of a bad medium with the offset in the file that it is about.
fn at_offset(error: Error, offset: u64) -> Error {
    match error {
        Error::BadMedium { at, ino, len, .. } => Error::BadMedium { at, ino, offset, len },
        other => other,
    }
}

/// Copies `parts`, fences all of them at once, and ends the writes of which they were the last.
pub(super) fn run(fs: &Fs, parts: Vec<Part>, after: &mut Vec<After>) {
    if parts.is_empty() {
        return;
    }
    let (mut writers, mut copied) = (Vec::new(), Vec::new());
    for part in parts {
        let Some(io) = &part.io else { continue };
        let panics = mutation::is(Mutation::PanicInPart) || mutation::is(Mutation::ForgetPart);
        assert!(!panics, "a thread panics on purpose");
        io.completer.begun();
        let mut data = fs.region().data_writer();
        let late = mutation::is(Mutation::ConvertFirst);
        let failed = if late { None } else { io.copy(&mut data, part.range).err() };
        writers.push(data);
        copied.push((part, failed));
    }
    let mut ended = Vec::new();
    match DataWriter::fence_all(writers) {
        Ok(proofs) => {
            for (durable, (part, failed)) in proofs.into_iter().zip(copied) {
                ended.extend(part.done(durable, failed));
            }
        }
        Err(error) => {
            let cause = Arc::new(error);
            for (part, _) in copied {
                // Nothing of these parts is known to be durable, so nothing of them is accepted.
                let failed = (part.range.offset, Error::Together(cause.clone()));
                ended.extend(part.done(Durable::no_data(), Some(failed)));
            }
        }
    }
    end_all(fs, ended, after);
}

/// Makes what was written of `writes` their files', in one record as far as it has room, and ends them.
fn end_all(fs: &Fs, writes: Vec<WriteIo>, after: &mut Vec<After>) {
    let (mut batch, mut results) = (Vec::new(), Vec::new());
    let mut writes: Vec<_> = writes
        .into_iter()
        .map(|mut io| {
            let (end, error) = io.accepted();
            results.push(error.map_or(Ok(end), Err));
            (end, io.planned.take(), io)
        })
        .collect();
    let (mut indices, mut mends) = (Vec::new(), false);
    for (i, (end, planned, io)) in writes.iter_mut().enumerate() {
        let Some(planned) = planned.take_if(|planned| results[i].is_ok() && planned.needs_record(*end))
        else {
            continue;
        };
        if let Err(error) = io.turn.as_ref().map_or(Ok(()), DetachedTransition::invalidate) {
            results[i] = Err(error);
            continue;
        }
        if mutation::is(Mutation::ReleaseEarly) {
            drop(io.held.take());
        }
        mends |= planned.replaces_bad();
        let durable = io.parts.lock().durable.take().unwrap_or_else(Durable::no_data);
        batch.push(Finished { core: io.handle.core(), planned, end: *end, durable });
        indices.push(i);
    }
    for (i, result) in indices.into_iter().zip(end_io::commit(fs, batch)) {
        results[i] = std::mem::replace(&mut results[i], Ok(0)).and_then(|end| result.map(|()| end));
    }
    if mends {
        fs.mend();
    }
    for ((_, planned, io), result) in writes.into_iter().zip(results) {
        drop(planned);
        copy_late(fs, &io);
        io.complete(result, after);
    }
}

/// The wrong order of [`Mutation::ConvertFirst`]: the data after the record that makes them the file's.
fn copy_late(fs: &Fs, io: &WriteIo) {
    if mutation::is(Mutation::ConvertFirst) {
        let mut data = fs.region().data_writer();
        let _copied = io.copy(&mut data, io.range);
        let _durable = data.fence();
    }
}
