//! The conformance suite on real servers, each test with a server of its own so that they run side by side.
//! A server that is missing fails its test: `.ci/install-test-deps` installs them all.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests; the lint only excuses the test functions themselves.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use skrin_base::clock::testutil::SeededEntropy;
use skrin_servers::{Kind, Server};
use skrin_storage::{
    Credentials, ErrorKind, ObjectName, OpenOptions, Prefix, Secret, Store, VaultUrl, conformance,
    open, put_confirmed,
};

fn credentials(server: &Server) -> Credentials {
    let origin = "the test".to_owned();
    match (server.login(), server.data_dir()) {
        (None, _) => Credentials::Anonymous,
        (Some((user, password)), Some(_)) => Credentials::Password {
            user: user.into(),
            password: Secret::new(password),
            origin,
        },
        (Some((access_key, secret_key)), None) => Credentials::Keys {
            access_key: access_key.into(),
            secret_key: Secret::new(secret_key),
            session_token: None,
            origin,
        },
    }
}

fn options(server: &Server) -> OpenOptions {
    OpenOptions {
        credentials: credentials(server),
        ca_pem: server.ca_pem().map(<[u8]>::to_vec),
        patience: Duration::from_secs(20),
        ..OpenOptions::new(Arc::new(SeededEntropy::new(1)))
    }
}

fn open_at(server: &Server, path: &str, options: OpenOptions) -> Arc<dyn Store> {
    let url = VaultUrl::parse(&server.vault_url(path)).unwrap();
    open(&url, options).unwrap()
}

fn name(s: &str) -> ObjectName {
    ObjectName::new(s).unwrap()
}

/// Everything that holds on every server, in a vault below folders that do not exist yet.
async fn conforms(server: &Server) {
    let store = open_at(server, "some/new/vault", options(server));
    assert_eq!(
        store.list(&Prefix::root()).await.unwrap(),
        Default::default()
    );
    conformance::all(&*store, "area").await;
    // A second client sees what the first one put, and a vault beside it sees nothing.
    let again = open_at(server, "some/new/vault", options(server));
    let listing = again
        .list(&Prefix::new("area/list").unwrap())
        .await
        .unwrap();
    assert_eq!(listing.objects.len(), 3);
    let beside = open_at(server, "some/new/vaul", options(server));
    assert_eq!(
        beside.list(&Prefix::root()).await.unwrap(),
        Default::default()
    );
}

/// A wrong password is "denied", named, and not tried again and again.
async fn refuses_wrong_credentials(server: &Server) {
    let mut wrong = options(server);
    match &mut wrong.credentials {
        Credentials::Password { password, .. } => *password = Secret::new("wrong-one"),
        Credentials::Keys { secret_key, .. } => *secret_key = Secret::new("wrong-one"),
        Credentials::Anonymous => panic!("this server asks for nothing"),
    }
    let store = open_at(server, "v", wrong);
    for _ in 0..3 {
        let error = store.get(&name("x"), 10).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("wrong-one"), "{shown}");
        assert!(error.to_string().contains("the test"), "{error}");
    }
    let mut none = options(server);
    none.credentials = Credentials::Anonymous;
    let error = open_at(server, "v", none)
        .list(&Prefix::root())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
}

async fn webdav(kind: Kind) {
    let server = Server::start(kind).unwrap();
    conforms(&server).await;
    if server.login().is_some() {
        refuses_wrong_credentials(&server).await;
    }
}

async fn s3(kind: Kind) {
    let server = Server::start(kind).unwrap();
    conforms(&server).await;
    let url = server
        .vault_url("v")
        .replace("skrin-test", "no-such-bucket");
    let url = VaultUrl::parse(&url).unwrap();
    let store = open(&url, options(&server)).unwrap();
    let bytes = Bytes::from_static(b"x");
    for error in [
        store.get(&name("x"), 10).await.map(drop),
        store.list(&Prefix::root()).await.map(drop),
        store.put(&name("x"), bytes).await,
    ] {
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoPlace, "{error}");
        assert!(error.to_string().contains("no-such-bucket"), "{error}");
    }
}

#[tokio::test]
async fn apache_conforms() {
    webdav(Kind::Apache).await;
}

#[tokio::test]
async fn apache_with_digest_conforms() {
    webdav(Kind::ApacheDigest).await;
}

#[tokio::test]
async fn nginx_conforms() {
    webdav(Kind::Nginx).await;
}

#[tokio::test]
async fn rclone_conforms() {
    webdav(Kind::Rclone).await;
}

#[tokio::test]
async fn wsgidav_conforms() {
    webdav(Kind::WsgiDav).await;
}

#[tokio::test]
async fn moto_conforms() {
    s3(Kind::Moto).await;
}

#[tokio::test]
async fn radosgw_conforms_and_checks_signatures() {
    let server = Server::start(Kind::Radosgw).unwrap();
    conforms(&server).await;
    refuses_wrong_credentials(&server).await;
}

#[tokio::test]
async fn an_unknown_ca_is_refused_and_a_named_one_is_trusted() {
    let server = Server::start(Kind::ApacheTls).unwrap();
    conforms(&server).await;
    let mut strange = options(&server);
    strange.ca_pem = None;
    let begin = std::time::Instant::now();
    let store = open_at(&server, "v", strange);
    let error = store.list(&Prefix::root()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
    // It is not repeated: that would not help.
    assert!(begin.elapsed() < Duration::from_secs(15));
    let mut broken = options(&server);
    broken.ca_pem = Some(b"no certificate".to_vec());
    let url = VaultUrl::parse(&server.vault_url("v")).unwrap();
    let error = open(&url, broken).err().unwrap();
    assert!(error.to_string().contains("PEM"), "{error}");
}

#[tokio::test]
async fn a_server_that_comes_back_is_waited_for() {
    let mut server = Server::start(Kind::Nginx).unwrap();
    let store = open_at(&server, "v", options(&server));
    let bytes = conformance::pattern(100_000, 1);
    put_confirmed(&*store, &name("a/one"), bytes.clone())
        .await
        .unwrap();
    server.kill();
    let (put, restarted) = tokio::join!(
        {
            let (store, bytes) = (Arc::clone(&store), bytes.clone());
            tokio::spawn(async move { put_confirmed(&*store, &name("a/two"), bytes).await })
        },
        tokio::task::spawn_blocking(move || {
            server.restart().unwrap();
            server
        })
    );
    put.unwrap().unwrap();
    let server = restarted.unwrap();
    assert_eq!(store.get(&name("a/one"), 200_000).await.unwrap(), bytes);
    drop(server);
}
