//! Bodies of requests: declared once, which gives the struct, its place in the OpenAPI document, and a
//! reader that reports every wrong field by name.
//!
//! Malformed JSON is a 400, wrong values are a 422 with all of them. Seed bodies accept fields that we
//! do not know and name them; our own refuse them.

use poem::http::StatusCode;
use poem::{Request, RequestBody};
use poem_openapi::registry::{MetaMediaType, MetaRequest, MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::types::{ParseFromJSON, Type};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use serde_json::{Map, Value};
use zhilian_sync_jobs::vendor::read_json;

use super::BodyLimit;
use super::problem::{FieldError, Problem, plain};

/// How deep JSON may be nested is serde's own limit (128); how many unknown fields are named is ours.
const IGNORED_FIELDS_MAX: usize = 50;

/// A body that `request_body!` declares.
pub trait Schema: Sized + Send {
    /// Its name in the document.
    const NAME: &'static str;
    /// Whether fields that it does not declare are accepted.
    const ACCEPTS_UNKNOWN: bool;

    /// Its fields, as the document shows them.
    fn schema(registry: &mut Registry) -> MetaSchema;

    /// Reads the declared fields out of `fields` and leaves the others there.
    fn read(fields: &mut Map<String, Value>) -> Result<Self, Vec<FieldError>>;
}

/// A body that was read.
#[derive(Debug)]
pub struct Body<T> {
    /// The declared fields.
    pub value: T,
    /// The names of the others.
    pub ignored_fields: Vec<String>,
    /// The body, its JSON written anew: the same values are the same text, however they were spaced.
    pub raw: String,
}

/// Declares a body.
///
/// `accepts_unknown` or `refuses_unknown`, then a struct whose fields are types of `values`; `as "…"`
/// gives a field another name outside.
macro_rules! request_body {
    (@name $field:ident as $name:literal) => { $name };
    (@name $field:ident) => { stringify!($field) };
    (@unknown accepts_unknown) => { true };
    (@unknown refuses_unknown) => { false };
    (
        $(#[doc = $doc:literal])+
        $unknown:ident $vis:vis struct $body:ident {
            $($(#[doc = $field_doc:literal])+ $field:ident $(as $name:literal)?: $type:ty,)+
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug)]
        $vis struct $body {
            $($(#[doc = $field_doc])+ pub $field: $type,)+
        }

        impl $crate::api::body::Schema for $body {
            const NAME: &'static str = stringify!($body);
            const ACCEPTS_UNKNOWN: bool = request_body!(@unknown $unknown);

            fn schema(registry: &mut poem_openapi::registry::Registry) -> poem_openapi::registry::MetaSchema {
                let fields = vec![
                    $($crate::api::body::property::<$type>(
                        registry, request_body!(@name $field $(as $name)?), concat!($($field_doc),+),
                    ),)+
                ];
                $crate::api::body::object_schema(concat!($($doc),+), Self::ACCEPTS_UNKNOWN, fields)
            }

            fn read(
                fields: &mut serde_json::Map<String, serde_json::Value>,
            ) -> Result<Self, Vec<$crate::api::problem::FieldError>> {
                let mut errors = Vec::new();
                $(let $field = $crate::api::body::field::<$type>(
                    fields, request_body!(@name $field $(as $name)?), &mut errors,
                );)+
                match ($($field,)+) {
                    ($(Some($field),)+) if errors.is_empty() => Ok(Self { $($field),+ }),
                    _ => Err(errors),
                }
            }
        }
    };
}
pub(super) use request_body;

/// One property of a declared body; a helper of `request_body!`.
pub fn property<T: Type>(
    registry: &mut Registry,
    name: &'static str,
    description: &'static str,
) -> (&'static str, bool, MetaSchemaRef) {
    T::register(registry);
    let described =
        MetaSchema { description: Some(description.trim()), nullable: !T::IS_REQUIRED, ..MetaSchema::ANY };
    (name, T::IS_REQUIRED, T::schema_ref().merge(described))
}

/// The schema of a declared body; a helper of `request_body!`.
pub fn object_schema(
    description: &'static str,
    accepts_unknown: bool,
    fields: Vec<(&'static str, bool, MetaSchemaRef)>,
) -> MetaSchema {
    let unknown = accepts_unknown.then(|| Box::new(MetaSchemaRef::Inline(Box::new(MetaSchema::ANY))));
    MetaSchema {
        description: Some(description.trim()),
        required: fields.iter().filter(|(_, required, _)| *required).map(|(name, ..)| *name).collect(),
        properties: fields.into_iter().map(|(name, _, schema)| (name, schema)).collect(),
        additional_properties: unknown,
        ..MetaSchema::new("object")
    }
}

/// Reads one field; a helper of `request_body!`.
pub fn field<T: ParseFromJSON>(
    fields: &mut Map<String, Value>,
    name: &str,
    errors: &mut Vec<FieldError>,
) -> Option<T> {
    match T::parse_from_json(fields.remove(name)) {
        Ok(value) => Some(value),
        Err(error) => {
            errors.push(FieldError { field: name.to_owned(), detail: plain(error.message()) });
            None
        }
    }
}

impl<'a, T: Schema + 'static> ApiExtractor<'a> for Body<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        registry.create_schema::<T, _>(T::NAME.to_owned(), T::schema);
    }

    fn request_meta() -> Option<MetaRequest> {
        let schema = MetaSchemaRef::Reference(T::NAME.to_owned());
        let content = vec![MetaMediaType { content_type: "application/json", schema }];
        Some(MetaRequest { description: None, content, required: true })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        let bytes = bytes(request, body).await?;
        // No body at all is an object without fields: where every field is optional, that is enough.
        if bytes.is_empty() && request.content_type().is_none() {
            return Ok(parse(b"{}")?);
        }
        check_content_type(request)?;
        Ok(parse(&bytes)?)
    }
}

async fn bytes(request: &Request, body: &mut RequestBody) -> poem::Result<Vec<u8>> {
    let limit = request.data::<BodyLimit>().map_or(0, |limit| limit.0);
    Ok(body.take()?.into_bytes_limit(limit).await.map_err(Problem::from)?.into())
}

/// The fields of a body that has to be there.
pub async fn object(request: &Request, body: &mut RequestBody) -> poem::Result<Map<String, Value>> {
    let bytes = bytes(request, body).await?;
    check_content_type(request)?;
    Ok(fields_of(&bytes)?)
}

/// A field that a body of ours does not have.
pub fn no_field(field: &str) -> FieldError {
    FieldError { field: field.to_owned(), detail: "is not a field of this request".to_owned() }
}

fn check_content_type(request: &Request) -> Result<(), Problem> {
    let given = request.content_type().unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    let detail = "the body's content type is not JSON; expected `application/json`";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail))
}

fn fields_of(bytes: &[u8]) -> Result<Map<String, Value>, Problem> {
    let malformed = |detail: String| Problem::bad_request("malformed_json", detail);
    let text = std::str::from_utf8(bytes).map_err(|_| malformed("the body is not UTF-8".to_owned()))?;
    match read_json(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(malformed("the body is not a JSON object".to_owned())),
        Err(problem) => Err(malformed(format!("the body {problem}"))),
    }
}

fn parse<T: Schema>(bytes: &[u8]) -> Result<Body<T>, Problem> {
    let mut fields = fields_of(bytes)?;
    let raw = serde_json::to_string(&fields).expect("JSON that was read serialises");
    let read = T::read(&mut fields);
    let mut unknown: Vec<String> = fields.keys().take(IGNORED_FIELDS_MAX).cloned().collect();
    unknown.sort();
    let mut errors = read.as_ref().err().cloned().unwrap_or_default();
    if !T::ACCEPTS_UNKNOWN {
        errors.extend(unknown.iter().map(|field| no_field(field)));
    }
    match read {
        Ok(value) if errors.is_empty() => Ok(Body { value, ignored_fields: unknown, raw }),
        _ => Err(Problem::invalid(errors)),
    }
}

#[cfg(test)]
mod tests {
    use poem_openapi::types::MaybeUndefined;

    use super::super::values::{Money, Text, Whole};
    use super::*;

    request_body! {
        /// A dish.
        accepts_unknown struct Dish {
            /// What it is called.
            name: Text<20>,
            /// What it is.
            sort as "type": Option<Text<20>>,
            /// How many.
            count: Option<Whole<1, 9>>,
            /// What it costs.
            price: MaybeUndefined<Money>,
        }
    }

    fn refused(json: &str) -> String {
        parse::<Dish>(json.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn every_wrong_field_is_reported_by_name() {
        insta::assert_snapshot!(refused(r#"{"name": 5, "type": "", "count": 10, "price": []}"#), @"invalid_values: `name` is a number; expected a text; `type` is blank; expected a text; `count` is not a whole number between 1 and 9; `price` is a list; expected an amount");
        insta::assert_snapshot!(refused("{}"), @"invalid_values: `name` is missing");
        insta::assert_snapshot!(refused("[]"), @"malformed_json: the body is not a JSON object");
        insta::assert_snapshot!(refused("{"), @"malformed_json: the body is not JSON: EOF while parsing an object at line 1 column 1");
        let deep = r#"{"name": "tofu", "x": {"$serde_json::private::RawValue": "[]"}}"#;
        insta::assert_snapshot!(refused(deep), @"malformed_json: the body has a member whose name begins with `$serde_json::private::`, which is reserved");
    }

    #[test]
    fn unknown_fields_are_named() {
        let body = parse::<Dish>(br#"{"name": "tofu", "type": "main", "spice": 3, "area": "B"}"#).unwrap();
        assert_eq!(body.value.name.0, "tofu");
        assert_eq!(body.value.sort.unwrap().0, "main");
        assert_eq!(body.ignored_fields, ["area", "spice"]);
        assert_eq!((body.value.price, body.value.count), (MaybeUndefined::Undefined, None));
    }
}
