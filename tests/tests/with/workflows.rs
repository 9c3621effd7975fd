//! The workflows of examples/, on real mounts: backup, restore, several VMs, and Python.

use std::fs;
use std::path::PathBuf;

use dms_tests::{Lab, Run, eventually, run};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::file;

fn example(name: &str) -> String {
    format!(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/{}"), name)
}

/// The disks of a VM.
fn disks(lab: &Lab, vm: &str) -> PathBuf {
    let directory = lab.path("vms").join(vm);
    fs::create_dir_all(directory.join("more")).expect("room for it");
    for disk in ["disk 0", "more/disk-1"] {
        let data: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        fs::write(directory.join(disk), data).expect("room for it");
    }
    directory
}

#[track_caller]
fn with(lab: &Lab, example_name: &str, args: &[&str]) -> Run {
    let file = file(lab, &[lab.request("mount", 1, "t1")]);
    let program = example(example_name);
    lab.feed("dms-with", &[&[&*file, "--", &program], args].concat(), "")
}

#[test]
fn a_vm_is_backed_up_and_comes_back_as_it_was() {
    let lab = Lab::new();
    let vm = disks(&lab, "vm-001");
    let (vm, to) = (vm.display().to_string(), lab.path("restored").display().to_string());
    for number in 1..=2 {
        let said = with(&lab, "backup-vm", &["vm-001", &vm]);
        assert_eq!(said.expect(0).stdout, format!("vm-001/{number}\n"), "{said}");
        lab.assert_gone("t1");
    }
    let manifest = fs::read_to_string(lab.object("vm-001/2/MANIFEST")).expect("it is there");
    assert!(manifest.lines().count() == 2 && manifest.contains("  ./disk 0\n"), "{manifest}");

    with(&lab, "restore-vm", &["vm-001/2", &to]).expect(0);
    lab.shell(&format!("diff -r '{vm}' '{to}'")).expect(0);
    with(&lab, "restore-vm", &["vm-001/2", &to]).expect(1);
    with(&lab, "restore-vm", &["vm-001/3", &to]).expect(1);
    // One byte is enough.
    let disk = lab.object("vm-001/1/disk 0");
    let mut data = fs::read(&disk).expect("it is there");
    data[100] ^= 1;
    fs::write(&disk, data).expect("it is ours");
    let other = lab.path("other").display().to_string();
    let said = with(&lab, "restore-vm", &["vm-001/1", &other]);
    assert!(said.expect(1).stderr.contains("vm-001/1 is not what was backed up"), "{said}");
    assert!(!lab.path("other").exists() && !lab.path("other.part").exists());
    with(&lab, "backup-vm", &["vm-001"]).expect(100);
    lab.assert_gone("t1");
}

#[test]
fn a_backup_that_fails_leaves_neither_a_half_nor_a_snapshot_nor_a_mount() {
    let lab = Lab::new();
    let vm = disks(&lab, "vm-001").display().to_string();
    fs::write(
        lab.path("snapshot"),
        "#!/bin/sh\ncase $1 in create) cp -R \"$3\" copy; echo \"$PWD/copy\"; mkdir copy/MANIFEST.new ;; \
         remove) rm -r \"$3\"; echo removed >&2 ;; esac\n",
    )
    .expect("room for it");
    lab.shell("chmod +x snapshot").expect(0);
    let file = file(&lab, &[lab.request("mount", 1, "t1")]);
    let mut command = lab.command("dms-with", &[&file, "--", &example("backup-vm"), "vm-001", &vm]);
    let command = command.env("SNAPSHOT", lab.path("snapshot")).current_dir(lab.path(""));
    // Something is where the manifest has to go.
    let said = run(command, b"");
    assert!(said.code != 0 && said.stderr.contains("removed"), "{said}");
    assert!(!lab.path("copy").exists() && !lab.object("vm-001/1/disk 0").exists());
    lab.assert_gone("t1");
}

#[test]
fn several_vms_go_over_one_mount_and_one_that_fails_keeps_no_other_from_it() {
    let lab = Lab::new();
    let file = file(&lab, &[lab.request("mount", 1, "t1")]);
    let vms = ["vm-1", "vm-2", "vm-3"].map(|vm| disks(&lab, vm).display().to_string());
    fs::remove_dir_all(&vms[1]).expect("it is ours");
    let args: Vec<&str> = vms.iter().map(String::as_str).collect();
    let said = lab.feed(&example("backup-batch"), &[&[&*file], &args[..]].concat(), "");
    assert_eq!(said.expect(1).stdout, "vm-1/1\nvm-2 failed: exit status 1\nvm-3/1\n", "{said}");
    lab.assert_gone("t1");
    let history = lab.history("t1");
    assert_eq!(history.len(), 2, "{history:?}");
    lab.feed(&example("backup-batch"), &[&file], "").expect(100);
}

#[test]
fn python_needs_its_standard_library_only() {
    let lab = Lab::new();
    let file = file(&lab, &[lab.request("mount", 1, "t1")]);
    let said = lab.feed("python3", &["-IS", &example("dms_with.py"), &file, "words"], "");
    let want = format!(
        "on the target: from-python\nactive: t1\nS3 target mounted successfully at {0}\n\
         Target unmounted successfully from {0}\n",
        lab.mount_point("t1").display()
    );
    assert_eq!(said.expect(0).stdout, want, "{said}");
    assert_eq!(fs::read_to_string(lab.object("from-python")).expect("it is there"), "words\n");
    lab.assert_gone("t1");

    let mut bad = lab.request("mount", 1, "t1");
    bad["backup_target"]["secret_ref"] = Value::from("file:///no/such/secret");
    let file = self::file(&lab, &[bad]);
    let said = lab.feed("python3", &["-IS", &example("dms_with.py"), &file], "");
    assert!(said.expect(1).stderr.contains("dms_with.py: fatal: unable to mount t1"), "{said}");
}

#[test]
fn a_python_program_that_is_killed_leaves_nothing_mounted() {
    let lab = Lab::new();
    let file = file(&lab, &[lab.request("mount", 1, "t1")]);
    let script = format!(
        "import sys, json, time; sys.path.insert(0, '{}'); sys.dont_write_bytecode = True\n\
         import dms_with\n\
         with dms_with.mounted(json.load(open('{file}'))) as path:\n    \
             open(path + '/up', 'w').close(); time.sleep(1000)",
        example("")
    );
    let mut python = lab.command("python3", &["-c", &script]).spawn().expect("it is there");
    eventually("it has the mount", || lab.object("up").exists());
    let pid = nix::unistd::Pid::from_raw(python.id().cast_signed());
    nix::sys::signal::kill(pid, Signal::SIGKILL).expect("it is ours");
    python.wait().expect("it is ours");
    eventually("it is unmounted", || lab.users("t1").is_empty() && !lab.mount_point("t1").exists());
    lab.assert_gone("t1");
}
