//! What does the virtual machine boot?
//!
//! A kernel of Debian's, unpacked and not installed; an initial file system of busybox, the kernel's modules and the
//! tools that make namespaces and file systems; and behind it a second one with what changes: the programs under test
//! and the guest's scripts. The kernel unpacks them one over the other. Neither is compressed: emulated processors
//! take longer to unpack than the host to copy.

use super::tools::{WANTED, find, libraries, output, run};
use crate::Result;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a machine boots.
#[derive(Clone, Debug)]
pub struct Image {
    /// Where all this is.
    pub dir: PathBuf,
    /// The kernel.
    pub kernel: PathBuf,
    /// The initial file system.
    pub initrd: PathBuf,
    /// A disk with an empty ext4.
    pub disk: PathBuf,
}

/// The version of what [`base`] makes: raise it when that changes.
const RECIPE: &str = "3";
/// The page whose commands a scenario runs.
const PAGE: &str = "docs/deploy.md";
/// Modules that the guest loads by name; what they need comes with them.
const MODULES: &str = "nd_e820 nfit nd_pmem device_dax dax_pmem xfs ext4 crc32c_generic crc32c-intel virtio_pci virtio_blk \
    mce-inject cxl_acpi cxl_pci cxl_mem cxl_pmem kmem";
/// Programs with libraries; busybox has the others.
const PROGRAMS: [&str; 9] =
    ["ndctl", "daxctl", "cxl", "mkfs.xfs", "mkfs.ext4", "xfs_io", "mount", "umount", "groupadd"];

impl Image {
    /// Makes or finds all of it below `dir`, the guest's program so that it `can_err` on purpose.
    ///
    /// # Errors
    /// The kernel can not be fetched, the programs not be built.
    pub fn provide(dir: &Path, workspace: &Path, can_err: bool) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let programs = build(dir, workspace, can_err)?;
        let unpacked = unpack_kernel(dir)?;
        let (release, compressed) = kernel_in(&unpacked)?;
        let kernel = uncompress_kernel(dir, &release, &compressed)?;
        let base = base(dir, &unpacked, &release)?;
        let payload = payload(dir, workspace, &programs)?;
        let initrd = dir.join("initrd");
        let mut whole = File::create(&initrd)?;
        for part in [base, payload] {
            std::io::copy(&mut File::open(part)?, &mut whole)?;
        }
        let image = Self { dir: dir.to_owned(), kernel, initrd, disk: dir.join("disk.img") };
        Ok(image)
    }

    /// Makes the disk anew.
    ///
    /// # Errors
    /// `mkfs.ext4` fails.
    pub fn renew_disk(&self) -> Result<()> {
        let template = self.dir.join("empty.img");
        if !template.exists() {
            File::create(&template)?.set_len(512 << 20)?;
            let mkfs = find("mkfs.ext4").ok_or("mkfs.ext4 is missing")?;
            run(Command::new(mkfs).args(["-q", "-F"]).arg(&template))?;
        }
        run(Command::new("cp").arg("--sparse=always").arg(&template).arg(&self.disk))
    }
}

/// Builds the static programs.
fn build(dir: &Path, workspace: &Path, can_err: bool) -> Result<Vec<PathBuf>> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let target = dir.join("build");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace).args(["build", "--quiet", "--release", "--target", TARGET]);
    command.args(["-p", "daxstore-cli", "-p", "daxstore-xtask", "--bin", "daxstore", "--bin", "vm-guest"]);
    if can_err {
        command.args(["--features", "daxstore-xtask/plant"]);
    }
    command.arg("--target-dir").arg(&target);
    command.env("RUSTFLAGS", "-C target-feature=+crt-static -C strip=symbols");
    command.env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("CARGO_TARGET_DIR");
    run(&mut command)?;
    let out = target.join(TARGET).join("release");
    Ok(["daxstore", "vm-guest"].map(|name| out.join(name)).into())
}

