//! Apache mod_dav.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use crate::process::Process;
use crate::{PASSWORD, StartError, USER, io_error, make_dir, write};

#[derive(Clone, Copy)]
pub(crate) enum Login {
    Basic,
    Digest,
    BasicInTls,
}

const MODULES: [&str; 11] = [
    "mpm_event",
    "authn_core",
    "authn_file",
    "authz_core",
    "authz_user",
    "auth_basic",
    "auth_digest",
    "dav",
    "dav_fs",
    "socache_shmcb",
    "ssl",
];

/// Password files and directories; Apache does not serve as root, so they are given to www-data.
pub(crate) fn prepare(dir: &Path) -> Result<(), StartError> {
    make_dir(&dir.join("lock"))?;
    let basic = crate::process::run(dir, "openssl", &["passwd", "-apr1", PASSWORD])?;
    write(&dir.join("basic"), &format!("{USER}:{basic}"))?;
    // RFC 7616: MD5(user:realm:password).
    let secret = dir.join("digest-secret");
    write(&secret, &format!("{USER}:vault:{PASSWORD}"))?;
    let secret = secret.display().to_string();
    let digest = crate::process::run(dir, "openssl", &["dgst", "-md5", "-r", &secret])?;
    let digest = digest.split_whitespace().next().unwrap_or_default();
    write(&dir.join("digest"), &format!("{USER}:vault:{digest}\n"))?;
    if rustix::process::getuid().is_root() {
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(dir, open).map_err(|e| io_error("apache", e))?;
        let (user, group) = www_data();
        for owned in ["data", "lock"] {
            let path = dir.join(owned);
            chown(&path, Some(user), Some(group)).map_err(|e| io_error("apache", e))?;
        }
    }
    Ok(())
}

/// User and group id; Debian's numbers where the file does not say.
fn www_data() -> (u32, u32) {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let line = passwd.lines().find(|line| line.starts_with("www-data:"));
    let mut numbers = line.into_iter().flat_map(|line| line.split(':').skip(2));
    let mut number = || numbers.next().and_then(|n| n.parse().ok()).unwrap_or(33);
    (number(), number())
}

pub(crate) fn start(dir: &Path, port: u16, login: Login) -> Result<Process, StartError> {
    let d = dir.display();
    let modules: String = MODULES
        .map(|m| format!("LoadModule {m}_module /usr/lib/apache2/modules/mod_{m}.so\n"))
        .concat();
    let tls = match login {
        Login::BasicInTls => format!(
            "SSLEngine on\nSSLCertificateFile {d}/server.pem\nSSLCertificateKeyFile {d}/server.key\n"
        ),
        _ => String::new(),
    };
    let (kind, file) = match login {
        Login::Basic | Login::BasicInTls => ("Basic", "basic"),
        Login::Digest => ("Digest", "digest"),
    };
    let user = match rustix::process::getuid().is_root() {
        true => "User www-data\nGroup www-data\n",
        false => "",
    };
    let config = format!(
        "ServerRoot {d}\nServerName 127.0.0.1\nListen 127.0.0.1:{port}\nPidFile {d}/pid\nErrorLog {d}/error.log\n\
         Mutex file:{d}/lock default\nDefaultRuntimeDir {d}\n{modules}{user}{tls}\
         DavLockDB {d}/lock/DavLock\nDocumentRoot {d}/data\n\
         <Directory {d}/data>\nDav On\nDavMinTimeout 0\nAuthType {kind}\nAuthName vault\nAuthUserFile {d}/{file}\n\
         AuthBasicProvider file\nAuthDigestProvider file\nRequire valid-user\n</Directory>\n"
    );
    let path = dir.join("apache.conf");
    write(&path, &config)?;
    let path = path.display().to_string();
    Process::start(
        dir,
        "apache2",
        "apache2",
        &["-f", &path, "-D", "FOREGROUND"],
    )
}
