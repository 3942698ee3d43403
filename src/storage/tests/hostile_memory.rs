//! Servers whose answers never end, break off, inflate, or come byte by byte: over WebDAV and over S3 each request ends by itself, with the
//! error that it should, and memory stays bounded, exactly counted. The tests run one after the other, because what is counted is
//! what the whole process holds, the server's buffers included.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may panic"
)]

#[path = "support/bomb.rs"]
mod bomb;
#[path = "support/hostile.rs"]
#[allow(
    dead_code,
    reason = "shared with the tests that measure no memory, which use the rest of it"
)]
mod hostile;

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use peak_alloc::PeakAlloc;
use skrin_storage::{ErrorKind, LIST_MAX, Listing, Prefix, Store, StoreError, Times};
use tokio::sync::Mutex;
use tokio::time::timeout;

use hostile::{Answer, Hostile, SHORT, http, name};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// Held by the test that runs.
static ALONE: Mutex<()> = Mutex::const_new(());

/// What requests may hold, whatever the server does.
const ROOM: usize = 64 << 20;
/// As many bytes as an object may have here.
const MAX: usize = 100_000;
const HOUR: Duration = Duration::from_secs(3600);
/// As `SHORT`, for what has to come as far as to a body: a busy machine is no reason to be given up before.
const BEGUN: Times = Times {
    connect: Duration::from_secs(30),
    answer: Duration::from_secs(10),
    ..SHORT
};

/// What ends without help, and holds no more than `room` bytes meanwhile.
async fn within<T>(room: usize, what: &str, work: impl Future<Output = T>) -> T {
    ALLOCATED.reset_peak_usage();
    let before = ALLOCATED.current_usage();
    let done = timeout(Duration::from_secs(600), work).await;
    let held = ALLOCATED.peak_usage().saturating_sub(before);
    assert!(held < room, "{what}: {held} bytes were held");
    done.unwrap_or_else(|_| panic!("{what}: it does not end"))
}

/// How an answer goes on after its first bytes.
#[derive(Clone, Copy)]
enum Then {
    Close,
    Silence,
    /// A byte now and then.
    Drip,
    /// This again and again, as fast as it is taken.
    Flood(&'static str),
}

/// A server that begins each answer with `text`, where `{ok}` stands for the status line that the request hopes for and `{root}` for
/// the element that a listing begins with.
async fn answering(text: &'static str, then: Then) -> Hostile {
    Hostile::start(move |head| {
        let text = spell(text, head);
        match then {
            Then::Close => Answer::Close(text),
            Then::Silence => Answer::Drip(text, HOUR),
            Then::Drip => Answer::Drip(text, Duration::from_millis(100)),
            Then::Flood(more) => Answer::Flood(text, more.repeat(4096_usize.div_ceil(more.len()))),
        }
    })
    .await
}

fn spell(text: &str, head: &str) -> String {
    let dav = head.starts_with("propfind ");
    let root = match dav {
        true => r#"<multistatus xmlns="DAV:">"#,
        false => "<ListBucketResult>",
    };
    text.replace("{ok}", status_line(head))
        .replace("{root}", root)
}

fn status_line(head: &str) -> &'static str {
    match head.starts_with("propfind ") {
        true => "HTTP/1.1 207 Multi-Status\r\n",
        false => "HTTP/1.1 200 OK\r\n",
    }
}

type Outcomes = (Result<Bytes, StoreError>, Result<Listing, StoreError>);

/// Asks for an object and for a listing at once.
async fn read(store: Arc<dyn Store>) -> Outcomes {
    let (object, dir) = (name("x"), Prefix::root());
    tokio::join!(store.get(&object, MAX), store.list(&dir))
}

/// Asks WebDAV and S3.
async fn read_both(stores: [Arc<dyn Store>; 2]) -> [Outcomes; 2] {
    let [webdav, s3] = stores;
    tokio::join!(read(webdav), read(s3)).into()
}

fn is_refused<T: std::fmt::Debug>(what: &str, kind: ErrorKind, result: Result<T, StoreError>) {
    match result {
        Err(error) => assert_eq!(error.kind(), kind, "{what}: {error}"),
        Ok(answer) => panic!("{what}: {answer:?} was believed"),
    }
}

