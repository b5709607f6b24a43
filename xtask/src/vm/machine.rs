//! How is a virtual machine started, listened to, cut and stopped?
//!
//! Invariants:
//! 1. No machine outlives its bound: `timeout` kills it even where this process is gone.
//! 2. A machine that is dropped is dead, and one of a run that was killed is when the next one boots.

use super::image::Image;
use super::marks::Mark;
use super::plan::Backend;
use crate::Result;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Where a machine's persistent memory comes from.
#[derive(Clone, Debug)]
pub enum Memory {
    /// Set aside by `memmap=`; keeps its contents over a reset.
    SetAside,
    /// An NVDIMM, which keeps them in a file.
    Nvdimm(PathBuf),
    /// A CXL device with persistent memory, which keeps them in a file, and its labels in another.
    Cxl(PathBuf),
}

/// What a machine is like.
#[derive(Clone, Debug)]
pub struct Spec<'a> {
    /// What it boots.
    pub image: &'a Image,
    /// What the pool lies on.
    pub backend: Backend,
    /// Where the persistent memory comes from.
    pub memory: Memory,
    /// What the guest is told, as `key=value`.
    pub tell: Vec<(&'static str, String)>,
    /// Its accelerator, in qemu's words.
    pub accel: String,
    /// How long it may run.
    pub bound: Duration,
    /// Its console's copy.
    pub log: PathBuf,
}

/// What the guest's persistent memory is: enough for XFS with a log of its own.
const MEMMAP: &str = "memmap=768M!1G";
/// The kernel makes regions of CXL memory in multiples of 256 MiB.
const DEVICE_BYTES: &str = "768M";
/// Two ports, and the device below the first: for a bridge with one port Linux 6.1 leaves the bridge's decoder as it is,
/// but qemu 7.2 finds the device by that decoder alone, and everything would read as zeros. A device without a serial number
/// would have labels that the kernel does not take.
const CXL: [&str; 4] = [
    "pxb-cxl,bus_nr=12,bus=pcie.0,id=cxl.1",
    "cxl-rp,port=0,bus=cxl.1,id=port0,chassis=0,slot=2",
    "cxl-rp,port=1,bus=cxl.1,id=port1,chassis=0,slot=3",
    "cxl-type3,bus=port0,memdev=m1,lsa=l1,id=cxl-pmem0,sn=1",
];

/// A machine that runs.
pub struct Machine {
    child: Child,
    marks: Receiver<Mark>,
    dir: PathBuf,
    bound: Instant,
}

