//! Servers of one process without a configuration worth a file of its own.

use std::path::Path;

use crate::process::Process;
use crate::{PASSWORD, StartError, USER, test_dep, write};

pub(crate) fn rclone(dir: &Path, port: u16) -> Result<Process, StartError> {
    let data = dir.join("data").display().to_string();
    let address = format!("127.0.0.1:{port}");
    let args = [
        "serve",
        "webdav",
        &data,
        "--addr",
        &address,
        "--config",
        "/dev/null",
        "--user",
        USER,
        "--pass",
        PASSWORD,
    ];
    Process::start(dir, "rclone", "rclone", &args)
}

pub(crate) fn wsgidav(dir: &Path, port: u16) -> Result<Process, StartError> {
    let data = dir.join("data").display().to_string();
    let config = format!(
        r#"{{"host": "127.0.0.1", "port": {port}, "provider_mapping": {{"/": "{data}"}},
            "http_authenticator": {{"accept_basic": false, "accept_digest": true, "default_to_digest": true}},
            "simple_dc": {{"user_mapping": {{"*": {{"{USER}": {{"password": "{PASSWORD}"}}}}}}}}}}"#
    );
    let path = dir.join("wsgidav.json");
    write(&path, &config)?;
    let path = path.display().to_string();
    let program = test_dep("venv/bin/wsgidav");
    Process::start(dir, "wsgidav", program, &["--config", &path])
}

pub(crate) fn moto(dir: &Path, port: u16) -> Result<Process, StartError> {
    let port = port.to_string();
    let program = test_dep("venv/bin/moto_server");
    Process::start(dir, "moto", program, &["-H", "127.0.0.1", "-p", &port])
}