/// The package of Debian's current kernel.
fn kernel_package() -> Result<String> {
    let depends = output(Command::new("apt-cache").args(["depends", "linux-image-amd64"]))?;
    let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    Ok(format!("linux-image-{}", package.ok_or("linux-image-amd64 depends on no kernel")?))
}

/// Fetches Debian's kernel and unpacks it, once.
///
/// # Errors
/// It can not be fetched.
pub fn unpack_kernel(dir: &Path) -> Result<PathBuf> {
    let unpacked = dir.join("kernel");
    if unpacked.exists() {
        return Ok(unpacked);
    }
    let package = match kernel_package() {
        Ok(package) => package,
        // A machine that has all programs may never have fetched the lists of packages.
        Err(_) => {
            run(Command::new("apt-get").args(["update", "-q"]))?;
            kernel_package()?
        }
    };
    eprintln!("vm: fetching {package}");
    let download = dir.join("download");
    fs::create_dir_all(&download)?;
    run(Command::new("apt-get").current_dir(&download).args(["download", "-q", &package]))?;
    let deb =
        fs::read_dir(&download)?.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some());
    let part = dir.join("kernel.part");
    let _ = fs::remove_dir_all(&part);
    run(Command::new("dpkg-deb").arg("-x").arg(deb.ok_or("apt-get fetched nothing")?).arg(&part))?;
    fs::remove_dir_all(&download)?;
    fs::rename(&part, &unpacked)?;
    Ok(unpacked)
}

/// Its release and its file.
fn kernel_in(unpacked: &Path) -> Result<(String, PathBuf)> {
    for entry in fs::read_dir(unpacked.join("boot"))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(release) = name.strip_prefix("vmlinuz-") {
            return Ok((release.to_owned(), entry.path()));
        }
    }
    Err("the kernel's package holds no kernel".into())
}

