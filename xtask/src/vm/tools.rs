//! Which programs of the host are needed, and where do they come from?

use crate::Result;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Programs, and the Debian packages that they are in.
const NEEDED: [(&str, &str); 17] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("ndctl", "ndctl"),
    ("daxctl", "daxctl"),
    ("mkfs.xfs", "xfsprogs"),
    ("xfs_io", "xfsprogs"),
    ("mkfs.ext4", "e2fsprogs"),
    ("modprobe", "kmod"),
    ("depmod", "kmod"),
    ("cpio", "cpio"),
    ("xz", "xz-utils"),
    ("timeout", "coreutils"),
    ("dpkg-deb", "dpkg"),
    ("cxl", "ndctl"),
    ("mount", "mount"),
    ("umount", "mount"),
    ("groupadd", "passwd"),
];

/// The same of programs without which a part of a scenario is left out.
pub const WANTED: [(&str, &str); 1] = [("udevadm", "udev")];

/// Where a program is; those for administrators too.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    dirs.map(|dir| dir.join(program)).find(|file| file.is_file())
}

fn packages_of(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    programs.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect()
}

/// The packages of the programs that are missing and needed.
pub fn missing() -> Vec<&'static str> {
    let mut packages = packages_of(&NEEDED);
    if !is_static_busybox() && !packages.contains(&"busybox-static") {
        packages.push("busybox-static");
    }
    packages.dedup();
    packages
}

/// The guest's file system has no libraries for a busybox that wants some.
fn is_static_busybox() -> bool {
    find("busybox").is_none_or(|busybox| libraries(&busybox).is_empty())
}

/// Installs what is missing, as root.
///
/// # Errors
/// Something is missing and this is not root, or `apt-get` fails.
pub fn install() -> Result<()> {
    let (mut packages, wanted) = (missing(), packages_of(&WANTED));
    let is_root = rustix::process::geteuid().is_root();
    if packages.is_empty() && (wanted.is_empty() || !is_root) {
        return Ok(());
    }
    packages.extend(wanted);
    if !is_root {
        return Err(format!("missing; as root: apt-get install {}", packages.join(" ")).into());
    }
    eprintln!("vm: installing {}", packages.join(" "));
    let apt =
        |args: &[&str]| run(Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(args));
    apt(&["update", "-q"])?;
    let mut args = vec!["install", "-yq", "--no-install-recommends"];
    args.extend(packages);
    apt(&args)
}

/// Whether this kernel's virtualization works: the processor must say so too, else `/dev/kvm` is a slow imitation.
pub fn accelerator() -> &'static str {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = cpu.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let virtual_machines = flags.split_ascii_whitespace().any(|flag| matches!(flag, "vmx" | "svm"));
    let kvm = std::fs::File::options().read(true).write(true).open("/dev/kvm");
    if virtual_machines && kvm.is_ok() { "kvm" } else { "tcg,thread=multi" }
}

/// The libraries that a program wants, its loader included.
pub fn libraries(program: &Path) -> Vec<PathBuf> {
    let Ok(output) = Command::new("ldd").arg(program).stderr(Stdio::null()).output() else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_ascii_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// Runs a program that must succeed; what it prints goes to standard error.
///
/// # Errors
/// It does not start or does not succeed.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).stdout(std::io::stderr()).status();
    let name = || command_name(command.get_program());
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{}: {status}", name()).into()),
        Err(error) => Err(format!("{}: {error}", name()).into()),
    }
}

/// What a program that must succeed prints.
///
/// # Errors
/// It does not start or does not succeed.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let name = command_name(command.get_program());
    let output = output.map_err(|error| format!("{name}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{name}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn command_name(program: &OsStr) -> String {
    program.to_string_lossy().into_owned()
}
