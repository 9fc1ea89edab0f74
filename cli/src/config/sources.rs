//! Where configuration comes from, merged with figment, and the origin of each value.

use std::path::{Path, PathBuf};

use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use schemas::problem::did_you_mean;

use super::{Config, Role};
use crate::arguments::{GlobalOptions, ServeOptions};
use crate::exit::{Exit, Failure, fail};

/// Prefix of environment variables; `__` also stands between a section and its key.
const ENVIRONMENT_PREFIX: &str = "BIFOLD__";
/// The file that is read if it is there.
const DEFAULT_FILE: &str = "bifold.toml";
const ENVIRONMENT: &str = "environment variable";
const FLAG: &str = "flag";

/// Everything that configuration is made from, as plain data, so that tests need no process state.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A file that must exist.
    pub file: Option<PathBuf>,
    /// A file that is read if it exists and no other is named.
    pub default_file: Option<PathBuf>,
    /// Environment variables; only those with the prefix count.
    pub environment: Vec<(String, String)>,
    /// Dotted key and value of every flag that was given.
    pub flags: Vec<(&'static str, String)>,
}

/// One value in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Dotted key.
    pub key: String,
    /// As JSON; secrets are masked; none if nothing is set.
    pub value: Option<String>,
    /// `built-in`, `file …`, `environment variable …`, `flag --…`
    pub origin: String,
}

impl Sources {
    /// The sources of this process: its flags, its environment, its working folder.
    pub fn of_process(global: &GlobalOptions, serve: &ServeOptions) -> Self {
        Self {
            file: global.config.clone(),
            default_file: Some(PathBuf::from(DEFAULT_FILE)),
            environment: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            flags: flags(global, serve),
        }
    }

    /// Every key with its value and origin, by key.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn origins(&self) -> anyhow::Result<Vec<Origin>> {
        let figment = self.figment()?;
        Config::load(self)?;
        Ok(known_keys().into_iter().map(|key| origin(&figment, key)).collect())
    }

    pub(super) fn extract(&self) -> anyhow::Result<Config> {
        let figment = self.figment()?;
        figment.extract().map_err(|error| {
            let message = error.to_string().replace("\"default.", "\"").replace("`default.", "`");
            Failure::new(Exit::Usage, format!("configuration: {message}")).into()
        })
    }

    fn figment(&self) -> anyhow::Result<Figment> {
        let mut layers = vec![Layer::environment(&self.environment), Layer::flags(&self.flags)];
        layers.retain(|layer| !layer.dict.is_empty());
        let mut figment = Figment::from(Serialized::defaults(Config::default()));
        if let Some(path) = self.existing_file()? {
            let toml = Figment::from(Toml::file_exact(path));
            refuse_unknown_keys(&toml, &format!("file {}", path.display()))?;
            figment = figment.merge(toml);
        }
        for layer in layers {
            refuse_unknown_keys(&Figment::from(&layer), layer.name)?;
            figment = figment.merge(layer);
        }
        Ok(figment)
    }

    fn existing_file(&self) -> anyhow::Result<Option<&Path>> {
        match (&self.file, &self.default_file) {
            (Some(path), _) | (None, Some(path)) if path.is_file() => Ok(Some(path)),
            (Some(path), _) => fail(Exit::Usage, format!("configuration file {} does not exist", path.display())),
            _ => Ok(None),
        }
    }
}

fn flags(global: &GlobalOptions, serve: &ServeOptions) -> Vec<(&'static str, String)> {
    let mut flags = vec![];
    if let Some(folder) = &global.data_dir {
        flags.push(("data_dir", folder.display().to_string()));
    }
    if let Some(listen) = serve.listen {
        flags.push(("listen", listen.to_string()));
    }
    if !serve.role.is_empty() {
        flags.push(("roles", role_words(&serve.role)));
    }
    flags
}

fn role_words(roles: &[Role]) -> String {
    let words: Vec<String> = roles.iter().map(|role| format!("{role:?}").to_lowercase()).collect();
    words.join(",")
}

/// Values with one kind of origin, as a figment provider.
struct Layer {
    name: &'static str,
    dict: Dict,
}

