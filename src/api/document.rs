//! The OpenAPI document, with what the framework cannot say added, and a page for people made from it.
//!
//! The page is written here and loads nothing from elsewhere: it also works where there is no internet.

use std::fmt::Write as _;

use poem::endpoint::make_sync;
use poem::http::header;
use poem::{Endpoint, Response};
use poem_openapi::{OpenApi, OpenApiService};
use serde_json::{Map, Value, json};

use super::access::Access;
use super::{BASE, ROUTES, caller};

pub mod errors;
pub mod examples;
mod formats;
mod headers;
mod links;

/// The document of these handlers.
pub fn document<T: OpenApi>(service: &OpenApiService<T, ()>) -> Value {
    let mut document: Value = serde_json::from_str(&service.spec()).expect("the framework writes JSON");
    add_security(&mut document);
    close_bodies(&mut document);
    formats::add(&mut document);
    errors::add(&mut document);
    headers::add(&mut document);
    headers::add_key(&mut document);
    examples::add(&mut document);
    links::add(&mut document);
    document
}

/// Serves the document.
pub fn json_endpoint(document: &Value) -> impl Endpoint<Output = Response> + use<> {
    let text = document.to_string();
    make_sync(move |_| Response::builder().content_type("application/json").body(text.clone()))
}

/// Serves the page for people.
pub fn page_endpoint(document: &Value) -> impl Endpoint<Output = Response> + use<> {
    let page = page(document);
    make_sync(move |_| {
        Response::builder()
            .content_type("text/html; charset=utf-8")
            .header(
                header::CONTENT_SECURITY_POLICY,
                "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
            )
            .body(page.clone())
    })
}

/// Which operations need a token, and who may call them, from the route table.
fn add_security(document: &mut Value) {
    document["components"]["securitySchemes"] = json!({
        "bearer": {"type": "http", "scheme": "bearer", "description": "The token of POST /auth/login."},
        "cookie": {"type": "apiKey", "in": "cookie", "name": caller::COOKIE, "description": "For browsers; changes also need our Origin."},
    });
    for route in ROUTES {
        let method = route.method.as_str().to_ascii_lowercase();
        let Some(operation) = document["paths"][route.path][&method].as_object_mut() else {
            continue;
        };
        match route.access {
            Access::Public => operation.insert("security".to_owned(), json!([])),
            Access::Needs(permission) => {
                let roles: Vec<&str> = permission.roles().iter().map(|role| role.as_str()).collect();
                operation.insert("x-roles".to_owned(), json!(roles));
                operation.insert("security".to_owned(), json!([{"bearer": []}, {"cookie": []}]))
            }
        };
    }
}

/// Bodies that refuse unknown fields say so, and those without a field that has to be there may be left out.
fn close_bodies(document: &mut Value) {
    let bodies: Vec<String> = operations(document)
        .filter_map(|(_, _, operation)| operation["requestBody"]["content"].as_object())
        .flat_map(Map::values)
        .filter_map(|media| media["schema"]["$ref"].as_str()?.rsplit('/').next().map(str::to_owned))
        .collect();
    for body in bodies {
        let schema = &mut document["components"]["schemas"][&body];
        if schema["additionalProperties"].is_null() {
            schema["additionalProperties"] = Value::Bool(false);
        }
    }
    let schemas = document["components"]["schemas"].clone();
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (_, operation) in paths.flat_map(|(_, methods)| methods.as_object_mut().into_iter().flatten()) {
        let Some(body) = operation.get_mut("requestBody") else {
            continue;
        };
        let schema = body.pointer("/content/application~1json/schema/$ref").and_then(Value::as_str);
        if let Some(name) = schema.and_then(|reference| reference.rsplit('/').next()) {
            body["required"] = Value::Bool(schemas[name].get("required").is_some());
        }
    }
}

fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths.flat_map(|(path, methods)| {
        let methods = methods.as_object().into_iter().flatten();
        methods.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;\
color:#1c1c1c;background:#fff}h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.5rem}\
section{border-top:1px solid #ddd;padding:.8rem 0}code{font:14px ui-monospace,monospace;background:#f3f3f3;\
padding:.1rem .3rem}td,th{text-align:left;vertical-align:top;padding:.2rem .8rem .2rem 0}small{color:#555}\
@media(prefers-color-scheme:dark){body{background:#161616;color:#eee}code{background:#2a2a2a}\
section{border-color:#333}small{color:#aaa}}";

fn page(document: &Value) -> String {
    let mut html = String::new();
    let version = document["info"]["version"].as_str().unwrap_or_default();
    // Writing to a string cannot fail, and so on for every `write!` below.
    let _ = write!(
        html,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>zhilian-sync API</title><style>{STYLE}</style><h1>zhilian-sync API \
         {version}</h1><p>Base path <code>{BASE}</code>. The whole description, for programs: \
         <a href=\"{BASE}/openapi.json\">openapi.json</a>. Errors are <code>application/problem+json</code> with a \
         stable <code>code</code>.</p>",
        version = escape(version)
    );
    for route in ROUTES {
        let method = route.method.as_str().to_ascii_lowercase();
        write_operation(&mut html, document, route.path, &method);
    }
    html.push_str("<h2>Bodies</h2>");
    for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
        write_schema(&mut html, name, schema);
    }
    html
}

fn write_operation(html: &mut String, document: &Value, path: &str, method: &str) {
    let operation = &document["paths"][path][method];
    let text = |value: &Value| escape(value.as_str().unwrap_or_default());
    let _ = write!(
        html,
        "<section><b><code>{} {}</code></b> {}<br><small>{}</small>",
        method.to_ascii_uppercase(),
        escape(path),
        text(&operation["summary"]),
        text(&operation["description"]),
    );
    let roles: Vec<String> = operation["x-roles"].as_array().into_iter().flatten().map(text).collect();
    let roles = if roles.is_empty() { "anyone".to_owned() } else { roles.join(", ") };
    let _ = write!(html, "<table><tr><th>who<td>{roles}");
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let (place, name) = (text(&parameter["in"]), text(&parameter["name"]));
        let _ = write!(html, "<tr><th>{place} <code>{name}</code><td>{}", text(&parameter["description"]));
    }
    let body = operation["requestBody"]["content"].as_object().into_iter().flatten().next();
    if let Some((_, media)) = body {
        let _ = write!(html, "<tr><th>body<td>{}", type_of(&media["schema"]));
    }
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        let response = resolved(document, response);
        let content = response["content"].as_object().into_iter().flatten().next();
        let shape = content.map(|(_, media)| type_of(&media["schema"])).unwrap_or_default();
        let _ = write!(html, "<tr><th>{}<td>{} {shape}", escape(status), text(&response["description"]));
    }
    html.push_str("</table></section>");
}

/// The answer itself, where it is described among those that operations share.
fn resolved<'a>(document: &'a Value, response: &'a Value) -> &'a Value {
    let name = response["$ref"].as_str().and_then(|reference| reference.rsplit('/').next());
    name.map_or(response, |name| &document["components"]["responses"][name])
}

fn write_schema(html: &mut String, name: &str, schema: &Value) {
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let description = escape(schema["description"].as_str().unwrap_or_default());
    let name = escape(name);
    let _ = write!(html, "<section id=\"{name}\"><b><code>{name}</code></b> {description}<table>");
    for (field, property) in schema["properties"].as_object().into_iter().flatten() {
        let star = if required.contains(&field.as_str()) { "*" } else { "" };
        let description = escape(property["description"].as_str().unwrap_or_default());
        let _ = write!(
            html,
            "<tr><th><code>{}</code>{star}<td>{}<td>{description}",
            escape(field),
            type_of(property)
        );
    }
    html.push_str("</table></section>");
}

/// A schema in a few words, with a link where it is described below.
fn type_of(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = escape(reference.rsplit('/').next().unwrap_or_default());
        return format!("<a href=\"#{name}\">{name}</a>");
    }
    if let Some(first) = schema["allOf"].get(0) {
        return type_of(first);
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        return choices.iter().map(type_of).collect::<Vec<_>>().join(" or ");
    }
    match schema["type"].as_str() {
        Some("array") => format!("list of {}", type_of(&schema["items"])),
        Some(name) => {
            let values: Vec<&str> =
                schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let format =
                schema["format"].as_str().map(|format| format!(" ({})", escape(format))).unwrap_or_default();
            if values.is_empty() { format!("{}{format}", escape(name)) } else { escape(&values.join(" | ")) }
        }
        None => "anything".to_owned(),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
