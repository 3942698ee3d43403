//! The source of a mount in the mount table, by which mount(8) and systemd find again what they noted of it: asked of the helper of mount(8)
//! by its name.

use std::process::Command;

use skrin_servers::REGION;

use crate::harness::{Mount, Run, SKRIN, Vault, command};
use crate::storages::On;

/// What mount(8) runs for a line of /etc/fstab with this source.
fn helper(vault: &Vault, source: &str) -> Command {
    let program = vault.path("mount.skrin");
    if !program.exists() {
        std::os::unix::fs::symlink(SKRIN, &program).unwrap();
    }
    let (words, state) = (vault.words_file(), vault.state("a"));
    let options = format!(
        "_netdev,words-file={},state-dir={}",
        words.display(),
        state.display()
    );
    let mut helper = command(program.to_str().unwrap());
    helper
        .arg(source)
        .arg(vault.point("a"))
        .args(["-o", &options])
        .env("HOME", vault.path("."));
    helper
}

#[test]
fn a_vault_whose_server_the_environment_names_is_mounted_under_the_source_that_was_typed() {
    let vault = Vault::new(On::S3);
    let address = vault.address();
    let (bare, query) = address.split_once('?').unwrap();
    let mut parameters = query.split('&');
    let endpoint = parameters.find_map(|one| one.strip_prefix("endpoint="));
    let source = format!("skrin:{bare}/");
    let ask = || {
        let mut ask = helper(&vault, &source);
        ask.envs(vault.storage.env())
            .env("AWS_ENDPOINT_URL", endpoint.unwrap())
            .env("AWS_REGION", REGION);
        ask.code()
    };
    let (code, said) = ask();
    assert_eq!(code, 0, "{said}");
    assert!(!said.contains("will show"), "{said}");
    let mount = Mount::adopt(&vault, vault.path("mount-a"));
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let line = format!("{source} {} ", mount.path().display());
    assert!(table.contains(&line), "{line}: {table}");
    // mount -a may be run at any time.
    let (code, said) = ask();
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("mounted there already"), "{said}");
    mount.unmount();
}

#[test]
fn who_only_asks_with_a_plain_address_hears_that_its_order_after_the_network_is_lost() {
    let vault = Vault::without_init(On::Local);
    let source = format!("skrin:{}", vault.address());
    let (code, said) = helper(&vault, &vault.address()).arg("-f").code();
    let shown = format!("will show {source};");
    assert!(code == 0 && said.contains(&shown), "{code} {said}");
    assert!(said.contains("network mount"), "{said}");
    let (code, said) = helper(&vault, &source).arg("-f").code();
    assert_eq!((code, said.as_str()), (0, ""));
}
