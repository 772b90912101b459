//! The vendors that this installation knows: the manifests of `config/vendors/`, embedded, and those
//! of a folder that add to them or take their place. A system's own settings may be laid over a
//! manifest where the manifest says so, which is all that `generic-rest` is made of.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path as FilePath;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};

use super::manifest::{ConfigKind, Manifest, ManifestError, ManifestErrors};
use super::webhook::WebhookSpec;

/// What an unknown `provider` is served by.
const FALLBACK: &str = "generic-rest";
/// So many overlaid manifests are kept; then all are forgotten, since each is quickly made again.
const OVERLAID_MAX: usize = 1_000;

mod embedded {
    //! Written by the build script: name and text of every manifest of `config/vendors/`.
    include!(concat!(env!("OUT_DIR"), "/manifests.rs"));
}

/// Every manifest by its name.
#[derive(Debug)]
pub struct Catalog {
    entries: BTreeMap<String, Entry>,
    /// Manifests with a system's settings laid over, by provider and settings.
    overlaid: Mutex<HashMap<String, Arc<Manifest>>>,
}

#[derive(Debug)]
struct Entry {
    file: String,
    table: toml::Table,
    manifest: Arc<Manifest>,
}

impl Catalog {
    /// The embedded manifests.
    pub fn embedded() -> Result<Self, ManifestErrors> {
        Self::load(None)
    }

    /// The embedded manifests, and those of a folder over them.
    pub fn load(directory: Option<&FilePath>) -> Result<Self, ManifestErrors> {
        let mut catalog = Self { entries: BTreeMap::new(), overlaid: Mutex::default() };
        let mut errors = Vec::new();
        for (name, text) in embedded::MANIFESTS {
            catalog.add(name, format!("config/vendors/{name}.toml"), text, &mut errors);
        }
        if let Some(directory) = directory {
            catalog.add_folder(directory, &mut errors);
        }
        if let Some(entry) = catalog.entries.get(FALLBACK)
            && entry.manifest.webhook.is_none()
        {
            let problem = "is missing; vendors without a `[webhook]` of their own are served by this one";
            errors.push(ManifestError {
                file: entry.file.clone(),
                line: None,
                key: "webhook".into(),
                problem: problem.into(),
            });
        }
        if errors.is_empty() { Ok(catalog) } else { Err(ManifestErrors(errors)) }
    }

    /// Adds one file, or puts it in the place of its namesake, and gives its name.
    pub fn add_file(&mut self, path: &FilePath) -> Result<String, ManifestErrors> {
        let mut errors = Vec::new();
        let name = self.add_path(path, &mut errors);
        if errors.is_empty() { Ok(name) } else { Err(ManifestErrors(errors)) }
    }

    /// The names of all vendors.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.entries.keys().map(String::as_str).collect()
    }

    /// The manifest of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Manifest>> {
        self.entries.get(name).map(|entry| Arc::clone(&entry.manifest))
    }

    /// The manifest of a system: that of its provider, or `generic-rest`, with the system's settings
    /// laid over.
    pub fn resolve(
        &self,
        provider: &str,
        config: &Map<String, Value>,
    ) -> Result<Arc<Manifest>, ManifestErrors> {
        let name = if self.entries.contains_key(provider) { provider } else { FALLBACK };
        let Some(entry) = self.entries.get(name) else {
            let problem =
                format!("no manifest for vendor `{provider}`; expected `config/vendors/{provider}.toml`");
            return Err(one_error(String::new(), String::new(), problem));
        };
        let overlays: BTreeMap<&str, &Value> = entry
            .manifest
            .config
            .iter()
            .filter(|key| !key.sets.is_empty())
            .filter_map(|key| {
                Some((key.name.as_str(), config.get(&key.name).filter(|value| !value.is_null())?))
            })
            .collect();
        if overlays.is_empty() {
            return Ok(Arc::clone(&entry.manifest));
        }
        let cache_key = format!("{name} {}", serde_json::to_string(&overlays).unwrap_or_default());
        let cache = || self.overlaid.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(manifest) = cache().get(&cache_key) {
            return Ok(Arc::clone(manifest));
        }
        let manifest = Arc::new(entry.overlay(&overlays)?);
        let mut cache = cache();
        if cache.len() >= OVERLAID_MAX {
            cache.clear();
        }
        cache.insert(cache_key, Arc::clone(&manifest));
        Ok(manifest)
    }

    /// What the vendor sends of its own accord, and the manifest whose streams it speaks of: its own, or
    /// those of `generic-rest`.
    #[must_use]
    pub fn webhook_of(&self, manifest: &Arc<Manifest>) -> (Arc<Manifest>, Arc<WebhookSpec>) {
        let of = |manifest: &Arc<Manifest>| {
            manifest.webhook.as_ref().map(|webhook| (Arc::clone(manifest), Arc::clone(webhook)))
        };
        of(manifest)
            .or_else(|| of(&self.entries.get(FALLBACK)?.manifest))
            .expect("`load` has seen to it that the fallback has a `[webhook]`")
    }

    fn add(&mut self, name: &str, file: String, text: &str, errors: &mut Vec<ManifestError>) {
        let manifest = match Manifest::parse_file(&file, text) {
            Ok(manifest) => manifest,
            Err(found) => return errors.extend(found.0),
        };
        if manifest.name != name {
            let problem = format!("`{}` is not the name of the file; expected `{name}`", manifest.name);
            return errors.push(ManifestError { file, line: None, key: "meta.name".into(), problem });
        }
        let table = text.parse().unwrap_or_default();
        self.entries.insert(name.to_owned(), Entry { file, table, manifest: Arc::new(manifest) });
    }

    fn add_folder(&mut self, directory: &FilePath, errors: &mut Vec<ManifestError>) {
        let file = directory.display().to_string();
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => {
                let problem =
                    format!("cannot be read: {error}; correct `vendors.directory` or leave it empty");
                return errors.push(ManifestError { file, line: None, key: String::new(), problem });
            }
        };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        {
            self.add_path(path, errors);
        }
    }

    fn add_path(&mut self, path: &FilePath, errors: &mut Vec<ManifestError>) -> String {
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let file = path.display().to_string();
        match fs::read_to_string(path) {
            Ok(text) => self.add(&name, file, &text, errors),
            Err(error) => {
                let problem = format!("cannot be read: {error}");
                errors.push(ManifestError { file, line: None, key: String::new(), problem });
            }
        }
        name
    }
}

