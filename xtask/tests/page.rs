//! Does a scenario run every command of docs/deploy.md?
//!
//! A command is a line of a code block, or what stands between backticks and begins with the name of a program. The guest's
//! scripts run them by `page 'COMMAND'`, which fails where the page does not have it; here is looked that none is left out.

use std::fs;
use std::path::Path;

/// What can not be run in the virtual machine, and why.
const NOT_RUN: [(&str, &str); 3] = [
    ("apt-get install ndctl daxctl xfsprogs e2fsprogs", "the host does it, for `cargo xtask vm`"),
    ("memmap=768M!1G", "no command: the machine is booted with it, and a script compares"),
    ("update-grub", "the kernel is booted directly"),
];

const PROGRAMS: [&str; 20] = [
    "apt-get",
    "cat",
    "cd",
    "chmod",
    "chown",
    "cxl",
    "daxctl",
    "daxstore",
    "dd",
    "echo",
    "fallocate",
    "grep",
    "groupadd",
    "mkfs.ext4",
    "mkfs.xfs",
    "mount",
    "mv",
    "ndctl",
    "udevadm",
    "umount",
];

fn read(path: &str) -> String {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    fs::read_to_string(workspace.join(path)).expect(path)
}

/// The commands of the page.
fn commands(page: &str) -> Vec<String> {
    let mut found: Vec<String> =
        page.lines().filter_map(|line| line.strip_prefix("    ")).map(String::from).collect();
    let text: String =
        page.lines().filter(|line| !line.starts_with("    ")).map(|line| format!("{line} ")).collect();
    let spans = text.split('`').skip(1).step_by(2);
    let is_command = |span: &&str| {
        let (program, rest) = span.split_once(' ').unwrap_or((span, ""));
        *span == "update-grub" || (PROGRAMS.contains(&program) && !rest.is_empty())
    };
    found.extend(spans.filter(is_command).map(String::from));
    found
}

/// What scripts run by `page` and `unsupported`.
fn run_by_scripts() -> Vec<String> {
    let mut found = Vec::new();
    for script in ["deploy", "machinecheck", "cxl", "lib"] {
        for line in read(&format!("xtask/guest/{script}.sh")).lines() {
            for word in ["page ", "unsupported "] {
                let Some((before, rest)) = line.split_once(word) else { continue };
                if before.trim_start().starts_with('#') {
                    continue;
                }
                // Within double quotes a double quote has a backslash.
                let rest = rest.replace("\\\"", "\0");
                let quoted = rest.chars().next().filter(|quote| matches!(quote, '\'' | '"'));
                if let Some(command) = quoted.and_then(|quote| rest[1..].split(quote).next()) {
                    found.push(command.replace('\0', "\""));
                }
            }
        }
    }
    found
}

#[test]
fn every_command_of_the_page_is_run_or_is_known_not_to_be() {
    let (page, run) = (read("docs/deploy.md"), run_by_scripts());
    let covers = |one: &str, command: &str| one == command || one.starts_with(&format!("{command} "));
    for command in commands(&page) {
        let is_run = run.iter().any(|one| covers(one, &command));
        let is_known = NOT_RUN.iter().any(|(one, _)| covers(one, &command));
        assert!(is_run != is_known, "{command}: run {is_run}, known not to be {is_known}");
    }
}

#[test]
fn what_is_not_run_stands_in_the_page() {
    let commands = commands(&read("docs/deploy.md"));
    for (command, why) in NOT_RUN {
        assert!(commands.iter().any(|one| one == command), "{command} is not in the page: {why}");
    }
}
