//! The other side of the wire: a client and a server as the Python original is one, in the
//! properties and queue arguments that it uses.

use std::time::Duration;

use amiquip::{
    AmqpProperties, Auth, Channel, Connection, ConnectionOptions, ConnectionTuning, Consumer,
    ConsumerMessage, ConsumerOptions, Delivery, Publish, QueueDeclareOptions,
};
use crossbeam_channel::{Receiver, Sender, bounded, select, unbounded};
use serde_json::Value;

use crate::broker::Broker;

/// A message that has come.
#[derive(Debug, Clone)]
pub struct Heard {
    /// All of them.
    pub properties: AmqpProperties,
    /// As it came.
    pub body: Vec<u8>,
    /// Whether the broker may have handed it out before.
    pub redelivered: bool,
}

impl Heard {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_str(&text).unwrap_or_else(|why| panic!("{why}: {text:?}"))
    }
}

/// What a server does with a request: its answer, or none.
pub type Handler = Box<dyn FnMut(&Heard) -> Option<Vec<u8>> + Send>;

/// A connection of its own to a broker.
pub struct Peer {
    orders: Sender<Order>,
    heard: Receiver<Heard>,
    /// Where answers to it go.
    pub reply_queue: String,
}

enum Order {
    Send { queue: String, properties: Box<AmqpProperties>, body: Vec<u8>, done: Sender<()> },
    Declare { queue: String, done: Sender<()> },
}

impl Peer {
    /// A client with an exclusive queue for answers, which the broker names.
    #[track_caller]
    pub fn client(broker: &Broker) -> Peer {
        Peer::start(broker.port(), None)
    }

    /// A server of this queue: one message at a time, acknowledged once it is answered.
    #[track_caller]
    pub fn server(broker: &Broker, queue: &str, handler: Handler) -> Peer {
        Peer::start(broker.port(), Some((queue.to_owned(), handler)))
    }

    #[track_caller]
    fn start(port: u16, server: Option<(String, Handler)>) -> Peer {
        let (orders, received) = unbounded();
        let (tell, heard) = unbounded();
        let (ready, is_ready) = bounded(1);
        std::thread::spawn(move || run(port, server, &received, &tell, &ready));
        let reply_queue = is_ready.recv_timeout(Duration::from_secs(30)).expect("it connects");
        Peer { orders, heard, reply_queue }
    }

    /// Publishes to the default exchange, and returns when that has been handed over.
    #[track_caller]
    pub fn send(&self, queue: &str, properties: AmqpProperties, body: &[u8]) {
        let (done, is_done) = bounded(1);
        let properties = Box::new(properties);
        let order = Order::Send { queue: queue.into(), properties, body: body.into(), done };
        self.orders.send(order).expect("the connection lives");
        is_done.recv_timeout(Duration::from_secs(30)).expect("the connection lives");
    }

    /// The properties of a request of the original's.
    pub fn properties(&self, id: &str) -> AmqpProperties {
        AmqpProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(2)
            .with_correlation_id(id.into())
            .with_reply_to(self.reply_queue.clone())
    }

    /// Declares a queue of requests as the original's client does before it sends.
    #[track_caller]
    pub fn declare(&self, queue: &str) {
        let (done, is_done) = bounded(1);
        self.orders.send(Order::Declare { queue: queue.into(), done }).expect("it lives");
        is_done.recv_timeout(Duration::from_secs(30)).expect("the broker agrees");
    }

    /// Sends a request as the original does.
    #[track_caller]
    pub fn request(&self, queue: &str, id: &str, request: &Value) {
        self.send(queue, self.properties(id), request.to_string().as_bytes());
    }

    /// Sends a request and waits for the answer to it.
    #[track_caller]
    pub fn ask(&self, queue: &str, id: &str, request: &Value) -> Value {
        self.request(queue, id, request);
        let answer = self.hear();
        assert_eq!(answer.properties.correlation_id().as_deref(), Some(id));
        answer.json()
    }

