//! Two servers that are one database: Galera. What is written to one is on the other when it is committed,
//! or is refused.

use std::path::Path;

use super::Database;
use crate::ports;
use crate::run::{eventually, run};

/// Debian's package galera-4.
const PROVIDER: &str = "/usr/lib/galera/libgalera_smm.so";

/// As root, rsync(1) would hand the second one the data of the first as nobody.
const USER: &str = "nobody";

/// Its own port, that of the cluster, and two by which a new member gets its data.
const PORTS: u16 = 4;

impl Database {
    /// Two fresh servers, in step.
    #[track_caller]
    pub fn cluster() -> [Database; 2] {
        assert!(Path::new(PROVIDER).exists(), "there is no {PROVIDER}: tests/install-deps.sh");
        let first = Database::member(None);
        let second = Database::member(Some(&first));
        [first, second]
    }

    /// A member of the cluster that this one is in, or of a new one.
    #[track_caller]
    fn member(of: Option<&Database>) -> Database {
        let mut member = Database::prepare_with(ports::CLUSTERS, PORTS);
        member.user = USER;
        let mut chown = member.command("chown");
        run(chown.arg("-R").arg(USER).arg(member.root()), b"").expect(0);
        let at = |number: u16| format!("127.0.0.1:{}", member.port + number);
        let known = of.map(|of| format!("127.0.0.1:{}", of.port + 1)).unwrap_or_default();
        member.options = vec![
            "--binlog-format=ROW".into(),
            "--innodb-autoinc-lock-mode=2".into(),
            "--wsrep-on=ON".into(),
            "--wsrep-sst-method=rsync".into(),
            "--wsrep-slave-threads=4".into(),
            format!("--wsrep-provider={PROVIDER}"),
            format!("--wsrep-cluster-address=gcomm://{known}"),
            format!("--wsrep-node-address={}", at(1)),
            format!("--wsrep-sst-receive-address={}", at(3)),
            format!(
                "--wsrep-provider-options=gmcast.listen_addr=tcp://{};ist.recv_addr={};gcache.size=16M",
                at(1),
                at(2)
            ),
        ];
        if of.is_none() {
            member.options.push("--wsrep-new-cluster".into());
        }
        member.start_again();
        let state = "SHOW STATUS LIKE 'wsrep_local_state_comment'";
        eventually("it is in step", || {
            let said = run(&mut member.client(""), state.as_bytes());
            said.stdout.contains("Synced")
        });
        member
    }
}
