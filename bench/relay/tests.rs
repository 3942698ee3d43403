use super::*;
use std::time::Instant as Wall;

/// Answers every byte with itself.
async fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = socket.split();
                let _ended = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    addr
}

async fn relay(round_trip: u64, rate: Option<u64>) -> Relay {
    let round_trip = Duration::from_millis(round_trip);
    let link = Link { round_trip, rate };
    let any = "127.0.0.1:0".parse().unwrap();
    Relay::start(any, echo_server().await, link).await.unwrap()
}

async fn connect(relay: &Relay) -> TcpStream {
    let stream = TcpStream::connect(relay.addr()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends and receives `len` bytes at the same time.
async fn transfer(stream: TcpStream, len: usize) {
    let (mut from, mut to) = stream.into_split();
    let send = async {
        to.write_all(&vec![7; len]).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let receive = async {
        let mut back = Vec::new();
        from.read_to_end(&mut back).await.unwrap();
        assert_eq!(back, vec![7; len]);
    };
    tokio::join!(send, receive);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_round_trip_takes_the_delay_and_the_first_one_more_for_the_connection() {
    let relay = relay(20, None).await;
    let begin = Wall::now();
    let mut stream = connect(&relay).await;
    for _ in 0..10 {
        stream.write_all(b"ping").await.unwrap();
        let mut back = [0; 4];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"ping");
    }
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(220), "{took:?}");
}

#[test]
fn what_enters_the_link_arrives_after_its_length_and_half_a_round_trip_and_no_later() {
    let half = Duration::from_secs(10);
    let link = |rate| Link {
        round_trip: 2 * half,
        rate,
    };
    let free = Way::new(link(None));
    let before = Instant::now();
    let arrival = free.arrival(1 << 20);
    assert!(arrival >= before + half && arrival <= Instant::now() + half);
    // At a byte a second the second one finds the link busy, however slow the machine is.
    let slow = Way::new(link(Some(1)));
    let before = Instant::now();
    let first = slow.arrival(1000);
    let due = half + Duration::from_secs(1000);
    assert!(first >= before + due && first <= Instant::now() + due);
    assert_eq!(slow.arrival(500) - first, Duration::from_secs(500));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rate_holds_for_all_connections_together() {
    let relay = relay(0, Some(2 << 20)).await;
    let begin = Wall::now();
    let (a, b) = (connect(&relay).await, connect(&relay).await);
    tokio::join!(transfer(a, 1 << 20), transfer(b, 1 << 20));
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(990), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delay_does_not_lower_the_rate_of_one_connection() {
    let relay = relay(400, Some(5_000_000)).await;
    let begin = Wall::now();
    let whole = transfer(connect(&relay).await, 10_000_000);
    // Two seconds and two round trips; two minutes if each chunk waited for the one before it to arrive.
    let ended = tokio::time::timeout(Duration::from_secs(60), whole).await;
    assert!(ended.is_ok());
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(2790), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_has_as_much_in_flight_as_fills_the_link() {
    let rate = 12_500_000;
    let way = Way::new(Link {
        round_trip: Duration::from_millis(20),
        rate: Some(rate),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut client = TcpStream::connect(addr).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    let (from, _to) = server.into_split();
    let sending = tokio::spawn(async move { client.write_all(&vec![7; 1 << 20]).await });
    let (queue, mut arriving) = mpsc::unbounded_channel();
    let fill = async {
        // Nothing of it arrives, so that nothing makes room for more.
        let (mut held, mut len) = (Vec::new(), 0);
        while len < rate as usize / 50 {
            let chunk: Chunk = arriving.recv().await.unwrap();
            len += chunk.1.len();
            held.push(chunk);
        }
    };
    tokio::select! {
        ended = enter(from, queue, &way, |_| ()) => panic!("{ended:?}"),
        () = sleep(Duration::from_secs(60)) => panic!("less than fills the link"),
        () = fill => {}
    }
    sending.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_are_exact() {
    let relay = relay(0, None).await;
    let request = b"PUT /x HTTP/1.1\r\nContent-Length: 5\r\n\r\nGET /".repeat(3);
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut stream = connect(&relay).await;
        stream.write_all(&request).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).await.unwrap();
        assert_eq!(back, request);
        streams.push(stream);
    }
    let bytes = 4 * request.len() as u64;
    let counts = relay.counts();
    assert_eq!(counts.connections, 4);
    assert_eq!((counts.bytes_up, counts.bytes_down), (bytes, bytes));
    assert_eq!(counts.requests, BTreeMap::from([("PUT".into(), 12)]));
    assert_eq!(counts.since(&counts), Counts::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_closes_the_connection() {
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = unused.local_addr().unwrap();
    drop(unused);
    let any = "127.0.0.1:0".parse().unwrap();
    let relay = Relay::start(any, gone, Link::default()).await.unwrap();
    let mut back = Vec::new();
    connect(&relay).await.read_to_end(&mut back).await.unwrap();
    assert!(back.is_empty());
}