impl Layer {
    fn environment(variables: &[(String, String)]) -> Self {
        let mut dict = Dict::new();
        for (name, value) in variables {
            if let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX) {
                insert(&mut dict, &rest.to_lowercase().replace("__", "."), value);
            }
        }
        Self { name: ENVIRONMENT, dict }
    }

    fn flags(flags: &[(&'static str, String)]) -> Self {
        let mut dict = Dict::new();
        for (key, value) in flags {
            insert(&mut dict, key, value);
        }
        Self { name: FLAG, dict }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

/// Puts a text at a dotted key. Limits are numbers; everything else stays a text, digits or not.
fn insert(dict: &mut Dict, key: &str, text: &str) {
    let Some((section, rest)) = key.split_once('.') else {
        dict.insert(key.to_owned(), Value::from(text));
        return;
    };
    let entry = dict.entry(section.to_owned()).or_insert_with(|| Value::from(Dict::new()));
    if let Value::Dict(_, inner) = entry {
        match text.parse::<u64>() {
            Ok(number) if section == "limits" => {
                inner.insert(rest.to_owned(), Value::from(number));
            }
            _ => insert(inner, rest, text),
        }
    }
}

/// Every key that configuration has, dotted, sorted.
fn known_keys() -> Vec<String> {
    let mut keys = vec![];
    if let Ok(tree) = serde_json::to_value(Config::default()) {
        json_keys(&tree, "", &mut keys);
    }
    keys
}

fn json_keys(tree: &serde_json::Value, prefix: &str, keys: &mut Vec<String>) {
    let serde_json::Value::Object(members) = tree else {
        keys.push(prefix.to_owned());
        return;
    };
    for (name, member) in members {
        json_keys(member, &dotted(prefix, name), keys);
    }
}

fn dotted(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

fn refuse_unknown_keys(figment: &Figment, place: &str) -> anyhow::Result<()> {
    let data = figment.data().map_err(|error| Failure::new(Exit::Usage, format!("configuration: {error}")))?;
    let known = known_keys();
    for dict in data.values() {
        let mut found = vec![];
        leaf_keys(dict, "", &mut found);
        let is_section = |key: &str| known.iter().any(|k| k.starts_with(&format!("{key}.")));
        // librdkafka's own names: it judges them
        let is_property = |key: &str| key.starts_with("kafka.properties.");
        let unknown = |key: &&String| !known.contains(*key) && !is_section(key) && !is_property(key);
        if let Some(key) = found.iter().find(unknown) {
            let meant = did_you_mean(key, known.iter().map(String::as_str));
            let hint = meant.map_or(String::new(), |name| format!(": did you mean `{name}`?"));
            return fail(Exit::Usage, format!("configuration: unknown key `{key}` in {place}{hint}"));
        }
    }
    Ok(())
}

fn leaf_keys(dict: &Dict, prefix: &str, keys: &mut Vec<String>) {
    for (name, value) in dict {
        match value {
            Value::Dict(_, inner) => leaf_keys(inner, &dotted(prefix, name), keys),
            _ => keys.push(dotted(prefix, name)),
        }
    }
}

fn origin(figment: &Figment, key: String) -> Origin {
    let value = figment.find_value(&key).ok().filter(|value| !matches!(value, Value::Empty(..)));
    let text = match (&value, key.as_str()) {
        (None, _) => None,
        (Some(_), "auth.token" | "auth.owner_token") => Some("\"…\"".to_owned()),
        (Some(value), _) => Some(serde_json::to_string(value).unwrap_or_default()),
    };
    let origin = figment.find_metadata(&key).map_or_else(|| "built-in".to_owned(), |found| origin_text(found, &key));
    Origin { key, value: text, origin }
}

fn origin_text(metadata: &Metadata, key: &str) -> String {
    if let Some(path) = metadata.source.as_ref().and_then(figment::Source::file_path) {
        return format!("file {}", path.display());
    }
    match metadata.name.as_ref() {
        ENVIRONMENT => format!("{ENVIRONMENT} {ENVIRONMENT_PREFIX}{}", key.to_uppercase().replace('.', "__")),
        FLAG => format!("{FLAG} {}", flag_name(key)),
        _ => "built-in".to_owned(),
    }
}

fn flag_name(key: &str) -> &'static str {
    match key {
        "data_dir" => "--data-dir",
        "listen" => "--listen",
        _ => "--role",
    }
}
