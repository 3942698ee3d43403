//! A CA of our own and a certificate for 127.0.0.1.

use std::path::{Path, PathBuf};

use crate::process::run;
use crate::{StartError, io_error, write};

pub(crate) fn ca_path(dir: &Path) -> PathBuf {
    dir.join("ca.pem")
}

/// Writes `ca.pem`, `server.pem` and `server.key`; returns the CA.
pub(crate) fn make_certificates(dir: &Path) -> Result<Vec<u8>, StartError> {
    const KEY: [&str; 5] = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ];
    let ca = [
        &["req", "-x509"][..],
        &KEY,
        &[
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
            "-days",
            "3",
            "-subj",
            "/CN=Test CA",
        ],
    ]
    .concat();
    run(dir, "openssl", &ca)?;
    let request = [
        &["req"][..],
        &KEY,
        &[
            "-keyout",
            "server.key",
            "-out",
            "server.csr",
            "-subj",
            "/CN=server",
        ],
    ]
    .concat();
    run(dir, "openssl", &request)?;
    write(
        &dir.join("server.ext"),
        "basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\nsubjectAltName=IP:127.0.0.1,DNS:localhost\n",
    )?;
    let sign = [
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        "server.ext",
        "-out",
        "server.pem",
    ];
    run(dir, "openssl", &sign)?;
    std::fs::read(ca_path(dir)).map_err(|e| io_error("ca.pem", e))
}
