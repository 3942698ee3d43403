//! Credentials of storages, from the places where people keep them: environment, files, a prompt. Never an argument.

use std::path::{Path, PathBuf};

use skrin_storage::{Credentials, Secret};
use zeroize::Zeroizing;

use crate::exit::{Exit, Failure, Outcome};

pub(crate) mod ini;
pub(crate) mod netrc;

/// What the usual files and variables say about S3.
pub(crate) struct AwsSettings {
    /// `Anonymous` means that requests go unsigned.
    pub credentials: Credentials,
    /// The region, unless the URL names one.
    pub region: Option<String>,
    /// The endpoint, unless the URL names one.
    pub endpoint: Option<String>,
}

/// The environment, as a function, so that tests need not change the real one.
pub(crate) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The real environment; empty values count as unset.
pub(crate) fn process_env(name: &str) -> Option<String> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    match (name, value) {
        // systemd sets none for the system's own units; the user has one all the same.
        ("HOME", None) => std::env::home_dir()?.into_os_string().into_string().ok(),
        (_, value) => value,
    }
}

fn home(env: Env<'_>) -> Option<PathBuf> {
    env("HOME").map(PathBuf::from)
}

/// A file that may be missing; anything else that keeps us from reading it is said.
fn read_optional(path: &Path) -> Outcome<Option<Zeroizing<String>>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(Zeroizing::new(text))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Failure::io(path, "cannot read the credentials", &e)),
    }
}

/// Who logs in at a WebDAV server: `SKRIN_WEBDAV_USER` and `SKRIN_WEBDAV_PASSWORD`, then ~/.netrc. The user of the
/// URL selects; `None` means that nothing was found.
///
/// # Errors
/// A file that is there but cannot be read.
pub(crate) fn web_dav(
    host: &str,
    user: Option<&str>,
    env: Env<'_>,
) -> Outcome<Option<Credentials>> {
    let named = user.map(str::to_owned).or_else(|| env("SKRIN_WEBDAV_USER"));
    if let (Some(user), Some(password)) = (&named, env("SKRIN_WEBDAV_PASSWORD")) {
        return Ok(Some(Credentials::Password {
            user: user.clone(),
            password: Secret::new(password),
            origin: "SKRIN_WEBDAV_PASSWORD".into(),
        }));
    }
    let path = env("NETRC").map(PathBuf::from);
    let Some(path) = path.or_else(|| home(env).map(|home| home.join(".netrc"))) else {
        return Ok(None);
    };
    let Some(text) = read_optional(&path)? else {
        return Ok(None);
    };
    let found = netrc::find(&text, host, named.as_deref());
    Ok(found.map(|(user, password)| Credentials::Password {
        user,
        password: Secret::new(password),
        origin: path.display().to_string(),
    }))
}

/// What signs requests to S3: the `AWS_*` variables, then the profile in ~/.aws.
///
/// # Errors
/// A profile that was asked for and is not there, half a key, a file that cannot be read.
pub(crate) fn aws(env: Env<'_>) -> Outcome<AwsSettings> {
    let profile = env("AWS_PROFILE");
    let file = |variable: &str, name: &str| -> Outcome<ini::Sections> {
        let path = env(variable).map(PathBuf::from);
        let Some(path) = path.or_else(|| home(env).map(|home| home.join(".aws").join(name))) else {
            return Ok(ini::Sections::default());
        };
        Ok(read_optional(&path)?
            .map(|text| ini::parse(&text))
            .unwrap_or_default())
    };
    let credentials = file("AWS_SHARED_CREDENTIALS_FILE", "credentials")?;
    let config = file("AWS_CONFIG_FILE", "config")?;
    let name = profile.as_deref().unwrap_or("default");
    let long = format!("profile {name}");
    let section = |key: &str| {
        let found = credentials
            .get(name, key)
            .or_else(|| config.get(&long, key));
        found.or_else(|| config.get(name, key))
    };
    if profile.is_some() && !credentials.has(name) && !config.has(&long) {
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "AWS_PROFILE names {name}, which is neither in ~/.aws/credentials nor in ~/.aws/config"
            ),
        ));
    }
    Ok(AwsSettings {
        credentials: aws_keys(env, name, &section)?,
        region: env("AWS_REGION")
            .or_else(|| env("AWS_DEFAULT_REGION"))
            .or_else(|| section("region")),
        endpoint: env("AWS_ENDPOINT_URL_S3")
            .or_else(|| env("AWS_ENDPOINT_URL"))
            .or_else(|| section("endpoint_url")),
    })
}

