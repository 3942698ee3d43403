//! Ceph: a monitor, one storage daemon in memory and the S3 gateway. cephx must be on, or the gateway fails.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::process::{Process, run};
use crate::{PASSWORD, StartError, USER, free_port, io_error, make_dir, write};

const UUID: &str = "6e1f9a1e-7b1a-4c55-9d3c-0d9f0c1b2a3d";
const CONF: [&str; 2] = ["-c", "ceph.conf"];

fn ceph(dir: &Path, program: &str, args: &[&str]) -> Result<String, StartError> {
    run(dir, program, &[&CONF[..], args].concat())
}

/// Configuration, keys, and the files of monitor and storage daemon.
pub(crate) fn prepare(dir: &Path, port: u16) -> Result<(), StartError> {
    for sub in ["run", "mon", "osd"] {
        make_dir(&dir.join(sub))?;
    }
    let port_of = || free_port().map_err(|e| io_error("free port", e));
    let monitor = format!("[v2:127.0.0.1:{},v1:127.0.0.1:{}]", port_of()?, port_of()?);
    write(&dir.join("ceph.conf"), &config(dir, port, &monitor))?;
    make_keys(dir)?;
    let map = [
        "--create", "--fsid", UUID, "--addv", "a", &monitor, "monmap",
    ];
    run(dir, "monmaptool", &map)?;
    let mkfs = [
        "--mkfs",
        "-i",
        "a",
        "--monmap",
        "monmap",
        "--keyring",
        "keyring",
    ];
    ceph(dir, "ceph-mon", &mkfs)?;
    Ok(())
}

fn config(dir: &Path, port: u16, monitor: &str) -> String {
    let d = dir.display();
    format!(
        "[global]\nfsid = {UUID}\nmon_host = {monitor}\nmon_initial_members = a\npublic_addr = 127.0.0.1\n\
         keyring = {d}/keyring\nrun_dir = {d}/run\nadmin_socket = {d}/run/$name.asok\nlog_file = {d}/$name.ceph.log\n\
         pid_file = {d}/run/$name.pid\nmon_data = {d}/mon\nosd_data = {d}/osd\ncrash_dir = {d}/run\n\
         osd_pool_default_size = 1\nosd_pool_default_min_size = 1\nosd_pool_default_pg_num = 4\n\
         osd_pool_default_pgp_num = 4\nosd_pool_default_pg_autoscale_mode = off\nmon_allow_pool_size_one = true\n\
         mon_max_pg_per_osd = 1000\nosd_crush_chooseleaf_type = 0\nms_bind_port_min = 20000\nms_bind_port_max = 32000\n\
         auth_allow_insecure_global_id_reclaim = false\n\
         [osd.0]\nosd_objectstore = memstore\nmemstore_device_bytes = 4294967296\n\
         [client.rgw]\nrgw_frontends = beast endpoint=127.0.0.1:{port}\nrgw_dns_name = s3.localhost\n"
    )
}

fn make_keys(dir: &Path) -> Result<(), StartError> {
    let keys: [(&str, &[&str]); 4] = [
        ("mon.", &["--cap", "mon", "allow *"]),
        (
            "client.admin",
            &[
                "--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *",
            ],
        ),
        (
            "client.rgw",
            &["--cap", "mon", "allow rw", "--cap", "osd", "allow rwx"],
        ),
        (
            "osd.0",
            &[
                "--cap",
                "mon",
                "allow profile osd",
                "--cap",
                "osd",
                "allow *",
            ],
        ),
    ];
    for (i, (name, caps)) in keys.into_iter().enumerate() {
        let create: &[&str] = if i == 0 { &["--create-keyring"] } else { &[] };
        let key = [&["keyring"][..], create, &["--gen-key", "-n", name], caps].concat();
        run(dir, "ceph-authtool", &key)?;
    }
    Ok(())
}

/// Starts the three daemons, each once the one that it needs answers.
pub(crate) fn start(dir: &Path) -> Result<Vec<Process>, StartError> {
    let daemon = |program: &str, args: &[&str]| {
        Process::start(dir, program, program, &[&CONF[..], &["-f"], args].concat())
    };
    let monitor = daemon("ceph-mon", &["-i", "a"])?;
    let connect = ["--connect-timeout", "60"];
    let ask = |args: &[&str]| ceph(dir, "ceph", &[&connect[..], args].concat());
    ask(&["osd", "new", UUID, "0"])?;
    ceph(dir, "ceph-osd", &["-i", "0", "--mkfs", "--osd-uuid", UUID])?;
    let storage = daemon("ceph-osd", &["-i", "0"])?;
    let place = [
        "osd",
        "crush",
        "set",
        "osd.0",
        "1.0",
        "root=default",
        "host=localhost",
    ];
    let begin = Instant::now();
    while let Err(error) = ask(&place) {
        if begin.elapsed() > Duration::from_secs(60) {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let gateway = daemon("radosgw", &["-n", "client.rgw"])?;
    Ok(vec![gateway, storage, monitor])
}

pub(crate) fn make_user(dir: &Path) -> Result<(), StartError> {
    let (access, secret) = (
        format!("--access-key={USER}"),
        format!("--secret={PASSWORD}"),
    );
    let user = [
        "user",
        "create",
        "--uid=t",
        "--display-name=t",
        &access,
        &secret,
    ];
    ceph(dir, "radosgw-admin", &user)?;
    Ok(())
}
