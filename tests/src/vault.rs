//! A node whose S3 program is s3vaultfuse, by a stand-in: it is not public.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::lab::Lab;
use crate::run::{Run, eventually, run};

/// No argument, all in the environment, in the foreground; its end removes its old directory.
const STAND_IN: &str = r#"#!/bin/sh
[ $# = 0 ] || exit 64
env | sort > "$vault_data_directory_old/environment"
cp "$vault_data_directory_old/environment" "${0%/*}/environment"
trap 'umount "$vault_data_directory"' TERM
s3fs "$vault_s3_bucket" "$vault_data_directory" -f -o "url=$vault_s3_endpoint_url" \
    -o use_path_request_style -o fsname=TrilioVault -o endpoint="$vault_s3_region_name" &
wait; wait
rm -rf "$vault_data_directory_old"
"#;

/// A node whose S3 program is the stand-in.
pub struct Vault {
    /// The node.
    pub lab: Lab,
}

impl Vault {
    /// A fresh one.
    #[track_caller]
    pub fn new() -> Vault {
        let lab = Lab::new();
        let program = lab.path("s3vaultfuse.py");
        fs::write(&program, STAND_IN).expect("room for it");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
        let profile = include_str!("../../tools/dms-mount/profiles/s3vaultfuse.conf");
        let ours = profile.replace("/usr/bin/s3vaultfuse.py", &program.display().to_string());
        fs::write(lab.path("vault.conf"), ours).expect("room for it");
        Vault { lab }
    }

    fn environment(&self, command: &mut Command) {
        command
            .env("DMS_S3_PROGRAM", self.lab.path("vault.conf"))
            .env("DMS_S3_CACHE_DIR", self.lab.path("cache"));
    }

    /// Sends a request through the node's pipeline.
    #[track_caller]
    pub fn send(&self, action: &str, job: i32, target: &str) -> Value {
        self.ask(&self.lab.request(action, job, target))
    }

    /// Sends this request.
    #[track_caller]
    pub fn ask(&self, request: &Value) -> Value {
        let mut pipeline = self.lab.pipeline_command();
        self.environment(&mut pipeline);
        run(&mut pipeline, format!("{request}\n").as_bytes()).line()
    }

    /// Mounts for a job; the test fails if that does.
    #[track_caller]
    pub fn mount(&self, job: i32, target: &str) -> Value {
        let answer = self.send("mount", job, target);
        assert_eq!(answer["status"], "success", "{answer}");
        answer
    }

    /// One of the operator's commands.
    #[track_caller]
    pub fn node(&self, args: &[&str]) -> Run {
        let mut command = self.lab.command("dms-mount", args);
        self.environment(&mut command);
        run(&mut command, b"")
    }

    /// A daemon as the Python server starts it: mounted, and with its PID file.
    #[track_caller]
    pub fn python_daemon(&self, target: &str, bucket: &str) -> Child {
        let lab = &self.lab;
        let secret = fs::read(lab.path("secrets/good")).expect("it is there");
        let secret: Value = serde_json::from_slice(&secret).expect("it is JSON");
        let text = |name: &str| secret[name].as_str().unwrap_or_default().to_owned();
        fs::create_dir_all(lab.mount_point(target)).expect("it can be made");
        let old = lab.fresh_path("old");
        fs::create_dir(&old).expect("room for it");
        let daemon = Command::new(lab.path("s3vaultfuse.py"))
            .env("vault_s3_bucket", bucket)
            .env("vault_s3_endpoint_url", text("endpoint_url"))
            .env("vault_s3_region_name", "us-east-1")
            .env("vault_data_directory", lab.mount_point(target))
            .env("vault_data_directory_old", old)
            .env("AWS_ACCESS_KEY_ID", text("access_key"))
            .env("AWS_SECRET_ACCESS_KEY", text("secret_key"))
            .stdin(Stdio::null())
            .spawn()
            .expect("it was written");
        eventually("it is mounted", || lab.mounted(target).is_some());
        fs::create_dir_all(lab.path("run/s3")).expect("it can be made");
        let number = lab.path(&format!("run/s3/{target}.pid"));
        fs::write(number, daemon.id().to_string()).expect("room for it");
        daemon
    }
}

impl Default for Vault {
    fn default() -> Self {
        Vault::new()
    }
}
