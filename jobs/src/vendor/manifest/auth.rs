//! Reads `[auth]`: how a call proves who we are. Tokens that the vendor gives are read by `manifest/token.rs`.

use super::Auth;
use super::section::Section;
use super::token::read_token;

/// Reads the section `auth`.
pub(super) fn read_auth(root: &Section<'_>) -> Option<Auth> {
    #[derive(Clone, Copy)]
    enum Kind {
        None,
        Bearer,
        Header,
        Basic,
        Token,
        OAuth2,
    }
    let section = root.required(
        "auth",
        root.section("auth"),
        "say `kind = \"none\"` where the vendor asks for nothing",
    )?;
    let kinds = [
        ("none", Kind::None),
        ("bearer", Kind::Bearer),
        ("header", Kind::Header),
        ("basic", Kind::Basic),
        ("token", Kind::Token),
        ("oauth2", Kind::OAuth2),
    ];
    let kind = section.required(
        "kind",
        section.choice("kind", &kinds),
        "expected `bearer`, `header`, `basic`, `token`, `oauth2` or `none`",
    );
    if let Some(Kind::Token | Kind::OAuth2) = kind {
        let signing = root.value("signing").and_then(toml::Value::as_table);
        let auth = read_token(&section, signing, matches!(kind, Some(Kind::OAuth2)));
        section.finish();
        return auth;
    }
    // All are read whatever the kind, because a system's settings may choose the kind.
    let (token, header, value) =
        (section.template("token"), section.text("header"), section.template("value"));
    let (username, password) = (section.template("username"), section.template("password"));
    let auth = match kind? {
        Kind::None | Kind::Token | Kind::OAuth2 => Some(Auth::None),
        Kind::Bearer => section
            .required("token", token, "bearer needs it, as in `token = \"{credential.api_key}\"`")
            .map(|token| Auth::Bearer { token }),
        Kind::Header => {
            let header =
                section.required("header", header, "name the header, as in `header = \"X-Api-Key\"`");
            let value =
                section.required("value", value, "header needs it, as in `value = \"{credential.api_key}\"`");
            if let Some(name) = header
                && reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_err()
            {
                section.problem("header", format!("`{name}` is not the name of a header"));
            }
            header.zip(value).map(|(header, value)| Auth::Header { header: header.to_owned(), value })
        }
        Kind::Basic => section
            .required("username", username, "basic needs it, as in `username = \"{credential.api_key}\"`")
            .map(|username| Auth::Basic { username, password }),
    };
    section.finish();
    auth
}
