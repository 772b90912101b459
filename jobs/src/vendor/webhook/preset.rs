//! Ways of signing that many vendors share, by name. A preset is a piece of a manifest that is laid
//! under the vendor's own keys, so whatever differs is said there and everything is checked as one.

/// The names of the presets, and what they stand for.
const PRESETS: [(&str, &str); 4] =
    [("standard", STANDARD), ("github", GITHUB), ("shopify", SHOPIFY), ("square", SQUARE)];

/// standardwebhooks.com; Svix sends the same under names of its own.
const STANDARD: &str = r#"
event_key = ["header:webhook-id", "header:svix-id"]
event_type = "body:type"

[verification]
scheme = "hmac"
algorithm = "sha256"
encoding = "base64"
signature = ["header:webhook-signature", "header:svix-signature"]
list = { style = "versions", separator = " ", keys = ["v1"], join = "," }
content = "{id}.{timestamp}.{body}"
id = ["header:webhook-id", "header:svix-id"]
timestamp = ["header:webhook-timestamp", "header:svix-timestamp"]
timestamp_form = "unix"
tolerance_secs = 300
secret_form = "base64"
secret_prefix = "whsec_"
"#;

/// docs.github.com, "Validating webhook deliveries".
const GITHUB: &str = r#"
event_key = "header:x-github-delivery"
event_type = "header:x-github-event"

[verification]
scheme = "hmac"
algorithm = "sha256"
encoding = "hex"
signature = "header:x-hub-signature-256"
prefix = "sha256="
content = "{body}"
"#;

/// shopify.dev, "Deliver webhooks through HTTPS". The event's id is the same for every subscription
/// that an event reaches; older versions of the interface have only the delivery's.
const SHOPIFY: &str = r#"
event_key = ["header:x-shopify-event-id", "header:x-shopify-webhook-id"]
event_type = "header:x-shopify-topic"
ack_deadline_ms = 5000
retry_window_secs = 14400

[verification]
scheme = "hmac"
algorithm = "sha256"
encoding = "base64"
signature = "header:x-shopify-hmac-sha256"
content = "{body}"
"#;

/// developer.squareup.com, "Validate webhook notifications".
const SQUARE: &str = r#"
event_key = "body:event_id"
event_type = "body:type"

[verification]
scheme = "hmac"
algorithm = "sha256"
encoding = "base64"
signature = "header:x-square-hmacsha256-signature"
content = "{url}{body}"
"#;

/// The preset of that name; an unknown one is told with those that there are.
pub(crate) fn preset(name: &str) -> Result<toml::Table, String> {
    let Some((_, text)) = PRESETS.iter().find(|(known, _)| *known == name) else {
        let known = PRESETS.map(|(name, _)| format!("`{name}`")).join(", ");
        return Err(format!("`{name}` is not a preset; known are {known}"));
    };
    text.parse().map_err(|error| format!("`{name}` cannot be read: {error}"))
}

/// Lays `over` over `under`: tables are merged, anything else takes the place of what was there.
pub(crate) fn lay_over(mut under: toml::Table, over: &toml::Table) -> toml::Table {
    for (key, value) in over {
        let merged = match (under.remove(key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => {
                toml::Value::Table(lay_over(below, above))
            }
            (_, value) => value.clone(),
        };
        under.insert(key.clone(), merged);
    }
    under
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_can_be_read_and_own_keys_win() {
        for (name, _) in PRESETS {
            assert!(preset(name).unwrap().contains_key("verification"), "{name}");
        }
        assert!(preset("stripe").unwrap_err().contains("known are `standard`, `github`"));
        let own: toml::Table =
            "event_type = 'body:kind'\n[verification]\nalgorithm = 'sha512'".parse().unwrap();
        let merged = lay_over(preset("github").unwrap(), &own);
        assert_eq!(merged["event_type"].as_str(), Some("body:kind"));
        assert_eq!(merged["verification"]["algorithm"].as_str(), Some("sha512"));
        assert_eq!(merged["verification"]["prefix"].as_str(), Some("sha256="));
    }
}
