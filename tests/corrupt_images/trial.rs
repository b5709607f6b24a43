//! One kind of damage after the other, each on the same pool.
use super::observe::{Seen, is_typed};
use super::pool::{Map, make};
use daxstore::pmem::sim::Sim;
use daxstore::store::check::check_sim;
use daxstore::{CheckReport, Error, FileKind, OpenOptions, Repair, Store};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

pub struct Bench {
    pub sim: Arc<Sim>,
    pub original: Seen,
}

/// What one trial has to show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    /// Wrong answers are errors, or the check must tell of them.
    NoLies,
    /// The check must find something; what the lie itself took away is nobody's to name.
    Found,
    /// What is there is plausible: only that nothing breaks, and that a repair leads to a sound pool.
    NoHarm,
}

fn names(report: &CheckReport) -> String {
    report.faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ")
}

/// Changes things, as far as they let themselves be changed.
fn change(store: &Store) {
    let tried: [(&str, daxstore::Result<()>); 8] = [
        ("create", store.write("/new", &[7; 10_000])),
        ("overwrite", store.write("/hello", b"other")),
        ("append", store.create("/a/fragments").and_then(|f| f.append(&[1; 5000]).map(|_| ()))),
        ("make a directory", store.create_dir("/many/dir", 0o755)),
        ("rename", store.rename("/a/b", "/many/b")),
        ("remove", store.remove_file("/many/file number 7")),
        ("remove all", store.remove_dir_all("/a")),
        ("extend", store.open("/kept", &OpenOptions::new().write(true)).and_then(|f| f.set_len(1 << 20))),
    ];
    for (what, result) in tried {
        if let Err(error) = result {
            assert!(is_typed(&error), "{what}: {error}");
        }
    }
}

impl Bench {
    pub fn new() -> Self {
        let sim = make();
        let store = Store::open_sim(sim.clone()).unwrap();
        let original = Seen::all(&store);
        assert!(original.items.values().all(Result::is_ok));
        drop(store);
        sim.start_undo();
        Self { sim, original }
    }

    pub fn map(&self) -> Map<'_> {
        Map::new(&self.sim)
    }

    /// Does `damage` to the pool, looks at it in every way, repairs it, and puts it back.
    pub fn trial(&self, what: &str, expect: Expect, damage: impl Fn(&Sim)) {
        for way in [Self::look, Self::mend, Self::disturb] {
            self.sim.roll_back();
            damage(&self.sim);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| way(self, what, expect))) {
                self.sim.roll_back();
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).into()));
                panic!("{what}: {}", text.unwrap_or_default());
            }
        }
        self.sim.roll_back();
    }

    fn look(&self, _: &str, expect: Expect) {
        let store = match Store::open_sim(self.sim.clone()) {
            Ok(store) => store,
            Err(error) => return assert!(is_typed(&error), "{error}"),
        };
        let report = store.check().unwrap();
        let seen = Seen::all(&store);
        if expect == Expect::NoLies {
            let wrong: Vec<_> = seen.wrong(&self.original).collect();
            assert!(wrong.is_empty() || !report.is_clean(), "silently wrong: {}", wrong.join("; "));
        }
        assert!(expect != Expect::Found || !report.is_clean(), "the check found nothing");
    }

    fn mend(&self, _: &str, expect: Expect) {
        let before = match check_sim(self.sim.clone(), false) {
            Ok(before) => before,
            Err(error) => return self.not_mendable(&error),
        };
        assert!(expect != Expect::Found || !before.is_clean(), "the offline check found nothing");
        let report = check_sim(self.sim.clone(), true).unwrap();
        let after = check_sim(self.sim.clone(), false).unwrap();
        let (done, left) = (names(&report), names(&after));
        assert!(after.is_clean(), "not clean after repair:\n  {left}\nbefore and repaired:\n  {done}");
        let store = Store::open_sim(self.sim.clone()).unwrap();
        let seen = Seen::all(&store);
        assert!(
            seen.cut_short.is_empty() && seen.items.values().all(Result::is_ok),
            "damage is left\n  {done}"
        );
        if expect == Expect::NoLies {
            for (path, item) in seen.missing(&self.original) {
                let by_number = report.faults.iter().any(|fault| {
                    let is_lost = matches!(fault.outcome, Some(Repair::Lost(_)));
                    is_lost
                        && item.kind != FileKind::Directory
                        && fault.ino.is_some_and(|ino| ino.0 == item.ino)
                });
                assert!(
                    by_number || self.is_excused(&report, path),
                    "{} is lost in silence\n  {done}",
                    path.display()
                );
            }
        }
        change(&store);
        let used = store.check().unwrap();
        assert!(used.is_clean(), "after use:\n  {}\nrepaired before:\n  {done}", names(&used));
    }

    fn not_mendable(&self, error: &Error) {
        assert!(is_typed(error), "{error}");
        assert!(check_sim(self.sim.clone(), true).is_err(), "repaired what could not be checked: {error}");
    }

    /// Whether the report names `path`, or what it is below, as lost.
    fn is_excused(&self, report: &CheckReport, path: &Path) -> bool {
        let all = path.ancestors().filter(|above| above.parent().is_some() || path.parent().is_none());
        let mut all = all.map(|above| {
            let ino = self.original.items.get(above).and_then(|item| item.as_ref().ok()).map_or(0, |i| i.ino);
            (format!("{above:?}"), above.file_name().map(|name| format!("{name:?}")), ino)
        });
        let is_root =
            |lost: &str| lost.starts_with("names in \"/\";") || lost.starts_with("the root directory");
        report.lost().any(is_root)
            || all.any(|(path, name, ino)| {
                report.lost().any(|lost| {
                    lost.contains(&format!("of {path}"))
                        || lost.contains(&format!("in {path};"))
                        || lost.starts_with(&format!("{path} as a whole"))
                        || lost.contains(&format!("inode {ino} "))
                        || lost.ends_with(&format!("inode {ino}"))
                        || name.as_ref().is_some_and(|name| lost.starts_with(&format!("the name {name} in")))
                })
            })
    }

    /// Uses the damaged pool.
    fn disturb(&self, _: &str, _: Expect) {
        if let Ok(store) = Store::open_sim(self.sim.clone()) {
            change(&store);
            let _damage_or_not = store.check().unwrap();
        }
    }
}