/// Each of these answers is refused, as an object and as a listing, with an error of this kind.
async fn are_refused(kind: ErrorKind, times: Times, answers: &[(&'static str, Then)]) {
    let tries = answers.iter().map(|&(text, then)| async move {
        let server = answering(text, then).await;
        for (object, listing) in read_both(server.once(times)).await {
            is_refused(text, kind, object);
            is_refused(text, kind, listing);
        }
    });
    // All at once: most of the time of a slow answer is waiting.
    within(ROOM, "all answers", join_all(tries)).await;
}

#[tokio::test]
async fn slow_and_silent_servers_are_given_up() {
    let _alone = ALONE.lock().await;
    let answers = [
        ("", Then::Silence),
        ("HTTP/1.1 2", Then::Silence),
        ("{ok}Content-", Then::Silence),
        ("{ok}Content-Length: 90000\r\n\r\n", Then::Silence),
        ("{ok}Content-Length: 90000\r\n\r\nabc", Then::Silence),
        ("{ok}\r\n{root}", Then::Silence),
        (
            "{ok}Transfer-Encoding: chunked\r\n\r\n5\r\nabc",
            Then::Silence,
        ),
        // One byte at a time, each in time: the whole has a deadline.
        ("{ok}Content-Length: 90000\r\n\r\n", Then::Drip),
        ("{ok}\r\n{root}", Then::Drip),
        ("{ok}X-Endless: ", Then::Drip),
        ("{ok}Transfer-Encoding: chunked\r\n\r\nffff\r\n", Then::Drip),
        // An error that takes its time to say which.
        (
            "HTTP/1.1 500 Oops\r\nContent-Length: 90000\r\n\r\n",
            Then::Drip,
        ),
        ("", Then::Flood("HTTP/1.1 100 Continue\r\n\r\n")),
    ];
    are_refused(ErrorKind::Transient, SHORT, &answers).await;
}

#[tokio::test]
async fn a_byte_now_and_then_does_not_buy_the_time_of_the_longest_object() {
    let _alone = ALONE.lock().await;
    let text = "{ok}Content-Length: 4000000000\r\n\r\n{root}";
    let server = answering(text, Then::Drip).await;
    // By its length alone it might take an hour at the slowest rate; the length of a listing nobody knows.
    let reads = server.once(BEGUN).map(|store| async move {
        let (object, dir) = (name("x"), Prefix::root());
        tokio::join!(store.get(&object, 4_000_000_000), store.list(&dir))
    });
    for (object, listing) in within(ROOM, "both", join_all(reads)).await {
        for error in [object.unwrap_err(), listing.unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
            assert!(error.to_string().contains("too slowly"), "{error}");
        }
    }
}

#[tokio::test]
async fn headers_and_interim_answers_without_end_are_given_up() {
    let _alone = ALONE.lock().await;
    let answers = [
        ("{ok}X-Flood: ", Then::Flood("a")),
        ("{ok}", Then::Flood("X-Flood: aaaaaaaaaaaaaaaaaaaaaaaa\r\n")),
        ("HTTP/1.1 200 ", Then::Flood("a")),
        // In the size of a chunk, and behind the last one.
        ("{ok}Transfer-Encoding: chunked\r\n\r\n5;", Then::Flood("a")),
        (
            "{ok}Transfer-Encoding: chunked\r\n\r\n0\r\nX-Flood: ",
            Then::Flood("a"),
        ),
        (
            "{ok}Transfer-Encoding: chunked\r\n\r\n0\r\n",
            Then::Flood("X-Flood: a\r\n"),
        ),
    ];
    are_refused(ErrorKind::Transient, Times::default(), &answers).await;
}

#[tokio::test]
async fn an_object_without_end_is_refused_at_its_bound() {
    let _alone = ALONE.lock().await;
    let answers = [
        ("{ok}\r\n", Then::Flood("x")),
        (
            "{ok}Content-Length: 1000000000000\r\n\r\n",
            Then::Flood("x"),
        ),
        (
            "{ok}Transfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n",
            Then::Flood("x"),
        ),
        (
            "{ok}Transfer-Encoding: chunked\r\n\r\n",
            Then::Flood("1\r\nx\r\n"),
        ),
    ];
    are_refused(ErrorKind::Broken, Times::default(), &answers).await;
    // What comes with an error is not read to its end either.
    let denied = [("HTTP/1.1 403 Forbidden\r\n\r\n", Then::Flood("x"))];
    are_refused(ErrorKind::Denied, Times::default(), &denied).await;
    let elsewhere = [(
        "HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.2/\r\n\r\n",
        Then::Flood("x"),
    )];
    are_refused(ErrorKind::Untrusted, Times::default(), &elsewhere).await;
}

#[tokio::test]
async fn a_range_without_end_is_refused() {
    let _alone = ALONE.lock().await;
    for (range, then, kind) in [
        ("10-1009/9999", Then::Flood("x"), ErrorKind::Broken),
        ("10-1009/9999", Then::Close, ErrorKind::Broken),
        ("10-1009/9999", Then::Silence, ErrorKind::Transient),
        ("10-1009/9999", Then::Drip, ErrorKind::Transient),
        (
            "10-18446744073709551615/*",
            Then::Flood("x"),
            ErrorKind::Broken,
        ),
        ("0-1009/9999", Then::Flood("x"), ErrorKind::Broken),
        ("10-11/9999", Then::Flood("x"), ErrorKind::Broken),
    ] {
        let text =
            format!("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {range}\r\n\r\nxx");
        let server = answering(text.leak(), then).await;
        let times = match kind {
            ErrorKind::Transient => SHORT,
            _ => Times::default(),
        };
        for store in server.once(times) {
            let object = name("x");
            let work = store.get_range(&object, 10, 1000);
            is_refused(range, kind, within(ROOM, range, work).await);
        }
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_object() {
    let _alone = ALONE.lock().await;
    let answers = [
        ("", Then::Close),
        ("nonsense\r\n\r\n", Then::Close),
        ("HTTP/1.1 2", Then::Close),
        ("{ok}Content-Le", Then::Close),
        ("{ok}Content-Length: 10\r\n\r\n", Then::Close),
        ("{ok}Content-Length: 10\r\n\r\nabc", Then::Close),
        // No length, and more than one.
        ("{ok}Content-Length: -1\r\n\r\nabc", Then::Close),
        (
            "{ok}Content-Length: 99999999999999999999\r\n\r\nabc",
            Then::Close,
        ),
        (
            "{ok}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
            Then::Close,
        ),
        // Chunks: cut, the last one missing, shorter and longer than they say, and of no length that there is.
        (
            "{ok}Transfer-Encoding: chunked\r\n\r\n5\r\nabc",
            Then::Close,
        ),
        (
            "{ok}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            Then::Close,
        ),
        (
            "{ok}Transfer-Encoding: chunked\r\n\r\n5\r\nabc\r\n0\r\n\r\n",
            Then::Close,
        ),
        (
            "{ok}Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
            Then::Close,
        ),
        (
            "{ok}Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
            Then::Close,
        ),
        (
            "{ok}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc",
            Then::Close,
        ),
    ];
    are_refused(ErrorKind::Transient, Times::default(), &answers).await;
    let nothing = [("HTTP/1.1 204 No Content\r\n\r\n", Then::Close)];
    are_refused(ErrorKind::Broken, Times::default(), &nothing).await;
}

/// What HTTP cannot tell from a whole answer: an object is what its seal says, and a listing is known to be cut.
#[tokio::test]
async fn a_listing_that_breaks_off_is_no_shorter_listing() {
    let _alone = ALONE.lock().await;
    for text in [
        "{ok}\r\n{root}",
        "{ok}Content-Length: 9\r\n\r\n{root}",
        "{ok}Transfer-Encoding: chunked\r\n\r\n9\r\n<resource\r\n0\r\n\r\n",
        "HTTP/1.0 207 Multi-Status\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\n",
    ] {
        let server = answering(text, Then::Close).await;
        let work = read_both(server.once(Times::default()));
        for (object, listing) in within(ROOM, text, work).await {
            assert!(listing.is_err(), "{text}");
            if text.starts_with("{ok}") {
                is_refused(text, ErrorKind::Broken, listing);
                assert!(object.unwrap().len() < 30, "{text}");
            }
        }
    }
}

#[tokio::test]
async fn xml_that_grows_nests_or_never_closes_is_refused_over_the_wire() {
    let _alone = ALONE.lock().await;
    let laughs = concat!(
        "{ok}\r\n",
        r#"<!DOCTYPE l [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">"#,
        r#"<!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;"><!ENTITY e "&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;"><!ENTITY f "&e;&e;&e;&e;&e;&e;&e;&e;&e;&e;">"#,
        r#"<!ENTITY g "&f;&f;&f;&f;&f;&f;&f;&f;&f;&f;"><!ENTITY h "&g;&g;&g;&g;&g;&g;&g;&g;&g;&g;"><!ENTITY i "&h;&h;&h;&h;&h;&h;&h;&h;&h;&h;">"#,
        "]>{root}<x>&i;</x>",
    );
    for (text, then, says) in [
        (laughs, Then::Close, "entities of its own"),
        (
            "{ok}\r\n{root}<x>&lol;</x>",
            Then::Close,
            "entities of its own",
        ),
        (
            "{ok}\r\n<!DOCTYPE x SYSTEM \"file:///etc/passwd\">{root}",
            Then::Close,
            "entities of its own",
        ),
        (
            "{ok}\r\n<!DOCTYPE x [",
            Then::Flood("<!ENTITY a \"b\">"),
            "limit",
        ),
        ("{ok}\r\n{root}", Then::Flood("<x>"), "limit"),
        (
            "{ok}\r\n{root}",
            Then::Flood("<x xmlns:a=\"urn:a\">"),
            "limit",
        ),
        ("{ok}\r\n{root}", Then::Flood("y"), "limit"),
        ("{ok}\r\n{root}<x>", Then::Flood("&#65;"), "limit"),
        ("{ok}\r\n{root}<x ", Then::Flood("a=\"1\" "), "limit"),
        ("{ok}\r\n{root}<x a=\"", Then::Flood("y"), "limit"),
        ("{ok}\r\n{root}<", Then::Flood("y"), "limit"),
        ("{ok}\r\n{root}<!--", Then::Flood("y"), "limit"),
        ("{ok}\r\n{root}<![CDATA[", Then::Flood("y"), "limit"),
        ("{ok}\r\n<?x ", Then::Flood("y"), "limit"),
        ("{ok}\r\n", Then::Flood("<html>"), "it is no"),
    ] {
        let server = answering(text, then).await;
        for store in server.once(Times::default()) {
            let dir = Prefix::root();
            let error = within(ROOM, text, store.list(&dir)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Broken, "{text}: {error}");
            assert!(error.to_string().contains(says), "{text}: {error}");
        }
    }
}

/// Nobody would notice if our bombs were none.
#[tokio::test]
async fn the_bomb_inflates_to_more_than_requests_may_hold() {
    let _alone = ALONE.lock().await;
    let bomb = bomb::gzip("", "\0");
    assert!(bomb.len() * 1000 < bomb::INFLATED);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bomb.gz");
    std::fs::write(&path, &bomb).unwrap();
    let mut gzip = Command::new("gzip")
        .arg("-dc")
        .arg(&path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = gzip.stdout.take().unwrap();
    let mut inflated = out.take(2 * ROOM as u64);
    let n = std::io::copy(&mut inflated, &mut std::io::sink()).unwrap();
    drop(inflated);
    // It is told by the closed pipe, or killed.
    let _ = gzip.kill();
    gzip.wait().unwrap();
    assert_eq!(n, 2 * ROOM as u64);
}

#[tokio::test]
async fn a_compressed_answer_is_refused_and_never_undone() {
    let _alone = ALONE.lock().await;
    let root = r#"<multistatus xmlns="DAV:">"#;
    for (encoding, bomb) in [
        ("gzip", bomb::gzip("", "\0")),
        ("gzip", bomb::gzip(root, "<a/>")),
        ("x-gzip", bomb::gzip("<ListBucketResult>", "<a/>")),
        ("deflate", bomb::zlib("", "\0")),
        ("deflate", bomb::zlib(root, "<a/>")),
        ("br", bomb::brotli()),
        ("zstd", bomb::zstd()),
        ("gzip, identity", bomb::gzip("", "\0")),
    ] {
        let bomb = Bytes::from(bomb);
        let (told, untold) = (bomb.clone(), bomb.clone());
        let server = Hostile::start(move |head| {
            let header = format!("Content-Encoding: {encoding}\r\n");
            Answer::Bytes(with_body(head, &header, &told))
        })
        .await;
        for store in server.once(Times::default()) {
            let (object, dir) = (name("x"), Prefix::root());
            let work = async {
                tokio::join!(
                    store.get(&object, 10 << 20),
                    store.get_range(&object, 1, 2),
                    store.list(&dir),
                )
            };
            let (whole, part, listing) = within(ROOM, encoding, work).await;
            for error in [whole.err(), part.err(), listing.err()] {
                let error = error.unwrap();
                assert_eq!(error.kind(), ErrorKind::Broken, "{error}");
                assert!(error.to_string().contains("compressed"), "{error}");
            }
        }
        let asked = server.heads();
        let identity = |head: &String| head.contains("accept-encoding: identity\r\n");
        assert!(asked.iter().all(identity));
        // Where nobody says so, it is what it is.
        let server = Hostile::start(move |head| Answer::Bytes(with_body(head, "", &untold))).await;
        for store in server.once(Times::default()) {
            let (object, dir) = (name("x"), Prefix::root());
            let work = async { tokio::join!(store.get(&object, 10 << 20), store.list(&dir)) };
            let (object, listing) = within(ROOM, encoding, work).await;
            assert!(object.unwrap() == bomb, "{encoding}");
            is_refused(encoding, ErrorKind::Broken, listing);
        }
    }
    let server =
        Hostile::start(|_| Answer::Send(http("200 OK", "Content-Encoding: identity\r\n", "plain")))
            .await;
    for store in server.once(Times::default()) {
        assert_eq!(store.get(&name("x"), 10).await.unwrap(), "plain");
    }
}

fn with_body(head: &str, header: &str, body: &[u8]) -> Bytes {
    let (status, len) = (status_line(head), body.len());
    let head = format!("{status}Content-Length: {len}\r\n{header}\r\n");
    [head.as_bytes(), body].concat().into()
}

#[tokio::test]
async fn an_error_that_inflates_stays_the_error_that_its_status_is() {
    let _alone = ALONE.lock().await;
    let bomb = bomb::gzip("<Error>", "<a/>");
    let server = Hostile::start(move |_| {
        let len = bomb.len();
        let head = format!(
            "HTTP/1.1 403 Forbidden\r\nContent-Length: {len}\r\nContent-Encoding: gzip\r\n\r\n"
        );
        Answer::Bytes([head.as_bytes(), &bomb[..]].concat().into())
    })
    .await;
    let work = read_both(server.once(Times::default()));
    for (object, listing) in within(ROOM, "an error", work).await {
        is_refused("object", ErrorKind::Denied, object);
        is_refused("listing", ErrorKind::Denied, listing);
    }
}

/// As many entries as a listing may have, and no more, are held.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_without_end_is_refused() {
    let _alone = ALONE.lock().await;
    let server = Hostile::start(|head| {
        let entry = match head.starts_with("propfind ") {
            true => "<response><href>a</href></response>",
            false => "<Contents><Key>v/a</Key></Contents>",
        };
        Answer::Flood(spell("{ok}\r\n{root}", head), entry.repeat(1000))
    })
    .await;
    let lists = server
        .once(Times::default())
        .map(|store| tokio::spawn(async move { store.list(&Prefix::root()).await.unwrap_err() }));
    // Two listings, each with a table that may just have doubled: the old one and the new one.
    let room = ROOM + 2 * LIST_MAX * 192;
    for list in within(room, "two listings", join_all(lists)).await {
        let error = list.unwrap();
        assert_eq!(error.kind(), ErrorKind::Broken, "{error}");
        let says = error.to_string();
        assert!(
            says.contains("entries") || says.contains("no end"),
            "{says}"
        );
    }
}

/// Each answer is one page, and promises another one.
async fn paging(page: impl Fn(usize) -> String + Send + Sync + 'static) -> Hostile {
    let n = AtomicUsize::new(0);
    Hostile::start(move |_| {
        let page = page(n.fetch_add(1, Ordering::Relaxed));
        let body =
            format!("<ListBucketResult><IsTruncated>true</IsTruncated>{page}</ListBucketResult>");
        Answer::Send(http("200 OK", "", &body))
    })
    .await
}

#[tokio::test]
async fn pages_that_bring_nothing_or_lead_back_come_to_an_end() {
    let _alone = ALONE.lock().await;
    let token = |token: &str| format!("<NextContinuationToken>{token}</NextContinuationToken>");
    let entry = "<Contents><Key>v/a</Key></Contents>";
    let pages: [Box<dyn Fn(usize) -> String + Send + Sync>; 4] = [
        // Nothing in it, with a new token and with the same.
        Box::new(move |n| token(&n.to_string())),
        Box::new(move |_| token("same")),
        Box::new(move |_| entry.to_owned() + &token("same")),
        // A token that fits into no address.
        Box::new(move |_| entry.to_owned() + &token(&"/".repeat(60_000))),
    ];
    for (n, page) in pages.into_iter().enumerate() {
        let server = paging(page).await;
        let [_, s3] = server.once(Times::default());
        let (what, dir) = (format!("page {n}"), Prefix::root());
        is_refused(
            &what,
            ErrorKind::Broken,
            within(ROOM, &what, s3.list(&dir)).await,
        );
        assert!(server.heads().len() <= 2, "{what}");
    }
}

#[tokio::test]
async fn a_listing_of_s3_that_shows_only_what_is_not_ours_comes_to_an_end() {
    let _alone = ALONE.lock().await;
    let server = paging(|n| {
        format!(
            "<NextContinuationToken>{n}</NextContinuationToken>
            <Contents><Key>elsewhere/{n}</Key><Size>1</Size></Contents>"
        )
    })
    .await;
    let [_, s3] = server.once(Times::default());
    let dir = Prefix::root();
    // Where the machine stands still for seconds, one of these thousands of requests is given up.
    for _ in 0..5 {
        let asked = server.heads().len();
        let error = within(ROOM, "pages", s3.list(&dir)).await.unwrap_err();
        assert!(server.heads().len() - asked < 5000);
        if !error.is_transient() {
            assert_eq!(error.kind(), ErrorKind::Broken, "{error}");
            assert!(error.to_string().contains("no end"), "{error}");
            return;
        }
    }
    panic!("it never comes to its end");
}

#[tokio::test]
async fn a_page_of_s3_with_keys_without_end_is_refused() {
    let _alone = ALONE.lock().await;
    let server = Hostile::start(|head| {
        let key = "x".repeat(60_000);
        let entry = format!("<Contents><Key>elsewhere/{key}</Key></Contents>");
        Answer::Flood(spell("{ok}\r\n{root}", head), entry)
    })
    .await;
    let [_, s3] = server.once(Times::default());
    let dir = Prefix::root();
    let listing = within(ROOM, "a page", s3.list(&dir)).await;
    is_refused("a page", ErrorKind::Broken, listing);
}

/// It passes over what is not ours and holds nothing of it, and has a deadline however fast it comes.
#[tokio::test]
async fn a_listing_of_webdav_that_shows_only_what_is_not_ours_comes_to_an_end() {
    let _alone = ALONE.lock().await;
    let server = Hostile::start(|head| {
        let entry = format!(
            "<response><href>/elsewhere/{}</href></response>",
            "x".repeat(60_000)
        );
        Answer::Flood(spell("{ok}\r\n{root}", head), entry)
    })
    .await;
    let fast = Times {
        slowest: 1 << 30,
        ..SHORT
    };
    let [webdav, _] = server.once(fast);
    let dir = Prefix::root();
    let listing = within(ROOM, "a listing", webdav.list(&dir)).await;
    is_refused("a listing", ErrorKind::Transient, listing);
}

/// A server that answers a put before it has read the body, and closes the connection or leaves it as it is.
#[tokio::test]
async fn a_put_that_is_answered_before_its_body_was_read_is_never_durable() {
    let _alone = ALONE.lock().await;
    for status in ["201 Created", "200 OK", "204 No Content"] {
        for closes in [true, false] {
            let server = Hostile::rash(move |head| {
                let text = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                match (head.starts_with("put "), closes) {
                    (true, true) => Answer::Close(text),
                    (true, false) => Answer::Drip(text, HOUR),
                    // Its directory can be made, and then there is nothing.
                    (false, _) if head.starts_with("mkcol ") => Answer::Send(text),
                    (false, _) => Answer::Send(http("404 Not Found", "", "")),
                }
            })
            .await;
            for store in server.once(Times::default()) {
                let (object, body) = (name("x"), Bytes::from(vec![1; 8 << 20]));
                let put = skrin_storage::put_confirmed(&*store, &object, body);
                is_refused(
                    status,
                    ErrorKind::Transient,
                    within(ROOM, status, put).await,
                );
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_reads_a_body_byte_by_byte_does_not_hold_it_for_ever() {
    let _alone = ALONE.lock().await;
    let server = Hostile::rash(|head| match head.starts_with("put ") {
        true => Answer::Sip,
        false => Answer::Send(http("201 Created", "", "")),
    })
    .await;
    // Eight MiB at eight MiB a second; ten days at the rate of the server.
    let times = Times {
        slowest: 8 << 20,
        ..BEGUN
    };
    let puts = server.once(times).map(|store| async move {
        let body = Bytes::from(vec![1; 8 << 20]);
        store.put(&name("x"), body).await
    });
    for put in within(ROOM, "two puts", join_all(puts)).await {
        is_refused("a put", ErrorKind::Transient, put);
    }
    assert_eq!(server.count("put "), 2);
}