/// The kernel as an ELF file, which boots without unpacking itself on an emulated processor; where it can not be had,
/// the kernel as it is.
fn uncompress_kernel(dir: &Path, release: &str, compressed: &Path) -> Result<PathBuf> {
    const XZ: &[u8] = b"\xFD7zXZ\0";
    let elf = dir.join(format!("vmlinux-{release}"));
    if elf.exists() {
        return Ok(elf);
    }
    let whole = fs::read(compressed)?;
    let Some(at) = whole.windows(XZ.len()).position(|bytes| bytes == XZ) else {
        return Ok(compressed.to_owned());
    };
    let mut xz = Command::new("xz")
        .args(["--single-stream", "-dc"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut input = xz.stdin.take().ok_or("xz reads nothing")?;
    // What follows the stream in the file ends xz before it has read all.
    let feed = std::thread::spawn(move || drop(input.write_all(&whole[at..])));
    let mut kernel = Vec::new();
    xz.stdout.take().ok_or("xz writes nothing")?.read_to_end(&mut kernel)?;
    let _ = (xz.wait()?, feed.join());
    if !kernel.starts_with(b"\x7fELF") {
        return Ok(compressed.to_owned());
    }
    let part = dir.join("vmlinux.part");
    fs::write(&part, kernel)?;
    fs::rename(part, &elf)?;
    Ok(elf)
}

/// The part of the initial file system that stays.
fn base(dir: &Path, unpacked: &Path, release: &str) -> Result<PathBuf> {
    let wanted = || WANTED.iter().filter_map(|(program, _)| Some((*program, find(program)?)));
    let archive = dir.join(format!("base-{release}-{RECIPE}-{}.cpio", wanted().count()));
    if archive.exists() {
        return Ok(archive);
    }
    let root = dir.join("root");
    let _ = fs::remove_dir_all(&root);
    for name in ["bin", "sbin", "dev", "proc", "sys", "etc", "tmp", "run", "mnt", "disk", "guest"] {
        fs::create_dir_all(root.join(name))?;
    }
    fs::copy(find("busybox").ok_or("busybox is missing")?, root.join("bin/busybox"))?;
    let mut programs: Vec<_> = wanted().collect();
    for program in PROGRAMS {
        programs.push((program, find(program).ok_or_else(|| format!("{program} is missing"))?));
    }
    for (program, path) in programs {
        fs::copy(&path, root.join("bin").join(program))?;
        for library in libraries(&path) {
            let to = root.join(library.strip_prefix("/")?);
            fs::create_dir_all(to.parent().unwrap_or(&root))?;
            fs::copy(&library, to)?;
        }
    }
    // mkfs.ext4 warns without it.
    let _ = fs::copy("/etc/mke2fs.conf", root.join("etc/mke2fs.conf"));
    modules(dir, &root, unpacked, release)?;
    pack(&root, &archive)?;
    fs::remove_dir_all(&root)?;
    Ok(archive)
}

/// Copies the modules that are wanted, and those that these need.
fn modules(dir: &Path, root: &Path, unpacked: &Path, release: &str) -> Result<()> {
    let tree = |base: &Path| base.join("lib/modules").join(release);
    let from = [tree(unpacked), tree(&unpacked.join("usr"))].into_iter().find(|dir| dir.is_dir());
    let from = from.ok_or("the kernel's package holds no modules")?;
    // depmod writes beside the modules, and the package is to stay what it was.
    let scratch = dir.join("modules");
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(scratch.join("lib/modules"))?;
    run(Command::new("cp").arg("-r").arg(&from).arg(tree(&scratch)))?;
    let depmod = find("depmod").ok_or("depmod is missing")?;
    run(Command::new(&depmod).arg("-b").arg(&scratch).arg(release))?;
    for module in MODULES.split(' ') {
        let mut modprobe = Command::new(find("modprobe").ok_or("modprobe is missing")?);
        modprobe
            .args(["-i", "-C", "/dev/null", "-S", release, "--show-depends", module])
            .arg("-d")
            .arg(&scratch);
        // Some kernels have some of them built in.
        let Ok(lines) = output(&mut modprobe) else { continue };
        for file in lines.lines().filter_map(|line| line.strip_prefix("insmod ")) {
            let file = Path::new(file.trim());
            let to = root.join(file.strip_prefix(&scratch)?);
            fs::create_dir_all(to.parent().unwrap_or(root))?;
            fs::copy(file, &to)?;
            if to.extension().is_some_and(|e| e == "xz") {
                run(Command::new("xz").arg("-d").arg(&to))?;
            }
        }
    }
    for list in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
        let _ = fs::copy(from.join(list), tree(root).join(list));
    }
    fs::remove_dir_all(&scratch)?;
    run(Command::new(depmod).arg("-b").arg(root).arg(release))
}

/// The part of the initial file system that changes.
fn payload(dir: &Path, workspace: &Path, programs: &[PathBuf]) -> Result<PathBuf> {
    let root = dir.join("payload");
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(root.join("bin"))?;
    fs::create_dir_all(root.join("guest"))?;
    for program in programs {
        fs::copy(program, root.join("bin").join(program.file_name().ok_or("a program without a name")?))?;
    }
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("guest"))?.flatten() {
        fs::copy(entry.path(), root.join("guest").join(entry.file_name()))?;
    }
    fs::copy(workspace.join(PAGE), root.join("guest/deploy.md"))?;
    fs::rename(root.join("guest/init.sh"), root.join("init"))?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    let archive = dir.join("payload.cpio");
    pack(&root, &archive)?;
    fs::remove_dir_all(&root)?;
    Ok(archive)
}

/// Packs a directory.
fn pack(root: &Path, archive: &Path) -> Result<()> {
    let part = archive.with_extension("part");
    let mut sh = Command::new("sh");
    sh.current_dir(root).args(["-c", "find . | cpio -o -H newc --quiet -R 0:0 > \"$0\""]).arg(&part);
    run(&mut sh)?;
    fs::rename(part, archive)?;
    Ok(())
}