fn aws_keys(
    env: Env<'_>,
    profile: &str,
    section: &dyn Fn(&str) -> Option<String>,
) -> Outcome<Credentials> {
    let here = keys(
        [
            env("AWS_ACCESS_KEY_ID"),
            env("AWS_SECRET_ACCESS_KEY"),
            env("AWS_SESSION_TOKEN"),
        ],
        "AWS_ACCESS_KEY_ID",
    )?;
    if let Some(found) = here {
        return Ok(found);
    }
    let names = [
        "aws_access_key_id",
        "aws_secret_access_key",
        "aws_session_token",
    ];
    let there = keys(names.map(section), &format!("profile {profile} in ~/.aws"))?;
    Ok(there.unwrap_or_default())
}

fn keys([id, key, token]: [Option<String>; 3], origin: &str) -> Outcome<Option<Credentials>> {
    match (id, key) {
        (Some(access_key), Some(secret_key)) => Ok(Some(Credentials::Keys {
            access_key,
            secret_key: Secret::new(secret_key),
            session_token: token.map(Secret::new),
            origin: origin.to_owned(),
        })),
        (None, None) => Ok(None),
        _ => Err(Failure::new(
            Exit::Usage,
            format!("only half of the AWS access key is set ({origin})"),
        )
        .remedy("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or both in ~/.aws/credentials")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env_of(pairs: Vec<(&'static str, String)>) -> impl Fn(&str) -> Option<String> {
        move |name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.clone())
        }
    }

    fn file(contents: &str) -> (tempfile::NamedTempFile, String) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), contents).unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        (file, path)
    }

    #[test]
    fn the_environment_wins_over_netrc() {
        let (_keep, path) = file("machine host login anna password fromfile");
        let env = env_of(vec![
            ("NETRC", path),
            ("SKRIN_WEBDAV_USER", "bert".into()),
            ("SKRIN_WEBDAV_PASSWORD", "fromenv".into()),
        ]);
        let login = web_dav("host", None, &env).unwrap().unwrap();
        let Credentials::Password { user, origin, .. } = login else {
            panic!()
        };
        assert_eq!(
            (user.as_str(), origin.as_str()),
            ("bert", "SKRIN_WEBDAV_PASSWORD")
        );
    }

    #[test]
    fn netrc_serves_the_user_of_the_url() {
        let (_keep, path) =
            file("machine host login anna password a\nmachine host login bert password b");
        let env = env_of(vec![("NETRC", path)]);
        let login = web_dav("host", Some("bert"), &env).unwrap().unwrap();
        assert!(matches!(login, Credentials::Password { user, .. } if user == "bert"));
        assert!(web_dav("other", None, &env).unwrap().is_none());
    }

    #[test]
    fn a_profile_gives_keys_region_and_endpoint() {
        let (_a, credentials) = file(
            "[default]\naws_access_key_id=x\n[work]\naws_access_key_id = AK\naws_secret_access_key = SK\n",
        );
        let (_b, config) =
            file("[profile work]\nregion = eu-north-1\nendpoint_url = https://s3.example\n");
        let env = env_of(vec![
            ("AWS_SHARED_CREDENTIALS_FILE", credentials),
            ("AWS_CONFIG_FILE", config),
            ("AWS_PROFILE", "work".into()),
        ]);
        let settings = aws(&env).unwrap();
        let Credentials::Keys { access_key, .. } = settings.credentials else {
            panic!()
        };
        assert_eq!(access_key, "AK");
        assert_eq!(settings.region.as_deref(), Some("eu-north-1"));
        assert_eq!(settings.endpoint.as_deref(), Some("https://s3.example"));
    }

    #[test]
    fn half_a_key_and_an_unknown_profile_are_refused() {
        let half = env_of(vec![("AWS_ACCESS_KEY_ID", "AK".into())]);
        assert_eq!(aws(&half).err().unwrap().exit, Exit::Usage);
        let unknown = env_of(vec![("AWS_PROFILE", "nobody".into())]);
        assert_eq!(aws(&unknown).err().unwrap().exit, Exit::Usage);
    }

    #[test]
    fn nothing_anywhere_means_unsigned() {
        let found = aws(&env_of(vec![])).unwrap();
        assert!(matches!(found.credentials, Credentials::Anonymous));
    }
}
