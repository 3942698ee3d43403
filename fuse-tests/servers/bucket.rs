//! Makes the bucket of an S3 server: one signed request over a bare connection.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};

use crate::{BUCKET, PASSWORD, REGION, StartError, USER, io_error};

/// Repeats until the server agrees: a fresh one may still be making its pools.
pub(crate) fn make(port: u16, patience: Duration) -> Result<(), StartError> {
    let silent = |what: String| StartError::Silent("bucket".to_owned(), what);
    let endpoint = format!("http://127.0.0.1:{port}")
        .parse()
        .map_err(|_| silent("address".to_owned()))?;
    let bucket =
        Bucket::new(endpoint, UrlStyle::Path, BUCKET, REGION).map_err(|e| silent(e.to_string()))?;
    let credentials = Credentials::new(USER, PASSWORD);
    let begin = Instant::now();
    loop {
        let url = bucket
            .create_bucket(&credentials)
            .sign(Duration::from_secs(300));
        let target = format!("{}?{}", url.path(), url.query().unwrap_or_default());
        let answer = put(port, &target).map_err(|e| io_error("bucket", e));
        match answer {
            Ok(answer) if answer.starts_with("HTTP/1.1 200") => return Ok(()),
            Ok(answer) if begin.elapsed() > patience => return Err(silent(answer)),
            Err(error) if begin.elapsed() > patience => return Err(error),
            _ => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

fn put(port: u16, target: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let request = format!(
        "PUT {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
