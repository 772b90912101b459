//! THE ROUTE TABLE: every path, its method, its operation and who may call it, top to bottom.
//!
//! The access check reads this table before a handler runs, the document shows it, and a test walks it.
//! A handler whose operation is not here cannot be reached. The layers around the handlers, from the
//! outside in: request id and log span, time limit, panic guard, route and access check, handler.

use poem::http::Method;
use poem::{Endpoint, IntoEndpoint as _, Response, Route as Router};
use poem_openapi::{OpenApiService, Tags};

use crate::app::App;

use access::Access::{self, Needs, Public};
use access::Permission::{
    CreateTransactions, DeleteSystems, ManageRuns, ManageTokens, ManageUsers, ManageWebhooks,
    ReleaseWebhooks, SeeAudit, SeeRecords, SeeRuns, SeeSystems, SeeWebhooks, TestSystems, UseSession,
    WriteMembers, WriteReservations, WriteSupplierOrders, WriteSystems,
};

pub mod access;
pub mod answer;
pub mod audit;
pub mod batch;
pub mod body;
pub mod caller;
pub mod changes;
pub mod document;
pub mod edge;
pub mod events;
pub mod failures;
pub mod handing_in;
pub mod health;
pub mod idempotency;
pub mod members;
pub mod page;
pub mod passwords;
pub mod pos;
pub mod problem;
pub mod records;
pub mod reservation;
pub mod runs;
pub mod session;
pub mod supplier;
pub mod systems;
pub mod tokens;
pub mod users;
pub mod values;
pub mod webhooks;

/// Where the API begins.
pub const BASE: &str = "/api/v1";

/// One line of the table.
#[derive(Debug)]
pub struct Route {
    /// The path below [`BASE`]; `{…}` stands for any one segment.
    pub path: &'static str,
    /// The method.
    pub method: Method,
    /// The handler's name, which is the operation's id in the document.
    pub operation: &'static str,
    /// Who may call it.
    pub access: Access,
}

const fn route(method: Method, path: &'static str, operation: &'static str, access: Access) -> Route {
    Route { path, method, operation, access }
}

