//! What an app sets in `tauri.conf.json`.

use serde::Deserialize;
use std::collections::BTreeMap;

/// `plugins > vibevoice-asr` of `tauri.conf.json`; all of it may be left out.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Config {
    /// Load the model when the app starts, and not with the first recording (true).
    pub preload: bool,
    /// The folder of resources in which the executable lies (`""`: the folder of all of them).
    pub folder: String,
    /// Settings of the service, by their names (docs/settings.md): `{"keep_alive": "5m"}`.
    pub settings: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Config {
        Config { preload: true, folder: String::new(), settings: BTreeMap::new() }
    }
}
