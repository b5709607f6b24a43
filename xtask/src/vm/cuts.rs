//! Is everything there that was acknowledged before the power was cut?
//!
//! The guest's writers acknowledge each operation over the serial console once it returned. The machine is reset, or
//! its emulator killed, at a random moment; the guest comes up again, checks the pool, and tells in which states it
//! found the writers' files. A state that lies before the last acknowledged one is a loss. What was acknowledged and
//! not yet sent lets a state lie after it, by what the console holds at most.

use super::machine::Machine;
use super::marks::Mark;
use super::plan::{Backend, Device, Kind, Scenario};
use super::{Line, Outcome, Run, with_device};
use crate::Result;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// How long a boot may take, with recovery and check, on a machine that does other things too.
const BOOT: Duration = Duration::from_secs(300);
/// The longest that writers write before a cut.
const LONGEST: Duration = Duration::from_millis(1500);
/// Acknowledgements that the console may hold, whose buffers are of 4 KiB and of 16 bytes, and a pipe of 4 KiB before it.
const UNSENT: u64 = 1000;

/// What is known of a writer.
#[derive(Clone, Debug, Default)]
struct Writer {
    /// Operations acknowledged, and the hash of the state after them.
    acknowledged: (u64, u64),
    /// The states that its files were found in at this boot.
    found: Vec<(u64, u64)>,
}

impl Writer {
    /// Whether a found state is one that the acknowledgements allow; how many operations it is ahead of them.
    fn judge(&self) -> std::result::Result<u64, String> {
        let (count, hash) = self.acknowledged;
        for &(found, found_hash) in &self.found {
            match found.checked_sub(count) {
                Some(0) if count > 0 && found_hash != hash => {
                    return Err(format!("operation {count}: another state"));
                }
                Some(ahead) if ahead <= UNSENT => return Ok(ahead),
                _ => {}
            }
        }
        let found: Vec<_> = self.found.iter().map(|(count, _)| count).collect();
        Err(format!("{count} operations were acknowledged, found are {found:?}"))
    }
}

/// What a run of cuts has seen.
#[derive(Debug, Default)]
struct Tally {
    writers: Vec<Writer>,
    cuts: u32,
    ahead: u64,
    boots: Vec<Duration>,
    /// Why it can not be tried, if so.
    skipped: Option<String>,
}

impl Tally {
    fn writer(&mut self, writer: usize) -> &mut Writer {
        if self.writers.len() <= writer {
            self.writers.resize_with(writer + 1, Writer::default);
        }
        &mut self.writers[writer]
    }

    /// Takes a mark: whether the writers begin.
    fn take(&mut self, mark: Mark) -> Result<bool> {
        match mark {
            Mark::Up => self.writers.iter_mut().for_each(|writer| writer.found.clear()),
            Mark::Found { writer, count, hash } => self.writer(writer).found.push((count, hash)),
            Mark::Acknowledged { writer, count, hash } => self.writer(writer).acknowledged = (count, hash),
            Mark::Failed(_, why) => return Err(why.into()),
            Mark::Skipped(_, why) => {
                self.skipped = Some(why.clone());
                return Err(why.into());
            }
            Mark::Writing => return Ok(true),
            _ => {}
        }
        Ok(false)
    }

    /// Waits until the writers begin, and judges what they found.
    fn boot(&mut self, machine: &mut Machine) -> Result<()> {
        let began = Instant::now();
        loop {
            let Some(mark) = machine.mark_until(began + BOOT)? else {
                return Err(format!("no writing {} s after the cut", BOOT.as_secs()).into());
            };
            if self.take(mark)? {
                break;
            }
        }
        self.boots.push(began.elapsed());
        for (i, writer) in self.writers.iter().enumerate() {
            let ahead =
                writer.judge().map_err(|why| format!("after cut {}: writer {i}: {why}", self.cuts))?;
            self.ahead = self.ahead.max(ahead);
        }
        Ok(())
    }

    /// Lets the writers write for a while; every second time that while begins with the first acknowledgement, because a
    /// writer of a busy machine may not get as far before.
    fn write(&mut self, machine: &mut Machine, pause: Duration) -> Result<()> {
        let before = self.acknowledged();
        let latest = Instant::now() + BOOT;
        while self.cuts % 2 == 1 && self.acknowledged() == before {
            let Some(mark) = machine.mark_until(latest)? else {
                return Err(format!("no acknowledgement in {} s", BOOT.as_secs()).into());
            };
            self.take(mark)?;
        }
        let end = Instant::now() + pause;
        while let Some(mark) = machine.mark_until(end)? {
            self.take(mark)?;
        }
        self.cuts += 1;
        Ok(())
    }

    /// Operations acknowledged.
    fn acknowledged(&self) -> u64 {
        self.writers.iter().map(|writer| writer.acknowledged.0).sum()
    }