/// Every operation of the API.
pub const ROUTES: &[Route] = &[
    route(Method::POST, "/auth/login", "sign_in", Public),
    route(Method::POST, "/auth/logout", "sign_out", Needs(UseSession)),
    route(Method::GET, "/auth/me", "show_me", Needs(UseSession)),
    route(Method::POST, "/auth/password", "change_password", Needs(UseSession)),
    route(Method::GET, "/auth/sessions", "list_sessions", Needs(UseSession)),
    route(Method::DELETE, "/auth/sessions/{session_id}", "end_session", Needs(UseSession)),
    route(Method::GET, "/users", "list_users", Needs(ManageUsers)),
    route(Method::POST, "/users", "create_user", Needs(ManageUsers)),
    route(Method::GET, "/users/{user_id}", "show_user", Needs(ManageUsers)),
    route(Method::PUT, "/users/{user_id}", "update_user", Needs(ManageUsers)),
    route(Method::DELETE, "/users/{user_id}", "delete_user", Needs(ManageUsers)),
    route(Method::POST, "/users/{user_id}/password", "set_user_password", Needs(ManageUsers)),
    route(Method::GET, "/users/{user_id}/sessions", "list_user_sessions", Needs(ManageUsers)),
    route(Method::DELETE, "/users/{user_id}/sessions", "end_user_sessions", Needs(ManageUsers)),
    route(Method::GET, "/tokens", "list_tokens", Needs(ManageTokens)),
    route(Method::POST, "/tokens", "create_token", Needs(ManageTokens)),
    route(Method::GET, "/tokens/{token_id}", "show_token", Needs(ManageTokens)),
    route(Method::DELETE, "/tokens/{token_id}", "revoke_token", Needs(ManageTokens)),
    route(Method::GET, "/audit-logs", "list_audit_logs", Needs(SeeAudit)),
    route(Method::GET, "/audit-logs/export", "export_audit_logs", Needs(SeeAudit)),
    route(Method::POST, "/integrations/systems", "create_system", Needs(WriteSystems)),
    route(Method::GET, "/integrations/systems", "list_systems", Needs(SeeSystems)),
    route(Method::GET, "/integrations/systems/{system_id}", "show_system", Needs(SeeSystems)),
    route(Method::PUT, "/integrations/systems/{system_id}", "update_system", Needs(WriteSystems)),
    route(Method::DELETE, "/integrations/systems/{system_id}", "delete_system", Needs(DeleteSystems)),
    route(Method::POST, "/integrations/systems/{system_id}/test", "test_system", Needs(TestSystems)),
    route(Method::POST, "/integrations/systems/{system_id}/sync", "start_sync", Needs(ManageRuns)),
    route(Method::GET, "/integrations/systems/{system_id}/schedule", "show_schedule", Needs(SeeSystems)),
    route(Method::POST, "/integrations/schedules/preview", "preview_schedule", Needs(SeeSystems)),
    route(Method::GET, "/integrations/systems/{system_id}/health", "show_system_health", Needs(SeeSystems)),
    route(Method::GET, "/integrations/health", "list_system_health", Needs(SeeSystems)),
    route(Method::POST, "/integrations/systems/{system_id}/pause", "pause_system", Needs(WriteSystems)),
    route(Method::POST, "/integrations/systems/{system_id}/resume", "resume_system", Needs(WriteSystems)),
    route(Method::GET, "/integrations/sync-logs", "list_runs", Needs(SeeRuns)),
    route(Method::GET, "/integrations/sync-logs/{run_id}", "show_run", Needs(SeeRuns)),
    route(Method::POST, "/integrations/sync-logs/{run_id}/cancel", "cancel_run", Needs(ManageRuns)),
    route(Method::POST, "/integrations/sync-logs/{run_id}/retry", "retry_run", Needs(ManageRuns)),
    route(Method::GET, "/integrations/sync-failures", "list_failures", Needs(SeeRuns)),
    route(Method::GET, "/integrations/sync-failures/{failure_id}", "show_failure", Needs(SeeRuns)),
    route(
        Method::POST,
        "/integrations/systems/{system_id}/failures/retry",
        "retry_failures",
        Needs(ManageRuns),
    ),
    route(Method::GET, "/events", "stream_events", Needs(SeeRuns)),
    route(
        Method::POST,
        "/integrations/pos/{system_id}/transactions",
        "create_transaction",
        Needs(CreateTransactions),
    ),
    route(
        Method::POST,
        "/integrations/pos/{system_id}/transactions/batch",
        "create_transactions",
        Needs(CreateTransactions),
    ),
    route(Method::GET, "/integrations/pos/transactions", "list_transactions", Needs(SeeRecords)),
    route(Method::GET, "/integrations/pos/transactions/{record_id}", "show_transaction", Needs(SeeRecords)),
    route(
        Method::POST,
        "/integrations/supplier/{system_id}/orders",
        "create_supplier_order",
        Needs(WriteSupplierOrders),
    ),
    route(
        Method::POST,
        "/integrations/supplier/{system_id}/orders/batch",
        "create_supplier_orders",
        Needs(WriteSupplierOrders),
    ),
    route(Method::GET, "/integrations/supplier/orders", "list_supplier_orders", Needs(SeeRecords)),
    route(Method::GET, "/integrations/supplier/orders/{record_id}", "show_supplier_order", Needs(SeeRecords)),
    route(Method::POST, "/integrations/member/{system_id}/sync", "create_member", Needs(WriteMembers)),
    route(
        Method::POST,
        "/integrations/member/{system_id}/members/batch",
        "create_members",
        Needs(WriteMembers),
    ),
    route(Method::GET, "/integrations/member/members", "list_members", Needs(SeeRecords)),
    route(Method::GET, "/integrations/member/members/{record_id}", "show_member", Needs(SeeRecords)),
    route(Method::POST, "/integrations/member/members/{record_id}/push", "push_member", Needs(WriteMembers)),
    route(
        Method::POST,
        "/integrations/reservation/{system_id}/reservations",
        "create_reservation",
        Needs(WriteReservations),
    ),
    route(
        Method::POST,
        "/integrations/reservation/{system_id}/reservations/batch",
        "create_reservations",
        Needs(WriteReservations),
    ),
    route(Method::GET, "/integrations/reservation/reservations", "list_reservations", Needs(SeeRecords)),
    route(
        Method::GET,
        "/integrations/reservation/reservations/{record_id}",
        "show_reservation",
        Needs(SeeRecords),
    ),
    route(Method::GET, "/integrations/records", "list_records", Needs(SeeRecords)),
    route(Method::GET, "/integrations/records/{record_id}", "show_record", Needs(SeeRecords)),
    route(Method::POST, "/integrations/webhooks/{type}/{system_id}", "receive_webhook", Public),
    route(Method::GET, "/integrations/webhooks/{type}/{system_id}", "answer_handshake", Public),
    route(Method::HEAD, "/integrations/webhooks/{type}/{system_id}", "answer_probe", Public),
    route(Method::GET, "/integrations/webhook-events", "list_webhook_events", Needs(SeeWebhooks)),
    route(
        Method::POST,
        "/integrations/webhook-events/replay",
        "replay_webhook_events",
        Needs(ManageWebhooks),
    ),
    route(Method::GET, "/integrations/webhook-events/{event_id}", "show_webhook_event", Needs(SeeWebhooks)),
    route(
        Method::POST,
        "/integrations/webhook-events/{event_id}/replay",
        "replay_webhook_event",
        Needs(ManageWebhooks),
    ),
    route(
        Method::POST,
        "/integrations/webhook-events/{event_id}/release",
        "release_webhook_event",
        Needs(ReleaseWebhooks),
    ),
    route(
        Method::POST,
        "/integrations/systems/{system_id}/webhook-events/reverify",
        "reverify_webhook_events",
        Needs(ManageWebhooks),
    ),
    route(
        Method::POST,
        "/integrations/systems/{system_id}/webhook-secret",
        "rotate_webhook_secret",
        Needs(WriteSystems),
    ),
    route(Method::GET, "/health/live", "show_liveness", Public),
    route(Method::GET, "/health/ready", "show_readiness", Public),
];

