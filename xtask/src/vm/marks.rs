//! What does a line of the guest's console say?
//!
//! Lines that begin with `@@ ` are meant for the host; all others are for a person. A line that a reset cut short, or
//! that the kernel wrote into, is no mark: every mark is checked as a whole.

/// A line meant for the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The init script runs.
    Up,
    /// A scenario begins.
    Begin(String),
    /// It did what it should.
    Passed(String),
    /// It did not, and why.
    Failed(String, String),
    /// It can not be tried here, and why.
    Skipped(String, String),
    /// Something worth a line of the report.
    Note(String, String),
    /// A writer found its files in the state after `count` operations, which hashes to `hash`.
    Found {
        /// Which writer.
        writer: usize,
        /// Operations that are there.
        count: u64,
        /// The state, hashed.
        hash: u64,
    },
    /// A writer's operation returned.
    Acknowledged {
        /// Which writer.
        writer: usize,
        /// Operations that returned.
        count: u64,
        /// The state, hashed.
        hash: u64,
    },
    /// The writers begin, and may be cut.
    Writing,
    /// The guest has done all it was told.
    End,
}

impl Mark {
    /// The mark in a line, if it is one.
    pub fn parse(line: &str) -> Option<Self> {
        let rest = line.trim_end().strip_prefix("@@ ")?;
        let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let named = || {
            let (name, text) = rest.split_once(' ').unwrap_or((rest, ""));
            (!name.is_empty()).then(|| (name.to_owned(), text.to_owned()))
        };
        Some(match word {
            "up" => Self::Up,
            "begin" => Self::Begin(named()?.0),
            "ok" => Self::Passed(named()?.0),
            "failed" => named().map(|(name, why)| Self::Failed(name, why))?,
            "skipped" => named().map(|(name, why)| Self::Skipped(name, why))?,
            "note" => named().map(|(name, text)| Self::Note(name, text))?,
            "found" => state(rest).map(|(writer, count, hash)| Self::Found { writer, count, hash })?,
            "ack" => state(rest).map(|(writer, count, hash)| Self::Acknowledged { writer, count, hash })?,
            "writing" => Self::Writing,
            "end" => Self::End,
            _ => return None,
        })
    }
}

/// `WRITER COUNT HASH;`, the hash in 16 digits: the semicolon shows that nothing is missing.
fn state(text: &str) -> Option<(usize, u64, u64)> {
    let mut words = text.strip_suffix(';')?.split(' ');
    let (writer, count, hash) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || hash.len() != 16 {
        return None;
    }
    Some((writer.parse().ok()?, count.parse().ok()?, u64::from_str_radix(hash, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_told_from_other_lines() {
        let mark = |line| Mark::parse(line);
        assert_eq!(mark("[    3.5] XFS (pmem0): Mounting"), None);
        assert_eq!(mark("@@ up 6.1\r\n"), Some(Mark::Up));
        assert_eq!(mark("@@ ok tree"), Some(Mark::Passed("tree".into())));
        assert_eq!(mark("@@ failed grow no room"), Some(Mark::Failed("grow".into(), "no room".into())));
        assert_eq!(mark("@@ failed"), None);
        let ack = Mark::Acknowledged { writer: 1, count: 20, hash: 255 };
        assert_eq!(mark("@@ ack 1 20 00000000000000ff;"), Some(ack));
    }

    #[test]
    fn a_mark_that_was_cut_is_none() {
        let whole = "@@ ack 1 20 00000000000000ff;";
        for end in 0..whole.len() {
            assert_eq!(Mark::parse(&whole[..end]), None, "{end}");
        }
        assert_eq!(Mark::parse("@@ ack 1 2@@ up 6.1"), None);
        assert_eq!(Mark::parse("@@ ack 1 20 00000000000000f@@ ack 0 1 00000000000000ff;"), None);
    }
}