impl Entry {
    /// The manifest with a system's settings in the places that they set.
    fn overlay(&self, overlays: &BTreeMap<&str, &Value>) -> Result<Manifest, ManifestErrors> {
        let mut table = self.table.clone();
        let mut places: Vec<(&str, &str)> = Vec::new();
        for key in self.manifest.config.iter().filter(|key| overlays.contains_key(key.name.as_str())) {
            let value = overlays[key.name.as_str()];
            let problem =
                |problem| one_error("the system's settings".into(), format!("config.{}", key.name), problem);
            let value = to_toml(value, key.kind).map_err(problem)?;
            for place in &key.sets {
                put(&mut table, place, value.clone()).map_err(problem)?;
                places.push((place, &key.name));
            }
        }
        Manifest::read(&self.file, &table).map_err(|mut errors| {
            // The mistake is the system's, not the manifest's: name the setting.
            for error in &mut errors.0 {
                if let Some((_, name)) = places.iter().find(|(place, _)| error.key.starts_with(place)) {
                    error.problem = format!("{} (it sets `{}` of the manifest)", error.problem, error.key);
                    error.key = format!("config.{name}");
                    error.file = "the system's settings".into();
                }
            }
            errors
        })
    }
}

/// A system's setting as TOML, in the type that the manifest asks for.
fn to_toml(value: &Value, kind: ConfigKind) -> Result<toml::Value, String> {
    let text = |value: &Value| super::template::as_text(value).ok_or("expected text");
    Ok(match kind {
        ConfigKind::Text => toml::Value::String(text(value)?),
        ConfigKind::Number => {
            let text = text(value)?;
            toml::Value::Integer(text.parse().map_err(|_| format!("`{text}` is not a whole number"))?)
        }
        ConfigKind::Flag => match value {
            Value::Bool(flag) => toml::Value::Boolean(*flag),
            _ => return Err("expected `true` or `false`".into()),
        },
        ConfigKind::List => match value {
            Value::Array(elements) => {
                let texts: Result<Vec<_>, _> = elements.iter().map(text).collect();
                toml::Value::Array(texts?.into_iter().map(toml::Value::String).collect())
            }
            other => {
                let text = text(other)?;
                toml::Value::Array(
                    text.split(',').map(|one| toml::Value::String(one.trim().into())).collect(),
                )
            }
        },
        ConfigKind::Table => match value {
            Value::Object(_) => any_to_toml(value).ok_or("expected an object without nothing in it")?,
            _ => return Err("expected an object".into()),
        },
    })
}

fn any_to_toml(value: &Value) -> Option<toml::Value> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(flag) => toml::Value::Boolean(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => toml::Value::Integer(whole),
            None => toml::Value::Float(number.as_f64()?),
        },
        Value::String(text) => toml::Value::String(text.clone()),
        Value::Array(elements) => {
            toml::Value::Array(elements.iter().map(any_to_toml).collect::<Option<_>>()?)
        }
        Value::Object(members) => toml::Value::Table(
            members.iter().filter_map(|(name, value)| Some((name.clone(), any_to_toml(value)?))).collect(),
        ),
    })
}

