//! A bare consumer: the AMQP library, and nothing else or the floor behind it. The broker's own round
//! trip goes to it, and the listener's memory is held against it.

use std::net::TcpStream;
use std::process::{Child, Command, ExitCode, Stdio};

use amiquip::{
    AmqpProperties, Auth, Connection, ConnectionOptions, ConnectionTuning, ConsumerMessage,
    ConsumerOptions, Publish, QueueDeclareOptions,
};
use dms_tests::Broker;

use crate::floor::Floor;

/// The argument with which this program is such a consumer: then come port and queue, and the
/// database if there is a floor to it.
pub(crate) const WORD: &str = "--consume";

/// Answers each message with itself, or as the floor does, until it is killed.
pub(crate) fn main(args: &[String]) -> ExitCode {
    let [port, queue, database @ ..] = args else { return ExitCode::from(100) };
    let floor = database.first().map(|url| Floor::new(url));
    match serve(port.parse().unwrap_or_default(), queue, floor) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve(port: u16, queue: &str, mut floor: Option<Floor>) -> amiquip::Result<()> {
    let socket = TcpStream::connect(("127.0.0.1", port)).expect("the broker listens");
    socket.set_nodelay(true).expect("a TCP socket");
    let stream = mio::net::TcpStream::from_stream(socket).expect("a TCP socket");
    let auth = Auth::Plain { username: Broker::USER.into(), password: Broker::PASSWORD.into() };
    let options = ConnectionOptions::default().auth(auth);
    let mut connection =
        Connection::insecure_open_stream(stream, options, ConnectionTuning::default())?;
    let channel = connection.open_channel(None)?;
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare(queue, options)?;
    // Of several floors none takes what another could begin with.
    channel.qos(0, if floor.is_some() { 1 } else { 32 }, false)?;
    let consumer = queue.consume(ConsumerOptions::default())?;
    for message in consumer.receiver() {
        let ConsumerMessage::Delivery(delivery) = message else { break };
        let id = delivery.properties.correlation_id().clone().unwrap_or_default();
        let answer = match &mut floor {
            Some(floor) => floor.answer(&delivery.body),
            None => delivery.body.clone(),
        };
        if let Some(queue) = delivery.properties.reply_to().clone() {
            let properties = AmqpProperties::default().with_correlation_id(id);
            let reply = Publish::with_properties(&answer, queue, properties);
            channel.basic_publish("", reply)?;
        }
        delivery.ack(&channel)?;
    }
    Ok(())
}

/// One that runs, in a process of its own.
pub(crate) struct Consumer(Child);

impl Consumer {
    /// Starts it, with a floor behind it if there is a database; it may not serve yet.
    pub(crate) fn start(broker: &Broker, queue: &str, database: Option<&str>) -> Consumer {
        let this = std::env::current_exe().expect("/proc is there");
        let mut command = Command::new(this);
        command.arg(WORD).arg(broker.port().to_string()).arg(queue).args(database);
        Consumer(command.stdin(Stdio::null()).spawn().expect("it is this program"))
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
