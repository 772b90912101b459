//! What a manifest may not say about signatures: it is told when the manifest is loaded.

use zhilian_sync_jobs::vendor::Catalog;

#[test]
fn a_timestamp_outside_the_parameters_and_a_body_of_another_form_are_mistakes() {
    let head = "[meta]\nname='acme'\ntitle='Acme'\ntypes=['pos']\n[auth]\nkind='none'\n[probe]\nrequest.path='/'\nmessage='ok'\n[streams]\n";
    let sorted = "scheme='sorted_parameters'\nalgorithm='md5'\nsecret_place='after'\n";
    let told = |keys: &str, verification: &str| {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("{head}[webhook]\n{keys}\n[webhook.verification]\n{verification}\n");
        std::fs::write(folder.path().join("acme.toml"), text).unwrap();
        Catalog::load(Some(folder.path())).map(drop).map_err(|errors| errors.to_string())
    };
    let body = format!("{sorted}from='body'\nsignature='body:sign'\n");
    let form = format!("{sorted}from='form'\nsignature='body:sign'\n");
    let query = format!("{sorted}from='query'\nsignature='query:sign'\n");
    let code = "scheme='static_code'\nsignature='header:x-code'\n";
    for (keys, verification, mistake) in [
        ("", body.clone(), None),
        ("", format!("{body}timestamp='body:ts'"), None),
        ("", format!("{body}timestamp='body:data.ts'"), Some("verification.timestamp")),
        ("", format!("{body}timestamp=['body:ts','header:ts']"), Some("verification.timestamp")),
        ("", format!("{body}timestamp='body:ts'\nexclude=['ts']"), Some("verification.timestamp")),
        ("", format!("{body}id='header:x-id'"), Some("verification.id")),
        ("body='form'", body.clone(), Some("verification.from")),
        ("", form.clone(), Some("verification.from")),
        ("body='form'", format!("{form}timestamp='body:ts'"), None),
        ("body='form_json'\nform_member='biz'", format!("{form}timestamp='body:biz.ts'"), None),
        ("body='form'", format!("{form}timestamp='query:ts'"), Some("verification.timestamp")),
        ("", format!("{query}timestamp='query:ts'"), None),
        ("", format!("{query}timestamp='body:ts'"), Some("verification.timestamp")),
        ("", format!("{code}timestamp='header:ts'"), Some("verification.timestamp")),
        ("", code.to_owned(), None),
    ] {
        let told = told(keys, &verification);
        match mistake {
            None => assert_eq!(told, Ok(()), "{keys} {verification}"),
            Some(key) => {
                let told = told.unwrap_err();
                assert!(told.contains(&format!("`webhook.{key}`")), "{verification}: {told}");
            }
        }
    }
}