    /// The next message, within 30 s.
    #[track_caller]
    pub fn hear(&self) -> Heard {
        self.heard.recv_timeout(Duration::from_secs(30)).expect("a message comes")
    }

    /// The next message, if one comes in this time.
    pub fn hear_within(&self, patience: Duration) -> Option<Heard> {
        self.heard.recv_timeout(patience).ok()
    }
}

fn connect(port: u16) -> Connection {
    let socket = std::net::TcpStream::connect(("127.0.0.1", port)).expect("the broker listens");
    socket.set_nodelay(true).expect("a TCP socket");
    let stream = mio::net::TcpStream::from_stream(socket).expect("a TCP socket");
    let auth = Auth::Plain { username: Broker::USER.into(), password: Broker::PASSWORD.into() };
    let options = ConnectionOptions::default().auth(auth);
    Connection::insecure_open_stream(stream, options, ConnectionTuning::default())
        .expect("the broker lets us in")
}

fn run(
    port: u16,
    server: Option<(String, Handler)>,
    orders: &Receiver<Order>,
    tell: &Sender<Heard>,
    ready: &Sender<String>,
) {
    let mut connection = connect(port);
    let channel = connection.open_channel(None).expect("a channel");
    let is_server = server.is_some();
    let (queue, mut handler) = server.unzip();
    let options = QueueDeclareOptions {
        durable: is_server,
        exclusive: !is_server,
        ..QueueDeclareOptions::default()
    };
    let queue = channel.queue_declare(queue.unwrap_or_default(), options).expect("a queue");
    if is_server {
        channel.qos(0, 1, false).expect("a channel");
    }
    let options = ConsumerOptions { no_ack: !is_server, ..ConsumerOptions::default() };
    let consumer = queue.consume(options).expect("a consumer");
    let hold = consumer.receiver().clone();
    ready.send(queue.name().to_owned()).expect("somebody waits");
    serve(&channel, &consumer, orders, tell, handler.as_mut());
    drop(consumer);
    drop(hold);
}

/// Until the peer is dropped, or the connection lost.
fn serve(
    channel: &Channel,
    consumer: &Consumer<'_>,
    orders: &Receiver<Order>,
    tell: &Sender<Heard>,
    mut handler: Option<&mut Handler>,
) {
    loop {
        select! {
            recv(consumer.receiver()) -> message => {
                let Ok(ConsumerMessage::Delivery(delivery)) = message else { return };
                let heard = Heard {
                    properties: delivery.properties.clone(),
                    body: delivery.body.clone(),
                    redelivered: delivery.redelivered,
                };
                if let Some(handler) = &mut handler {
                    let answer = handler(&heard);
                    if answer_as_original(channel, delivery, &heard, answer).is_err() {
                        return;
                    }
                }
                let _ = tell.send(heard);
            },
            recv(orders) -> order => {
                let (sent, done) = match order {
                    Ok(Order::Send { queue, properties, body, done }) => {
                        let publish = Publish::with_properties(&body, queue, *properties);
                        (channel.basic_publish("", publish), done)
                    }
                    Ok(Order::Declare { queue, done }) => {
                        let options =
                            QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
                        (channel.queue_declare(queue, options).map(|_| ()), done)
                    }
                    Err(_) => return,
                };
                if sent.is_err() {
                    return;
                }
                let _ = done.send(());
            },
        }
    }
}

fn answer_as_original(
    channel: &Channel,
    delivery: Delivery,
    request: &Heard,
    answer: Option<Vec<u8>>,
) -> amiquip::Result<()> {
    if let (Some(queue), Some(answer)) = (request.properties.reply_to(), answer) {
        let mut properties = AmqpProperties::default().with_content_type("application/json".into());
        if let Some(id) = request.properties.correlation_id() {
            properties = properties.with_correlation_id(id.clone());
        }
        channel.basic_publish("", Publish::with_properties(&answer, queue.clone(), properties))?;
    }
    delivery.ack(channel)
}
