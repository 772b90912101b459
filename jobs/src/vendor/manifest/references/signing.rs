//! What only a signature knows must stand nowhere else, and a signature must have a place to go.

use crate::vendor::manifest::signing::Place;
use crate::vendor::manifest::stream::{BodyAs, Request};
use crate::vendor::manifest::{Manifest, section::Problems};
use crate::vendor::template::Slot;

/// Whether a placeholder has a value where it stands.
pub(super) fn check_slot(manifest: &Manifest, key: &str, slot: &Slot, problems: &Problems) {
    let asks_for_token = matches!(key, "auth.request" | "auth.signing");
    match slot {
        Slot::Signing(part) if !matches!(key, "signing" | "auth.signing") => {
            problems.add(key, format!("`{{{}}}` has a value only in `[signing]`", part.word()));
        }
        Slot::Token if manifest.auth.token().is_none() => {
            problems.add(key, "`{token}` has a value only where `auth.kind` is `token` or `oauth2`");
        }
        Slot::Token if asks_for_token => {
            problems.add(key, "holds `{token}`, but the token is what is asked for; take a credential");
        }
        Slot::RefreshToken
            if !asks_for_token || manifest.auth.token().is_none_or(|spec| spec.refresh.is_none()) =>
        {
            problems
                .add(key, "`{refresh_token}` has a value only in `auth.request`, with `auth.refresh_token`");
        }
        Slot::WindowFrom
        | Slot::WindowTo
        | Slot::PageSize
        | Slot::PageNumber
        | Slot::PageOffset
        | Slot::PageCursor
        | Slot::PageVersion
            if key.starts_with("auth.") =>
        {
            problems.add(key, "uses `{page.…}` or `{window.…}`, but a token has neither page nor window");
        }
        _ => {}
    }
}

/// A signature or a token that goes into the body needs a body in every request that has one of them.
pub(super) fn check_places(manifest: &Manifest, problems: &Problems) {
    let check = |key: &str, request: &Request, place: Option<&Place>, what: &str| {
        let Some(Place::Body(name)) = place else { return };
        let has_body = request.body.is_some() || request.params_in_body || request.is_form();
        if !has_body || request.body_as == BodyAs::Text {
            let problem = format!(
                "has no body in which the {what} could be the member `{name}`; give it one, or say \
                 `parameter:{name}` as its place"
            );
            problems.add(key, problem);
        }
    };
    let token = manifest.auth.token();
    let signing = manifest.signing.as_ref();
    for (key, request) in requests(manifest) {
        let place = signing.filter(|_| request.signed).map(|signing| &signing.place);
        check(&key, request, place, "signature");
        check(&key, request, token.and_then(|spec| spec.place.as_ref()), "token");
    }
    if let Some(spec) = token {
        check(
            "auth.request",
            &spec.request,
            spec.signing.as_ref().map(|signing| &signing.place),
            "signature",
        );
    }
}

/// Every request with its key, but for that of a token.
fn requests(manifest: &Manifest) -> impl Iterator<Item = (String, &Request)> {
    let streams = manifest.streams.iter().flat_map(|stream| {
        let one = stream.one.iter().map(|one| (format!("streams.{}.one", stream.name), &one.request));
        one.chain([(format!("streams.{}.request", stream.name), &stream.request)])
    });
    let probe = manifest.probe.request.iter().map(|request| ("probe.request".to_owned(), request));
    let push = manifest.push.iter().map(|push| ("push.member".to_owned(), &push.request));
    streams.chain(probe).chain(push)
}
