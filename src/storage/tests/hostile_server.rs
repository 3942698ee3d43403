//! Servers that lie, redirect and refuse, over a socket of our own. Those that stall and never end: hostile_memory.rs.
#![allow(clippy::unwrap_used)] // Helpers of tests; the lint only excuses the test functions themselves.

#[path = "support/hostile.rs"]
#[allow(
    dead_code,
    reason = "shared with the tests that measure memory, which use the rest of it"
)]
mod hostile;

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use skrin_storage::{Credentials, ErrorKind, Prefix, Store, VaultUrl, open};
use tokio::time::{Instant, timeout};

use hostile::{Answer, BASIC, Hostile, http, name, options};

/// What might go on for ever ends; how soon is a matter of the machine.
async fn in_time<T>(work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), work).await.unwrap()
}

#[tokio::test]
async fn a_redirect_to_another_host_is_refused_and_carries_nothing_there() {
    let thief = Hostile::start(|_| Answer::Send(http("200 OK", "", "loot"))).await;
    // The same machine under another port is another server already.
    let location = format!("Location: http://127.0.0.1:{}/v/x\r\n", thief.port);
    let server = Hostile::start(move |head| {
        if head.contains("authorization: ") || head.contains("x-amz-signature=") {
            Answer::Send(http("302 Found", &location, ""))
        } else {
            Answer::Send(http("401 Unauthorized", BASIC, ""))
        }
    })
    .await;
    let (store, s3) = (server.webdav(Some("anna")), server.s3());
    for error in [
        store.get(&name("x"), 10).await.map(drop),
        store.put(&name("x"), Bytes::from_static(b"1")).await,
        store.list(&Prefix::root()).await.map(drop),
        store.delete(&name("x")).await,
    ] {
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
        assert!(error.to_string().contains("127.0.0.1"), "{error}");
    }
    // A signed address is as good as a password.
    let asked = server.heads().len();
    for error in [
        s3.get(&name("x"), 10).await.map(drop),
        s3.get_range(&name("x"), 1, 1).await.map(drop),
        s3.put(&name("x"), Bytes::from_static(b"1")).await,
        s3.list(&Prefix::root()).await.map(drop),
        s3.delete(&name("x")).await,
    ] {
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
        assert!(error.to_string().contains("region"), "{error}");
    }
    assert_eq!(server.heads().len(), asked + 5);
    assert!(thief.heads().is_empty());
    // From http to https of the same host, too.
    let elsewhere = Hostile::start(|_| {
        let location = "Location: https://127.0.0.1/v/x\r\n";
        Answer::Send(http("301 Moved", location, ""))
    })
    .await;
    for store in [elsewhere.webdav(None), elsewhere.s3()] {
        let error = store.get(&name("x"), 10).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
    }
}