impl Machine {
    /// Boots it.
    ///
    /// # Errors
    /// qemu can not be started.
    pub fn boot(spec: &Spec<'_>) -> Result<Self> {
        let dir = spec.image.dir.clone();
        end_orphan(&dir);
        for left in ["monitor", "pid"] {
            let _ = fs::remove_file(dir.join(left));
        }
        let mut child =
            command(spec)?.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (send, marks) = channel();
        let log = File::options().create(true).append(true).open(&spec.log)?;
        for (stream, is_console) in [
            (child.stdout.take().map(|s| Box::new(s) as Box<dyn Read + Send>), true),
            (child.stderr.take().map(|s| Box::new(s) as Box<dyn Read + Send>), false),
        ] {
            let (Some(stream), mut log, send) = (stream, log.try_clone()?, send.clone()) else { continue };
            thread::spawn(move || {
                let mut stream = BufReader::new(stream);
                let mut line = Vec::new();
                while stream.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                    let text = plain(&line);
                    // A log that can not be written is worth less than the run.
                    let _ = log.write_all(text.as_bytes());
                    if is_console
                        && let Some(mark) = Mark::parse(&text)
                        && send.send(mark).is_err()
                    {
                        return;
                    }
                    line.clear();
                }
            });
        }
        Ok(Self { child, marks, dir, bound: Instant::now() + spec.bound })
    }

    /// The next mark.
    ///
    /// # Errors
    /// The machine ended, or its time is over.
    pub fn mark(&mut self) -> Result<Mark> {
        match self.mark_until(self.bound)? {
            Some(mark) => Ok(mark),
            None => Err("the virtual machine's time is over".into()),
        }
    }

    /// The next mark, if there is one before `end`.
    ///
    /// # Errors
    /// The machine ended.
    pub fn mark_until(&mut self, end: Instant) -> Result<Option<Mark>> {
        match self.marks.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(mark) => Ok(Some(mark)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err("the virtual machine ended by itself".into()),
        }
    }

    /// Resets it, as the button on its front does.
    ///
    /// # Errors
    /// The monitor does not answer.
    pub fn reset(&mut self) -> Result<()> {
        let mut monitor = UnixStream::connect(short(&self.dir.join("monitor")))?;
        monitor.set_read_timeout(Some(Duration::from_secs(10)))?;
        // It forgets a command of somebody who does not wait for the answer.
        prompt(&mut monitor)?;
        monitor.write_all(b"system_reset\n")?;
        prompt(&mut monitor)
    }

    /// Kills the emulator: the marks that it had sent before.
    pub fn kill(mut self) -> Vec<Mark> {
        self.stop();
        self.marks.iter().collect()
    }

    fn stop(&mut self) {
        let pid = fs::read_to_string(self.dir.join("pid")).ok().and_then(|text| text.trim().parse().ok());
        if let (Some(pid), Ok(None)) = (pid.and_then(rustix::process::Pid::from_raw), self.child.try_wait()) {
            // It may have ended a moment ago.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends the emulator that a killed run left in `dir`: it has the disk.
fn end_orphan(dir: &Path) {
    let file = dir.join("pid");
    let pid = fs::read_to_string(&file).ok().and_then(|text| text.trim().parse::<i32>().ok());
    let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) else { return };
    // The number may be another process's by now.
    let command = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    if command.split(|byte| *byte == 0).any(|argument| argument == file.as_os_str().as_encoded_bytes()) {
        // It may have ended a moment ago.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Reads up to the monitor's next prompt.
fn prompt(monitor: &mut UnixStream) -> Result<()> {
    let (mut said, mut byte) = (Vec::new(), [0]);
    while !said.ends_with(b"(qemu) ") {
        if monitor.read(&mut byte)? == 0 {
            return Err("the monitor closed".into());
        }
        said.push(byte[0]);
    }
    Ok(())
}

/// The file of the labels of CXL memory in `file`.
pub fn labels(file: &Path) -> PathBuf {
    file.with_extension("labels")
}

/// A path that a socket's address has room for, where one is to be had.
fn short(path: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).map_or_else(|_| path.to_owned(), Path::to_owned)
}

fn command(spec: &Spec<'_>) -> Result<Command> {
    let mut command = Command::new("timeout");
    let seconds = (spec.bound.as_secs() + 10).to_string();
    command.args(["-s", "KILL", &seconds, "qemu-system-x86_64"]);
    command.args(["-accel", &spec.accel, "-cpu", if spec.accel == "kvm" { "host" } else { "max" }]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-smp", "2", "-serial", "stdio"]);
    command
        .arg("-monitor")
        .arg(format!("unix:{},server=on,wait=off", short(&spec.image.dir.join("monitor")).display()));
    command.arg("-pidfile").arg(spec.image.dir.join("pid"));
    command.arg("-kernel").arg(&spec.image.kernel).arg("-initrd").arg(&spec.image.initrd);
    // The host outlives every cut that is made here, so its disk need not be waited for.
    command
        .arg("-drive")
        .arg(format!("file={},if=none,id=disk,format=raw,cache=unsafe", spec.image.disk.display()));
    let mut append = String::from(
        "console=ttyS0 panic=-1 nokaslr mitigations=off audit=0 cryptomgr.notests random.trust_cpu=on quiet",
    );
    // Where the host has other work, the kernel sees too few ticks in its test of the timer, and gives up.
    append.push_str(" no_timer_check");
    let file = |id, size, file: &Path| {
        let file = file.display();
        ["-object".to_owned(), format!("memory-backend-file,id={id},share=on,mem-path={file},size={size}")]
    };
    match &spec.memory {
        // The memory above the range that is set aside is for the initial file system.
        Memory::SetAside => {
            command.args(["-machine", "pc", "-m", "2G"]);
            append = format!("{append} {MEMMAP}");
        }
        Memory::Nvdimm(path) => {
            command.args(["-machine", "pc,nvdimm=on", "-m", "1G,slots=2,maxmem=4G"]);
            command.args(file("m1", DEVICE_BYTES, path)).args(["-device", "nvdimm,id=n1,memdev=m1"]);
        }
        Memory::Cxl(path) => {
            command.args(["-machine", "q35,cxl=on,cxl-fmw.0.targets.0=cxl.1,cxl-fmw.0.size=4G", "-m", "1G"]);
            command.args(file("m1", DEVICE_BYTES, path)).args(file("l1", "1M", &labels(path)));
            command.args(CXL.iter().flat_map(|device| ["-device", device]));
        }
    }
    // Its bus is named: otherwise it could get onto the bridge of the CXL memory.
    let bus = if matches!(spec.memory, Memory::Cxl(_)) { "pcie.0" } else { "pci.0" };
    command.arg("-device").arg(format!("virtio-blk-pci,drive=disk,bus={bus}"));
    append = format!("{append} vm.backend={}", spec.backend.name());
    for (key, value) in &spec.tell {
        append = format!("{append} vm.{key}={value}");
    }
    command.arg("-append").arg(append);
    Ok(command)
}

/// The text of a console line, without what is meant for a terminal.
fn plain(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => {
                // `ESC c`, or `ESC [` up to a letter.
                if chars.next() == Some('[') {
                    let _ = chars.by_ref().find(char::is_ascii_alphabetic);
                }
            }
            '\r' | '\0' => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_emulator_of_a_killed_run_is_ended_and_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let sleeper = |argument: &Path| {
            let mut sh = Command::new("sh");
            sh.args(["-c", "read line; exit 3"]).arg(argument).stdin(Stdio::piped()).spawn().unwrap()
        };
        let (mut orphan, mut other) = (sleeper(&file), sleeper(dir.path()));
        // The kernel tells of a new program's arguments a moment after it has begun.
        for child in [&orphan, &other] {
            let command = format!("/proc/{}/cmdline", child.id());
            while fs::read(&command).unwrap().is_empty() {
                std::thread::yield_now();
            }
        }
        for child in [&orphan, &other] {
            fs::write(&file, format!("{}\n", child.id())).unwrap();
            end_orphan(dir.path());
        }
        assert!(!orphan.wait().unwrap().success());
        assert_eq!(orphan.wait().unwrap().code(), None, "it was killed");
        drop(other.stdin.take());
        assert_eq!(other.wait().unwrap().code(), Some(3), "it went on");
    }

    #[test]
    fn what_is_meant_for_a_terminal_is_left_out() {
        assert_eq!(plain(b"\x1bc\x1b[?7l\x1b[2J\x1b[0m@@ up\r\n"), "@@ up\n");
    }
}