/// How the document groups operations.
#[derive(Tags)]
pub enum Tag {
    /// Signing in and out, one's own password and sessions.
    Session,
    /// The people who may sign in.
    Users,
    /// What programs sign their requests with.
    Tokens,
    /// Who did what.
    Audit,
    /// Connections to outside systems.
    Systems,
    /// Runs: what was synchronised, when, with what outcome.
    Runs,
    /// What happens, as it happens.
    Live,
    /// Transactions of tills.
    Pos,
    /// Orders from suppliers and returns to them.
    Supplier,
    /// Members of loyalty programmes.
    Members,
    /// Reservations of tables.
    Reservations,
    /// What other streams bring: payments, deliveries, documents.
    Records,
    /// What vendors post to us.
    Webhooks,
    /// Whether the service works.
    Health,
}

/// The largest body of a request, put beside every request for whoever reads it.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimit(pub usize);

type Handlers = (
    (session::Session, passwords::Own),
    (users::Users, tokens::Tokens, audit::Audit),
    systems::Systems,
    (systems::watch::Watch, failures::Failures, events::Events),
    runs::Runs,
    pos::Pos,
    supplier::Supplier,
    members::Members,
    reservation::Reservations,
    records::Records,
    webhooks::receive::Receiver,
    webhooks::Webhooks,
    health::Health,
);

/// The whole service as one endpoint: the API, its document, and the pages beside it.
pub fn endpoint(app: &App) -> impl Endpoint<Output = Response> + use<> {
    let document = document::document(&handlers(app));
    let mut router = Router::new()
        .at(format!("{BASE}/openapi.json"), document::json_endpoint(&document))
        .at("/health/live", health::live_endpoint())
        .at("/health/ready", health::ready_endpoint(app.clone()))
        .nest(BASE, handlers(app).into_endpoint());
    if app.settings().server.docs_enabled() {
        router = router.at("/docs", poem::get(document::page_endpoint(&document)));
    }
    edge::Edge::new(app.clone(), router)
}

/// The document as it is served.
pub fn openapi(app: &App) -> serde_json::Value {
    document::document(&handlers(app))
}

fn handlers(app: &App) -> OpenApiService<Handlers, ()> {
    let handlers = (
        (session::Session(app.clone()), passwords::Own(app.clone())),
        (users::Users(app.clone()), tokens::Tokens(app.clone()), audit::Audit(app.clone())),
        systems::Systems(app.clone()),
        (systems::watch::Watch(app.clone()), failures::Failures(app.clone()), events::Events(app.clone())),
        runs::Runs(app.clone()),
        pos::Pos(app.clone()),
        supplier::Supplier(app.clone()),
        members::Members(app.clone()),
        reservation::Reservations(app.clone()),
        records::Records(app.clone()),
        webhooks::receive::Receiver,
        webhooks::Webhooks(app.clone()),
        health::Health(app.clone()),
    );
    OpenApiService::new(handlers, "zhilian-sync", env!("CARGO_PKG_VERSION"))
        .description("Keeps a restaurant chain's outside systems in step.")
        .server(BASE)
}