#[tokio::test]
async fn a_redirect_within_the_server_is_followed_a_few_times() {
    let server = Hostile::start(|head| {
        if head.starts_with("get /v/x ") {
            Answer::Send(http("307 Moved", "Location: /elsewhere/x\r\n", ""))
        } else if head.starts_with("get /elsewhere/x ") {
            Answer::Send(http("200 OK", "", "found"))
        } else {
            Answer::Send(http("302 Found", "Location: loop\r\n", ""))
        }
    })
    .await;
    let [store, s3] = server.patient();
    assert_eq!(store.get(&name("x"), 10).await.unwrap(), "found");
    let error = store.get(&name("y"), 10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Broken, "{error}");
    let asked = server.heads().len();
    assert!(asked < 10);
    // What is signed for one address is of no use at another.
    let error = s3.get(&name("y"), 10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
    assert_eq!(server.heads().len(), asked + 1);
}

#[tokio::test]
async fn a_redirect_that_leads_nowhere_is_an_error() {
    let far = format!("Location: /{}\r\n", "x".repeat(100_000));
    for location in ["", "Location: http://[\r\n", &far] {
        let location = location.to_owned();
        let server = Hostile::start(move |_| Answer::Send(http("308 Moved", &location, ""))).await;
        for (store, kind) in server
            .patient()
            .into_iter()
            .zip([ErrorKind::Broken, ErrorKind::Untrusted])
        {
            let errors = [
                store.get(&name("x"), 10).await.map(drop),
                store.list(&Prefix::root()).await.map(drop),
                store.put(&name("x"), Bytes::from_static(b"1")).await,
            ];
            for error in errors {
                let error = error.unwrap_err();
                assert_eq!(error.kind(), kind, "{error}");
            }
        }
        assert_eq!(server.heads().len(), 6);
    }
}

#[tokio::test]
async fn a_refused_password_is_sent_once_however_many_ask() {
    let server = Hostile::start(|_| Answer::Send(http("401 Unauthorized", BASIC, ""))).await;
    let store = server.webdav(Some("anna"));
    let tasks: Vec<_> = (0..30)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.get(&name("x"), 10).await.unwrap_err() })
        })
        .collect();
    for task in tasks {
        let error = task.await.unwrap();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.to_string().contains("anna"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
    let tried = server.heads();
    let tried = tried.iter().filter(|head| head.contains("authorization: "));
    assert_eq!(tried.count(), 1);
}

#[tokio::test]
async fn a_forbidden_object_is_not_asked_for_again() {
    let server = Hostile::start(|_| Answer::Send(http("403 Forbidden", "", "no"))).await;
    for (store, n) in [(server.webdav(None), 1), (server.s3(), 2)] {
        let error = store.get(&name("x"), 10).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert_eq!(server.count("get"), n);
    }
}

#[tokio::test]
async fn busy_servers_are_given_the_pause_that_they_ask_for() {
    for status in [
        "429 Too Many Requests",
        "503 Service Unavailable",
        "423 Locked",
    ] {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let times = Arc::clone(&asked);
        let server = Hostile::start(move |_| {
            let mut times = times.lock();
            times.push(Instant::now());
            match times.len() % 2 {
                1 => Answer::Send(http(status, "Retry-After: 1\r\n", "")),
                _ => Answer::Send(http("200 OK", "", "ok")),
            }
        })
        .await;
        for store in server.patient() {
            asked.lock().clear();
            assert_eq!(store.get(&name("x"), 10).await.unwrap(), "ok");
            let times = asked.lock().clone();
            assert_eq!(times.len(), 2, "{status}");
            assert!(times[1] - times[0] >= Duration::from_secs(1), "{status}");
        }
    }
}

#[tokio::test]
async fn a_server_that_asks_for_an_hour_is_not_waited_for() {
    let server = Hostile::start(|_| {
        Answer::Send(http("503 Service Unavailable", "Retry-After: 3600\r\n", ""))
    })
    .await;
    let [store, _] = server.patient();
    let error = in_time(store.get(&name("x"), 10)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient);
    assert_eq!(error.pause(), Some(Duration::from_secs(3600)));
    assert_eq!(server.count("get"), 1);
}

/// What a server answers to "bytes 10-19", and what that must lead to.
async fn range_of(
    answer: impl Fn(&str) -> Answer + Send + Sync + 'static,
) -> [Result<Bytes, ErrorKind>; 2] {
    let server = Hostile::start(answer).await;
    let mut results = [Ok(Bytes::new()), Ok(Bytes::new())];
    for (result, store) in results.iter_mut().zip(server.patient()) {
        let range = store.get_range(&name("x"), 10, 10).await;
        *result = range.map_err(|error| error.kind());
    }
    assert!(
        server
            .heads()
            .iter()
            .all(|head| head.contains("range: bytes=10-19\r\n"))
    );
    results
}

#[tokio::test]
async fn ranges_are_believed_only_where_they_are_exact() {
    let whole = "0123456789abcdefghijklmnop";
    let part = |range: &'static str, body: &'static str| {
        move |_: &str| {
            let header = format!("Content-Range: bytes {range}\r\n");
            Answer::Send(http("206 Partial Content", &header, body))
        }
    };
    let good: Bytes = "abcdefghij".into();
    let all = |result: Result<Bytes, ErrorKind>| [result.clone(), result];
    assert_eq!(
        range_of(part("10-19/26", "abcdefghij")).await,
        all(Ok(good.clone()))
    );
    assert_eq!(
        range_of(part("10-19/*", "abcdefghij")).await,
        all(Ok(good.clone()))
    );
    // A server that ignores ranges, and one that says 200 but sends the range (rclone's S3).
    let ignores = move |_: &str| Answer::Send(http("200 OK", "", whole));
    assert_eq!(range_of(ignores).await, all(Ok(good.clone())));
    let mislabels = |_: &str| {
        Answer::Send(http(
            "200 OK",
            "Content-Range: bytes 10-19/26\r\n",
            "abcdefghij",
        ))
    };
    assert_eq!(range_of(mislabels).await, all(Ok(good)));
    let broken = all(Err(ErrorKind::Broken));
    for (range, body) in [
        ("0-9/26", "abcdefghij"),
        ("10-20/26", "abcdefghijk"),
        ("11-20/26", "bcdefghijk"),
        ("10-14/15", "abcde"),
        ("10-19/26", "abcdefghijk"),
        ("10-19/26", "abcde"),
        ("nonsense", "abcdefghij"),
    ] {
        assert_eq!(range_of(part(range, body)).await, broken, "{range} {body}");
    }
    let without_range = |_: &str| Answer::Send(http("206 Partial Content", "", "abcdefghij"));
    assert_eq!(range_of(without_range).await, broken);
    let short = |_: &str| Answer::Send(http("200 OK", "", "0123456789abc"));
    assert_eq!(range_of(short).await, broken);
    let beyond = |_: &str| Answer::Send(http("416 Range Not Satisfiable", "", ""));
    assert_eq!(range_of(beyond).await, broken);
}

#[tokio::test]
async fn listed_names_lead_nowhere_but_into_the_directory_that_was_asked_for() {
    let paths = [
        "..", "../x", "%2e%2e/x", "a%2fb", "a/b", ".", "", "%00", "x%0d%0ay", "A", "c\\d", "good",
    ];
    let dav: String = paths
        .iter()
        .flat_map(|path| {
            [
                format!("/v/d/{path}"),
                format!("http://thief.invalid/v/d/{path}"),
            ]
        })
        .chain([
            "http://thief.invalid/loot".into(),
            "//thief.invalid/loot".into(),
        ])
        .map(|href| format!("<response><href>{href}</href></response>"))
        .collect();
    let keys: String = paths
        .iter()
        .flat_map(|path| [format!("v/d/{path}"), (*path).to_owned()])
        .map(|key| format!("<Contents><Key>{key}</Key><Size>1</Size></Contents>"))
        .collect();
    let server = Hostile::start(move |head| match head.starts_with("propfind ") {
        true => {
            let body = format!(r#"<multistatus xmlns="DAV:">{dav}</multistatus>"#);
            Answer::Send(http("207 Multi-Status", "", &body))
        }
        false => {
            let body = format!("<ListBucketResult>{keys}</ListBucketResult>");
            Answer::Send(http("200 OK", "", &body))
        }
    })
    .await;
    for store in [server.webdav(None), server.s3()] {
        let listing = store.list(&Prefix::new("d").unwrap()).await.unwrap();
        let names: Vec<_> = listing.objects.iter().map(|o| o.name.as_str()).collect();
        assert_eq!(names, ["d/good"]);
        assert!(listing.dirs.is_empty(), "{:?}", listing.dirs);
    }
    for head in server.heads() {
        assert!(head.contains("127.0.0.1"), "{head}");
    }
}

/// How a server that says 201 to every put treats what it was given.
#[derive(Clone, Copy, Debug)]
enum Keeps {
    Nothing,
    Half,
    Other,
    AllButTheEnd,
    Everything,
}

#[tokio::test]
async fn a_put_that_was_answered_and_not_kept_is_never_durable() {
    use skrin_storage::{put_confirmed, put_verified};
    let body = Bytes::from(vec![b'a'; 100_000]);
    for keeps in [
        Keeps::Nothing,
        Keeps::Half,
        Keeps::Other,
        Keeps::AllButTheEnd,
        Keeps::Everything,
    ] {
        let kept = match keeps {
            Keeps::Nothing => None,
            Keeps::Half => Some("a".repeat(50_000)),
            Keeps::Other => Some("b".repeat(100_000)),
            Keeps::AllButTheEnd => Some("a".repeat(99_990) + &"b".repeat(10)),
            Keeps::Everything => Some("a".repeat(100_000)),
        };
        let server = Hostile::start(move |head| {
            let answer = match (&kept, head.starts_with("get ")) {
                (_, false) => http("201 Created", "", ""),
                (None, true) => http("404 Not Found", "", ""),
                (Some(kept), true) => http("200 OK", "", kept),
            };
            Answer::Send(answer)
        })
        .await;
        for store in [server.webdav(None), server.s3()] {
            let confirmed = put_confirmed(&*store, &name("x"), body.clone()).await;
            let verified = put_verified(&*store, &name("x"), body.slice(..50_000)).await;
            match keeps {
                Keeps::Everything => assert!(confirmed.is_ok(), "{confirmed:?}"),
                _ => {
                    let error = confirmed.unwrap_err();
                    assert!(error.to_string().contains("x"), "{error}");
                }
            }
            // It has half of what the other put: the bytes must be these and no more.
            assert_eq!(verified.is_ok(), matches!(keeps, Keeps::Half), "{keeps:?}");
        }
    }
}

#[tokio::test]
async fn a_full_disk_is_told_by_507_or_by_the_quota() {
    let quota = |available: u64| {
        format!(
            r#"<multistatus xmlns="DAV:"><response><href>/v/</href><propstat><prop>
            <quota-available-bytes>{available}</quota-available-bytes><quota-used-bytes>7</quota-used-bytes>
            </prop><status>HTTP/1.1 200 OK</status></propstat></response></multistatus>"#
        )
    };
    for (status, available, kind) in [
        ("507 Insufficient Storage", 1 << 30, ErrorKind::Full),
        ("500 Internal Server Error", 3, ErrorKind::Full),
        ("405 Method Not Allowed", 3, ErrorKind::Full),
        ("500 Internal Server Error", 1 << 30, ErrorKind::Transient),
        ("413 Too Large", 3, ErrorKind::Unsupported),
    ] {
        let server = Hostile::start(move |head| {
            if head.starts_with("put ") {
                Answer::Send(http(status, "", ""))
            } else {
                Answer::Send(http("207 Multi-Status", "", &quota(available)))
            }
        })
        .await;
        let store = server.webdav(None);
        let bytes = Bytes::from_static(b"ten bytes.");
        let error = store.put(&name("x"), bytes).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let capacity = store.capacity().await.unwrap();
        assert_eq!(capacity.total, Some(available + 7));
    }
}

#[tokio::test]
async fn a_server_that_speaks_no_webdav_is_named_as_such() {
    for status in ["405 Method Not Allowed", "501 Not Implemented", "200 OK"] {
        let server = Hostile::start(move |_| Answer::Send(http(status, "", "<html>"))).await;
        let error = server.webdav(None).list(&Prefix::root()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert_eq!(server.heads().len(), 1);
    }
}

#[tokio::test]
async fn requests_hold_no_more_than_they_need_to() {
    let server = Hostile::start(|head| {
        let status = if head.starts_with("put") {
            "201 Created"
        } else {
            "204 No Content"
        };
        Answer::Send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"))
    })
    .await;
    let store = server.webdav(None);
    store.put(&name("a/b"), Bytes::new()).await.unwrap();
    store.delete(&name("a/b")).await.unwrap();
    let heads = server.heads();
    assert!(heads[0].starts_with("put /v/a/b http/1.1") && heads[0].contains("content-length: 0"));
    assert!(heads[1].contains("x-nc-skip-trashbin: true"));
    for head in &heads {
        for unwanted in [
            "referer",
            "cookie",
            "if-match",
            "if-none-match",
            "authorization",
            "expect",
        ] {
            assert!(!head.contains(&format!("\r\n{unwanted}: ")), "{head}");
        }
    }
}

#[tokio::test]
async fn errors_of_s3_say_what_to_do() {
    let cases = [
        (
            "403 Forbidden",
            "SignatureDoesNotMatch",
            ErrorKind::Denied,
            "the test",
        ),
        (
            "403 Forbidden",
            "RequestTimeTooSkewed",
            ErrorKind::Denied,
            "clock",
        ),
        (
            "404 Not Found",
            "NoSuchBucket",
            ErrorKind::NoPlace,
            "bucket",
        ),
        (
            "404 Not Found",
            "NoSuchKey",
            ErrorKind::Absent,
            "no such object",
        ),
        (
            "301 Moved",
            "PermanentRedirect",
            ErrorKind::Untrusted,
            "region=eu-west-1",
        ),
        (
            "400 Bad Request",
            "RequestTimeout",
            ErrorKind::Transient,
            "RequestTimeout",
        ),
        (
            "503 Slow Down",
            "SlowDown",
            ErrorKind::Transient,
            "SlowDown",
        ),
    ];
    for (status, code, kind, says) in cases {
        let server = Hostile::start(move |_| {
            let body = format!("<Error><Code>{code}</Code></Error>");
            Answer::Send(http(status, "x-amz-bucket-region: eu-west-1\r\n", &body))
        })
        .await;
        let error = server.s3().get(&name("x"), 10).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let shown = error.to_string();
        assert!(shown.contains(says), "{shown}");
        assert!(!shown.contains("X-Amz-Signature") && !shown.contains("hunter2"));
    }
}

#[tokio::test]
async fn nothing_listens_there() {
    let port = {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.local_addr().unwrap().port()
    };
    let url = format!("webdav://127.0.0.1:{port}/v");
    let store = open(
        &VaultUrl::parse(&url).unwrap(),
        options(Credentials::Anonymous),
    )
    .unwrap();
    let error = store.get(&name("x"), 10).await.unwrap_err();
    assert!(error.is_transient());
    let mut shown = Vec::new();
    write!(shown, "{error}").unwrap();
    let shown = String::from_utf8(shown).unwrap();
    assert!(
        shown.contains("cannot be reached") && shown.contains(&url),
        "{shown}"
    );
}

/// A server with these collections, which answers as RFC 4918 says.
async fn with_collections(there: &[&str]) -> Hostile {
    let there: Vec<String> = there.iter().map(|dir| format!("/v/{dir}")).collect();
    let there = Mutex::new(there);
    Hostile::start(move |head| {
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let parent = path.trim_end_matches('/').rsplit_once('/').unwrap().0;
        let mut there = there.lock();
        let has = |dir: &str| dir == "/v" || there.iter().any(|d| d == dir);
        let (known, fits) = (has(path.trim_end_matches('/')), has(parent));
        let empty = format!(
            r#"<multistatus xmlns="DAV:"><response><href>{path}</href></response></multistatus>"#
        );
        Answer::Send(match method {
            "propfind" if known => http("207 Multi-Status", "", &empty),
            "propfind" => http("404 Not Found", "", ""),
            "mkcol" if known => http("405 Method Not Allowed", "", ""),
            "mkcol" | "put" if !fits => http("409 Conflict", "", ""),
            "mkcol" => {
                there.push(path.trim_end_matches('/').to_owned());
                http("201 Created", "", "")
            }
            _ => http("201 Created", "", ""),
        })
    })
    .await
}

#[tokio::test]
async fn a_directory_that_was_missing_is_made_without_asking_for_it_again() {
    let room = &["rooms", "rooms/r", "rooms/r/control"][..];
    for (there, made) in [
        (room, 4),
        (&[room, &["rooms/r/lanes"]].concat(), 2),
        (&[], 8),
    ] {
        let server = with_collections(there).await;
        let store = server.webdav(None);
        for dir in ["rooms/r/control", "rooms/r/lanes/l/0"] {
            store.list(&Prefix::new(dir).unwrap()).await.unwrap();
        }
        let asked = server.heads().len();
        let object = name("rooms/r/lanes/l/0/commit");
        store.put(&object, Bytes::from_static(b"x")).await.unwrap();
        assert_eq!((server.count("mkcol"), server.count("put")), (made, 1));
        assert_eq!(server.heads().len() - asked, made + 1);
        store.put(&object, Bytes::from_static(b"x")).await.unwrap();
        assert_eq!((server.count("mkcol"), server.count("put")), (made, 2));
    }
}
