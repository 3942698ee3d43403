//! nginx with dav-ext.

use std::path::Path;

use crate::process::Process;
use crate::{StartError, make_dir, write};

const MODULE: &str = "/usr/lib/nginx/modules/ngx_http_dav_ext_module.so";

pub(crate) fn start(dir: &Path, port: u16) -> Result<Process, StartError> {
    let d = dir.display();
    // On the data's file system, so that an upload is renamed and not copied.
    make_dir(&dir.join("temp"))?;
    let temps = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {d}/temp/{kind};\n"))
        .concat();
    // The directory is closed to everybody but its owner, so the workers are root where we are.
    let user = match rustix::process::getuid().is_root() {
        true => "user root;\n",
        false => "",
    };
    let config = format!(
        "load_module {MODULE};\n{user}worker_processes 2;\ndaemon off;\npid {d}/pid;\nerror_log {d}/error.log;\n\
         events {{ worker_connections 256; }}\n\
         http {{\naccess_log off;\n{temps}dav_ext_lock_zone zone=locks:10m;\n\
         server {{\nlisten 127.0.0.1:{port};\nroot {d}/data;\nclient_max_body_size 0;\n\
         location / {{\ndav_methods PUT DELETE MKCOL COPY MOVE;\ndav_ext_methods PROPFIND OPTIONS LOCK UNLOCK;\n\
         dav_ext_lock zone=locks;\ncreate_full_put_path on;\n}}\n}}\n}}\n"
    );
    let path = dir.join("nginx.conf");
    write(&path, &config)?;
    let path = path.display().to_string();
    Process::start(dir, "nginx", "nginx", &["-c", &path, "-e", "/dev/stderr"])
}
