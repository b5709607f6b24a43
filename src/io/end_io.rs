//! How do writes that finished become their files'?
//!
//! After Linux's `end_io`: the data are in their blocks and durable, and one walk over all that was written converts and
//! inserts the extents and moves the sizes. Many writes of many files are one record, with one fence, as far as a
//! record has room.
//!
//! Invariants:
//! 1. Each write comes with the proof that its data are durable (J2), and says how many bytes were accepted: nothing
//!    beyond them is converted (R21, R22), and what was reserved for it has gone back.
//! 2. Inodes are locked in the order of their numbers, each once, and published together after the commit. A size moves
//!    with the extents below it in one record, never backwards (R13, R14).
//! 3. All writes of a record become their files', or none; a write of which that failed left its file as it was.
//! 4. The caller holds the bytes of every write in `io`, and no `state`.

use super::group;
use crate::error::{Error, Result};
use crate::inode::{Draft, Fs, InodeCore, Intent, Intents, now};
use crate::mapper::Planned;
use crate::pmem::Durable;
use crate::sync::Arc;
use crate::sync::atomic::Ordering;

/// A write whose data are durable.
#[derive(Debug)]
pub(super) struct Finished<'c> {
    /// The file.
    pub core: &'c InodeCore,
    /// Where its blocks are, cut to what was written.
    pub planned: Planned,
    /// The first byte that was not written.
    pub end: u64,
    /// The proof.
    pub durable: Durable,
}

/// Makes all writes of `batch` their files', in as few records as there is room: what became of each, in order. Durable
/// on return.
pub(super) fn commit<'f>(fs: &'f Fs, batch: Vec<Finished<'f>>) -> Vec<Result<()>> {
    let room = fs.journal().capacity();
    let (mut results, mut group, mut needed) = (Vec::new(), Vec::new(), 0);
    for finished in batch {
        let more = finished.planned.record_bytes();
        if !group.is_empty() && needed + more > room {
            results.append(&mut commit_group(fs, std::mem::take(&mut group)));
            needed = 0;
        }
        needed += more;
        group.push(finished);
    }
    if !group.is_empty() {
        results.append(&mut commit_group(fs, group));
    }
    results
}

fn commit_group<'f>(fs: &'f Fs, group: Vec<Finished<'f>>) -> Vec<Result<()>> {
    let count = group.len();
    match commit_one(fs, group) {
        Err(error) if count > 1 => {
            let cause = Arc::new(error);
            std::iter::repeat_with(|| Err(Error::Together(cause.clone()))).take(count).collect()
        }
        Err(error) => vec![Err(error)],
        Ok(()) => std::iter::repeat_with(|| Ok(())).take(count).collect(),
    }
}

/// One record for all of `group`.
fn commit_one<'f>(fs: &'f Fs, mut group: Vec<Finished<'f>>) -> Result<()> {
    group::settle(fs)?;
    group.sort_by_key(|finished| finished.core.ino);
    let mut op = fs.space.begin().for_conversion();
    let mut proof = Durable::no_data();
    let mut drafts: Vec<Draft<'f>> = Vec::new();
    for Finished { core, .. } in &group {
        if drafts.last().is_none_or(|draft| draft.ino() != core.ino) {
            drafts.push(Draft::lock(core));
        }
    }
    // Locked after every file, where any is.
    let mut intents = None;
    let mut trims: Vec<&'f InodeCore> = Vec::new();
    let mut at = 0;
    for Finished { core, planned, end, durable } in group {
        proof = proof.and(durable);
        at += usize::from(drafts[at].ino() != core.ino);
        let beyond;
        (op, beyond) = planned.join(fs, op, &mut drafts[at], &mut intents, end)?;
        if beyond
            && !core.has_intent.load(Ordering::Acquire)
            && trims.last().is_none_or(|t| t.ino != core.ino)
        {
            trims.push(core);
        }
    }
    let time = now();
    for draft in &mut drafts {
        draft.touch(time);
        draft.stage(&mut op)?;
    }
    for core in &trims {
        let intents = intents.get_or_insert_with(|| Intents::lock(&fs.intents));
        intents.put(&mut op, core.ino, Intent::CleanUp)?;
    }
    op.commit(proof)?;
    trims.iter().for_each(|core| core.has_intent.store(true, Ordering::Release));
    drafts.into_iter().try_for_each(|draft| draft.publish(fs.region()))?;
    intents.map_or(Ok(()), |intents| intents.publish(&fs.space))
}
