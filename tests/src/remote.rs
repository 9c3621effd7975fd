//! A node that is asked through a broker.

use std::fs;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::broker::Broker;
use crate::lab::Lab;
use crate::listener::Listener;
use crate::peer::Peer;
use crate::run::eventually;

/// A filter that notes when it begins and ends each line, and does what the request says.
const OBEY: &str = r#"
while read -r line; do
    id=$(printf %s "$line" | sed 's/.*"request_id":"\([^"]*\)".*/\1/')
    echo "begin $id $$" >>"$NOTES"
    case $line in
        *'"do":"sleep'*) sleep "$(printf %s "$line" | sed 's/.*"do":"sleep \([0-9.]*\)".*/\1/')" ;;
        *'"do":"hang"'*) sleep 1000 ;;
        *'"do":"die"'*) exit 3 ;;
        *'"do":"babble"'*) printf 'one\ntwo\n' ;;
    esac
    echo "end $id" >>"$NOTES"
    echo '{"status":"success","error_msg":null,"success_msg":"'"$id"'"}'
done"#;

/// A node whose requests come through a broker, and a client that sends them.
pub struct RemoteLab {
    /// The node.
    pub lab: Lab,
    /// Its broker.
    pub broker: Arc<Broker>,
    /// The client.
    pub peer: Peer,
}

impl RemoteLab {
    /// On the broker that the tests of this process share.
    #[track_caller]
    pub fn shared() -> RemoteLab {
        RemoteLab::on(Broker::shared())
    }

    /// On this broker.
    #[track_caller]
    pub fn on(broker: Arc<Broker>) -> RemoteLab {
        let peer = Peer::client(&broker);
        RemoteLab { lab: Lab::unique(), broker, peer }
    }

    /// A power cut, on a broker that nobody else has. Who was connected has to connect again.
    #[track_caller]
    pub fn cut_power(&mut self) {
        let broker = Arc::get_mut(&mut self.broker).expect("a broker of one's own");
        broker.kill();
        broker.start_again();
        self.peer = Peer::client(&self.broker);
    }

    /// A listener whose filter obeys.
    #[track_caller]
    pub fn obeying(&self, args: &[&str]) -> Listener {
        let script = format!("NOTES={}; {OBEY}", self.notes_path());
        let args = [args, &["--", "sh", "-c", &script]].concat();
        Listener::start(&self.lab, &self.broker, &args)
    }

    fn notes_path(&self) -> String {
        self.lab.path("notes").display().to_string()
    }

    /// What the filters have noted: `begin ID`, `end ID`, in order.
    pub fn notes(&self) -> Vec<String> {
        let notes = fs::read_to_string(self.notes_path()).unwrap_or_default();
        notes.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
    }

    /// A request for this target, at which the filter does this: `nothing`, `sleep SECONDS`, `hang`,
    /// `die` or `babble`.
    pub fn request(&self, target: &str, act: &str) -> Value {
        json!({"host": self.lab.node, "do": act, "backup_target": {"id": target}})
    }

    /// Sends such a request.
    #[track_caller]
    pub fn send(&self, id: &str, target: &str, act: &str) {
        self.peer.request(&self.lab.queue(), id, &self.request(target, act));
    }

    /// The answers to so many requests: their ids and what they say, in the order they came.
    #[track_caller]
    pub fn answers(&self, count: usize) -> Vec<(String, Value)> {
        let answer = |_| {
            let heard = self.peer.hear();
            let id = heard.properties.correlation_id().clone().unwrap_or_default();
            (id, heard.json())
        };
        (0..count).map(answer).collect()
    }

    /// The next answer.
    #[track_caller]
    pub fn answer(&self) -> Value {
        self.answers(1).remove(0).1
    }

    /// Waits until no message is left in the queue.
    #[track_caller]
    pub fn assert_empty(&self) {
        eventually("all messages are acknowledged", || {
            self.broker.queue(&self.lab.queue()).is_some_and(|queue| queue.messages == 0)
        });
    }
}
