//! Model 11: the turns of a mapped file: fault against punch, truncate and write.
//!
//! The toy file fails when a block is freed that can be reached, and when anything is translated that an
//! invalidation should have taken away. A fault that nobody answers sleeps for ever: a deadlock, which loom finds. Mutations:
//! `InstallLate`, `DropSilently`, `WakeEarly`, `UpgradeAtOnce`, `WaitersFirst`.

use crate::{Part, explore, part, pick, together};
use daxstore_fault::toy::{Fatal, PAGE, SLOT, ToyFile, ToyView};
use daxstore_fault::{Budget, Mode};
use std::sync::Arc;

/// A view of all of `file` that is shared and can be stored to.
pub(crate) fn map(file: &Arc<ToyFile>, mode: Mode) -> ToyView {
    ToyView::map(file, 0..file.pages(), mode, (true, false), &Budget::new(10_000)).expect("a view")
}

/// `f`, once for loom and often for real threads.
pub(crate) fn repeat(f: impl Fn() + Send + 'static) -> Part {
    part(move || (0..pick(1, 20)).for_each(|_| f()))
}

fn punch_against_load(mode: Mode) {
    let file = ToyFile::new(1, 1);
    file.place(0, 3, 5);
    let view = map(&file, mode);
    let (puncher, loader) = (file, view.clone());
    together(vec![
        repeat(move || {
            let got = loader.load(0);
            assert!(matches!(got, Ok(0 | 5)), "{got:?}");
        }),
        repeat(move || puncher.punch(0..1).expect("nothing in the way")),
    ]);
    assert_eq!(view.load(0), Ok(0));
}

/// R1: a block that a punch frees is out of reach, whatever fault was under way; and the fault ends.
#[test]
fn a_fault_against_a_punch() {
    explore("fault: punch", || punch_against_load(Mode::Userfault));
}

/// The same where the thread that touched waits by itself.
#[test]
fn a_signal_against_a_punch() {
    explore("fault: punch, in the toucher", || punch_against_load(Mode::Signal));
}

/// R13: a load sees the page or SIGBUS, and SIGBUS for good when the file was cut.
#[test]
fn a_fault_against_a_truncate() {
    explore("fault: truncate", || {
        let file = ToyFile::new(1, 1);
        (0..2).for_each(|page| file.place(page, page, 5 + page));
        let view = map(&file, Mode::Userfault);
        let (cutter, loader) = (file, view.clone());
        together(vec![
            repeat(move || {
                let got = loader.load(1);
                assert!(matches!(got, Ok(6) | Err(Fatal::Bus)), "{got:?}");
                assert_eq!(loader.load(0), Ok(5));
            }),
            part(move || cutter.resize(1).expect("nothing in the way")),
        ]);
        assert_eq!(view.load(1), Err(Fatal::Bus));
    });
}

/// A file that grows: who saw the old end does not keep the new bytes from being read.
#[test]
fn a_fault_against_growth() {
    explore("fault: growth", || {
        let file = ToyFile::new(1, 1);
        file.resize(1).expect("a shorter file");
        let view = ToyView::map(&file, 0..SLOT, Mode::Userfault, (true, false), &Budget::new(10_000));
        let view = view.expect("a view");
        let (grower, loader) = (file, view.clone());
        together(vec![
            part(move || {
                let got = loader.load(1);
                assert!(matches!(got, Ok(0) | Err(Fatal::Bus)), "{got:?}");
            }),
            part(move || grower.resize(2).expect("nothing in the way")),
        ]);
        assert_eq!(view.load(1), Ok(0));
    });
}

/// R3: zeros that a load found before the write are not installed after it.
#[test]
fn a_load_against_a_write() {
    explore("fault: write", || {
        let file = ToyFile::new(2, 1);
        file.place(SLOT, 0, 1);
        let view = map(&file, Mode::Userfault);
        let (writer, loader) = (file, view.clone());
        together(vec![
            repeat(move || {
                let got = loader.load(0);
                assert!(matches!(got, Ok(0 | 9)), "{got:?}");
            }),
            repeat(move || writer.write(0, 9).expect("space")),
        ]);
        assert_eq!(view.load(0), Ok(9));
    });
}

/// R11: what is written may come from a mapping of the same bytes, also while somebody waits to take the mapping's
/// translations away.
#[test]
fn a_write_from_a_mapping_of_itself() {
    explore("fault: write from its mapping", || {
        let file = ToyFile::new(1, 1);
        file.place(1, 1, 7);
        let view = map(&file, Mode::Userfault);
        let (writer, source, evictor) = (file, view.clone(), view.clone());
        together(vec![
            part(move || {
                writer.write_with(0, || source.load(1).expect("a source") + 1).expect("space");
            }),
            repeat(move || {
                let all = daxstore::iomap::FileRange { offset: 0, len: SLOT * PAGE };
                evictor.view.evict(all).expect("a fault handler");
            }),
        ]);
        assert_eq!((view.load(0), view.load(1)), (Ok(8), Ok(7)));
    });
}

#[cfg(loom)]
#[test]
fn mutations_are_caught() {
    use crate::assert_caught;
    use daxstore_fault::mutation::Mutation;
    assert_caught("fault_turns::a_fault_against_a_punch", Mutation::InstallLate);
    assert_caught("fault_turns::a_fault_against_a_punch", Mutation::DropSilently);
    assert_caught("fault_turns::a_fault_against_a_punch", Mutation::WakeEarly);
    assert_caught("fault_turns::a_load_against_a_write", Mutation::UpgradeAtOnce);
    assert_caught("fault_turns::a_write_from_a_mapping_of_itself", Mutation::WaitersFirst);
}