/// Puts a value at a dotted key; a table is merged into the one that is there.
fn put(table: &mut toml::Table, place: &str, value: toml::Value) -> Result<(), String> {
    let (way, last) = place.rsplit_once('.').map_or((None, place), |(way, last)| (Some(way), last));
    let mut inner = table;
    for key in way.into_iter().flat_map(|way| way.split('.')) {
        let next = inner.entry(key).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        inner = next.as_table_mut().ok_or_else(|| format!("`{place}` is no place in the manifest"))?;
    }
    match (inner.get_mut(last), value) {
        (Some(toml::Value::Table(old)), toml::Value::Table(new)) => old.extend(new),
        (_, value) => {
            inner.insert(last.to_owned(), value);
        }
    }
    Ok(())
}

fn one_error(file: String, key: String, problem: String) -> ManifestErrors {
    ManifestErrors(vec![ManifestError { file, line: None, key, problem }])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn the_embedded_manifests_are_right() {
        let catalog = Catalog::embedded().unwrap_or_else(|errors| panic!("{errors}"));
        let names = [
            "aoqiwei-crm",
            "aoqiwei-scm",
            "demo-pos",
            "generic-rest",
            "keruyun",
            "loyverse",
            "meituan-cater",
            "meituan-waimai",
            "pinzhi",
            "shopify",
            "square",
            "tiancai-shanglong",
        ];
        assert_eq!(catalog.names(), names);
        for name in names {
            assert_eq!(catalog.get(name).unwrap().name, name);
        }
    }

    #[test]
    fn an_unknown_vendor_is_served_by_generic_rest() {
        let catalog = Catalog::embedded().unwrap();
        let manifest = catalog.resolve("some-till", &Map::new()).unwrap();
        assert_eq!(manifest.name, "generic-rest");
        assert!(Arc::ptr_eq(&manifest, &catalog.get("generic-rest").unwrap()));
    }

    #[test]
    fn a_systems_settings_take_the_place_of_keys() {
        let catalog = Catalog::embedded().unwrap();
        let settings = config(
            &json!({"page_param": "seite", "page_size": "7", "fields": {"external_id": "nr"}, "other": 1}),
        );
        let manifest = catalog.resolve("some-till", &settings).unwrap();
        let stream = manifest.stream("transactions").unwrap();
        assert_eq!(stream.pagination.page_param.as_deref(), Some("seite"));
        assert_eq!(stream.pagination.size, Some(7));
        let again = catalog.resolve("another-till", &settings).unwrap();
        assert!(Arc::ptr_eq(&manifest, &again), "made once");
    }

    #[test]
    fn a_bad_setting_is_named_as_the_systems() {
        let catalog = Catalog::embedded().unwrap();
        for (settings, key, says) in [
            (json!({"page_size": "many"}), "config.page_size", "not a whole number"),
            (json!({"page_size": 0}), "config.page_size", "out of range"),
            (json!({"auth": "magic"}), "config.auth", "expected one of"),
            (json!({"fields": {"extrnal_id": "nr"}}), "config.fields", "did you mean `external_id`"),
            (json!({"path": "orders"}), "config.path", "must begin with `/`"),
        ] {
            let errors = catalog.resolve("x", &config(&settings)).unwrap_err();
            assert_eq!(errors.0[0].key, key, "{errors}");
            assert!(errors.to_string().contains(says), "{errors}");
        }
    }

    #[test]
    fn a_folder_adds_replaces_and_reports_every_mistake() {
        let folder = tempfile::tempdir().unwrap();
        let good = "[meta]\nname='acme'\ntitle='Acme'\ntypes=['pos']\n[auth]\nkind='none'\n[probe]\nstream='s'\nmessage='ok'\n\
                    [streams.s]\ntarget='external_records'\nrequest.path='/s'\nanswer.records='.'\nmapping.fields.external_id='id'\n";
        fs::write(folder.path().join("acme.toml"), good).unwrap();
        fs::write(folder.path().join("square.toml"), good.replace("acme", "square")).unwrap();
        let catalog = Catalog::load(Some(folder.path())).unwrap();
        assert_eq!(catalog.get("square").unwrap().title, "Acme");
        assert!(catalog.get("acme").is_some());

        fs::write(folder.path().join("one.toml"), "[meta").unwrap();
        fs::write(folder.path().join("two.toml"), good).unwrap();
        let errors = Catalog::load(Some(folder.path())).unwrap_err().to_string();
        assert!(errors.contains("one.toml: is not TOML"), "{errors}");
        assert!(
            errors.contains("two.toml: `meta.name`: `acme` is not the name of the file; expected `two`"),
            "{errors}"
        );
        assert!(
            Catalog::load(Some(FilePath::new("/nonexistent")))
                .unwrap_err()
                .to_string()
                .contains("vendors.directory")
        );
    }
}
