//! What a manifest may not say about signatures, bodies and tokens: it is told when the manifest is loaded.

use zhilian_sync_jobs::vendor::Catalog;

const SIGNING: &str = "[signing]\nplace='query:sign'\nalgorithm='md5'\ncontent='{pairs}{credential.key}'\n";
const TOKEN: &str = "[auth]\nkind='token'\nrequest.path='/token'\ntoken='token'\n";
const OAUTH2: &str = "[auth]\nkind='oauth2'\ngrant='client_credentials'\nrequest.path='/token'\nclient_id='{credential.key}'\n";

/// What is said of a manifest with this authentication and these sections.
fn told(auth: &str, rest: &str) -> Result<(), String> {
    let auth = if auth.is_empty() { "[auth]\nkind='none'\n" } else { auth };
    let text = format!(
        "[meta]\nname='acme'\ntitle='Acme'\ntypes=['pos']\n[credentials.key]\nlabel='Key'\n\
         [probe]\nrequest.path='/'\nmessage='ok'\n[streams]\n{auth}\n{rest}\n"
    );
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("acme.toml"), text).unwrap();
    Catalog::load(Some(folder.path())).map(drop).map_err(|errors| errors.to_string())
}

#[test]
fn what_is_right_is_taken() {
    for (auth, rest) in [
        ("", SIGNING.to_owned()),
        ("", "[connection.clock]\nformat='naive'\nzone='Asia/Shanghai'\n[connection.parameters]\nts='{request.time}'".into()),
        (TOKEN, SIGNING.replace("credential.key", "token") + "[auth.signing]\ncontent='{pairs}{credential.key}'"),
        (TOKEN, SIGNING.replace("credential.key", "token") + "[auth.request]\nsigned=false"),
        (OAUTH2, String::new()),
        (OAUTH2, SIGNING.to_owned()),
    ] {
        // A second `[auth.request]` would be another table of the same name.
        let auth = if rest.contains("[auth.request]") { auth.replace("request.path='/token'\n", "") } else { auth.into() };
        let rest = rest.replace("[auth.request]\n", "[auth.request]\npath='/token'\n");
        assert_eq!(told(&auth, &rest), Ok(()), "{auth}{rest}");
    }
}

/// That a mistake is told with its key and the way out.
fn assert_told(auth: &str, rest: &str, key: &str, says: &str) {
    let found = told(auth, rest).expect_err(&format!("{auth}{rest}"));
    let told = found.lines().any(|line| line.contains(&format!(": `{key}`: ")) && line.contains(says));
    assert!(told, "expected `{key}` … {says}, found {found}");
}

#[test]
fn a_mistake_in_a_signature_names_key_and_fix() {
    for (from, to, key, says) in [
        ("place='query:sign'", "", "place", "say where the signature goes"),
        ("query:sign", "url:sign", "place", "expected `parameter:<name>`"),
        ("query:sign", "header:X Sign", "place", "is not the name of a header"),
        ("'md5'", "'md4'", "algorithm", "expected one of `md5`"),
        ("'md5'", "'hmac_sha256'", "key", "an HMAC needs it"),
        ("{credential.key}", "", "content", "anybody could sign"),
        ("content=", "join=", "content", "say where the secret goes"),
        ("{pairs}", "{signature}", "content", "goes into `value`"),
    ] {
        assert!(SIGNING.contains(from), "{from}");
        assert_told("", &SIGNING.replace(from, to), &format!("signing.{key}"), says);
    }
    for (more, key, says) in [
        ("with.a='{pairs}'", "with.a", "which are made of it"),
        ("value='sha1='", "value", "has no `{signature}`"),
        ("from=['form','head']", "from", "`head` is not known"),
        ("order='random'", "order", "expected one of `name`, `sent`"),
        ("pair='{name}='", "pair", "both `{name}` and `{value}`"),
        ("render='perl'", "render", "expected one of `pairs`, `php`"),
        ("encoding='hexx'", "encoding", "expected one of `hex`, `hex_upper`"),
        ("base_url='acme'", "base_url", "is not an address"),
        ("drop_emty=true", "drop_emty", "did you mean `drop_empty`?"),
    ] {
        assert_told("", &format!("{SIGNING}{more}"), &format!("signing.{key}"), says);
    }
    let body = SIGNING.replace("query:sign", "body:sign");
    assert_told("", &body, "probe.request", "no body in which the signature could be");
    let other = SIGNING.replace("credential.key", "credential.other");
    assert_told("", &other, "signing", "add `[credentials.other]`");
    let token = SIGNING.replace("credential.key", "token");
    assert_told("", &token, "signing", "only where `auth.kind` is");
    assert_told(TOKEN, &token, "auth.signing", "take a credential");
}

#[test]
fn a_mistake_in_what_all_requests_have_names_key_and_fix() {
    for (rest, key, says) in [
        ("[connection.query]\na='{pairs}'", "connection.query.a", "only in `[signing]`"),
        ("[connection.headers]\na='{refresh_token}'", "connection.headers.a", "only in `auth.request`"),
        ("[connection.clock]\nformat='iso'", "connection.clock.format", "expected one of `rfc3339`"),
        ("[connection.clock]\nzone='Peking'", "connection.clock.zone", "is not a time zone"),
    ] {
        assert_told("", rest, key, says);
    }
    for (keys, key, says) in [
        ("body_as='text'\nbody.a=1", "body", "one text in quotes"),
        ("body_as='form'\nbody=['a']", "body", "a table of its members"),
        ("body_as='xml'", "body_as", "expected one of `json`"),
        ("body_as='text'\nbody='a'\nparams_in='body'", "params_in", "none that takes parameters"),
        ("signed='no'", "signed", "expected `true` or `false`"),
    ] {
        let rest = format!("[push.member]\nmethod='POST'\npath='/m'\n{keys}");
        assert_told("", &rest, &format!("push.member.{key}"), says);
    }
}

#[test]
fn a_mistake_in_a_token_call_names_key_and_fix() {
    assert_told("[auth]\nkind='token'\ntoken='t'\n", "", "auth.request", "say how a token is asked for");
    assert_told("[auth]\nkind='token'\nrequest.path='/t'\n", "", "auth.token", "give the path of the token");
    for (more, key, says) in [
        ("request.query.b='{window.from}'", "auth.request", "neither page nor window"),
        ("request.query.b='{token}'", "auth.request", "take a credential"),
        ("request.query.b='{refresh_token}'", "auth.request", "with `auth.refresh_token`"),
        ("place='token'", "auth.place", "is no place in a request"),
        ("place='body:t'", "probe.request", "in which the token could be"),
        ("value='Bearer'", "auth.value", "has no `{token}`"),
        ("expires_in=0", "auth.expires_in", "out of range"),
        ("endpoint='acme'", "auth.endpoint", "is not an address"),
        ("signing=1", "auth.signing", "expected a table of the keys"),
        ("tokn='a'", "auth.tokn", "did you mean `token`?"),
    ] {
        assert_told(&format!("{TOKEN}{more}\n"), "", key, says);
    }
    for (from, to, key, says) in [
        ("client_credentials", "password", "auth.grant", "expected one of `client_credentials`"),
        ("client_credentials", "refresh_token", "auth.refresh_token", "when somebody signed in"),
        ("client_id=", "token=", "auth.client_id", "give the client's id"),
        ("request.path=", "client_auth='jwt'\nrequest.path=", "auth.client_auth", "expected one of `body`"),
        ("request.path=", "request.body=[1]\nrequest.path=", "auth.request.body", "a table"),
    ] {
        assert_told(&OAUTH2.replace(from, to), "", key, says);
    }
}