    fn summary(&self) -> String {
        let operations = self.acknowledged();
        let mut boots = self.boots.clone();
        boots.sort();
        let boot = boots.get(boots.len() / 2).map_or(0.0, Duration::as_secs_f64);
        let mut text = format!("{} cuts, {operations} operations acknowledged", self.cuts);
        // What `fmt::Write` to a string returns is always good.
        let _ = write!(text, ", states at most {} ahead, boots of {boot:.1} s", self.ahead);
        text
    }
}

/// Random moments, from a seed.
struct Pauses(u64);

impl Pauses {
    fn next(&mut self) -> Duration {
        // Knuth's MMIX generator; its high bits are good.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Duration::from_micros((self.0 >> 33) % LONGEST.as_micros() as u64)
    }
}

/// Cuts the writers as often as the options say.
pub fn run(run: &Run<'_>, scenario: &Scenario, backend: Backend) -> Line {
    let began = Instant::now();
    let mut tally = Tally::default();
    let done = match scenario.kind {
        Kind::Kill(device) => with_kills(run, scenario, device, backend, &mut tally),
        _ => with_resets(run, scenario, backend, &mut tally),
    };
    let outcome = match done {
        _ if tally.skipped.is_some() => Outcome::Skipped(tally.skipped.unwrap_or_default()),
        Ok(()) => Outcome::Passed(tally.summary()),
        Err(error) => Outcome::Failed(format!("{error} ({})", tally.summary())),
    };
    Line { scenario: scenario.name.to_owned(), backend, outcome, took: began.elapsed() }
}

/// The reset button, in one emulator: `memmap=` memory keeps its contents.
fn with_resets(run: &Run<'_>, scenario: &Scenario, backend: Backend, tally: &mut Tally) -> Result<()> {
    run.image.renew_disk()?;
    let cuts = run.options.cuts;
    let spec = run.spec(backend, scenario.name, scenario.name, (BOOT + LONGEST) * (cuts + 1));
    let mut machine = Machine::boot(&spec)?;
    let mut pauses = Pauses(run.options.seed);
    tally.boot(&mut machine)?;
    while tally.cuts < cuts {
        tally.write(&mut machine, pauses.next())?;
        machine.reset()?;
        tally.boot(&mut machine)?;
    }
    Ok(())
}

/// The emulator killed, and another one started over the same file.
fn with_kills(
    run: &Run<'_>,
    scenario: &Scenario,
    device: Device,
    backend: Backend,
    tally: &mut Tally,
) -> Result<()> {
    run.image.renew_disk()?;
    let mut spec = run.spec(backend, "powercut", scenario.name, BOOT + LONGEST);
    with_device(&mut spec, device)?;
    let mut pauses = Pauses(run.options.seed ^ 1);
    // Each boot is a whole start of the emulator; what is shown is that the file keeps what the memory had.
    let cuts = run.options.cuts.min(3);
    loop {
        let mut machine = Machine::boot(&spec)?;
        tally.boot(&mut machine)?;
        if tally.cuts == cuts {
            return Ok(());
        }
        tally.write(&mut machine, pauses.next())?;
        for mark in machine.kill() {
            tally.take(mark)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(acknowledged: (u64, u64), found: &[(u64, u64)]) -> Writer {
        Writer { acknowledged, found: found.to_vec() }
    }

    #[test]
    fn a_loss_is_told_from_an_operation_in_flight() {
        assert_eq!(writer((0, 0), &[(0, 5)]).judge(), Ok(0));
        assert_eq!(writer((7, 1), &[(7, 1)]).judge(), Ok(0));
        assert_eq!(writer((7, 1), &[(8, 2)]).judge(), Ok(1));
        assert_eq!(writer((7, 1), &[(5, 3), (9, 3)]).judge(), Ok(2), "a state that comes again");
        assert!(writer((7, 1), &[(6, 4)]).judge().unwrap_err().contains("7 operations"));
        assert!(writer((7, 1), &[(7, 4)]).judge().unwrap_err().contains("another state"));
        assert!(writer((7, 1), &[(7 + UNSENT + 1, 4)]).judge().is_err());
        assert!(writer((7, 1), &[]).judge().is_err());
    }

    #[test]
    fn moments_come_from_the_seed_and_are_spread() {
        let moments = |seed| {
            let mut pauses = Pauses(seed);
            (0..100).map(|_| pauses.next()).collect::<Vec<_>>()
        };
        assert_eq!(moments(1), moments(1));
        assert_ne!(moments(1), moments(2));
        assert!(moments(1).iter().all(|pause| *pause < LONGEST));
        assert!(moments(1).iter().filter(|pause| **pause < LONGEST / 2).count() > 30);
    }
}
