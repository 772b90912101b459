//! Who may do what: roles × permissions, and the store a caller is confined to.
//!
//! | permission | admin | store manager | warehouse manager | customer manager | staff |
//! |---|---|---|---|---|---|
//! | use session, see systems, records, runs and webhook events, create transactions | yes | yes | yes | yes | yes |
//! | hand in supplier orders | yes | yes | yes | | |
//! | hand in and push members | yes | yes | | yes | |
//! | hand in reservations | yes | yes | | yes | yes |
//! | write and test systems, manage runs and webhook events, see samples | yes | yes | | | |
//! | manage users and tokens, see the audit | yes | | | | |
//! | delete systems, release webhook events, give up their verification | yes | | | | |
//!
//! A caller with a store sees and changes only systems and records of that store; what belongs to
//! another store or to the whole chain does not exist for it (404, not 403).

use poem::http::Method;
use zhilian_sync_store::Role;

use super::problem::{self, Problem};
use super::{BASE, ROUTES, Route};

/// Something a role may or may not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Sign out, ask who one is.
    UseSession,
    /// Read systems.
    SeeSystems,
    /// Create and change systems, pause and resume them.
    WriteSystems,
    /// Delete systems.
    DeleteSystems,
    /// Test connections.
    TestSystems,
    /// Read runs.
    SeeRuns,
    /// Start, cancel and retry runs.
    ManageRuns,
    /// Read samples of requests and answers, which may hold customers' data.
    SeeSamples,
    /// Read transactions and other records.
    SeeRecords,
    /// Hand in transactions.
    CreateTransactions,
    /// Hand in supplier orders.
    WriteSupplierOrders,
    /// Hand in members, and push them.
    WriteMembers,
    /// Hand in reservations.
    WriteReservations,
    /// Read webhook events, without what they carried.
    SeeWebhooks,
    /// Apply webhook events again, verify quarantined ones again.
    ManageWebhooks,
    /// Make, change and close users.
    ManageUsers,
    /// Make and revoke API tokens.
    ManageTokens,
    /// Read who did what.
    SeeAudit,
    /// Accept webhook events that nobody verified: one by one, or a system's from now on.
    ReleaseWebhooks,
}

impl Permission {
    /// Every permission.
    pub const ALL: &'static [Self] = &[
        Self::UseSession,
        Self::SeeSystems,
        Self::WriteSystems,
        Self::DeleteSystems,
        Self::TestSystems,
        Self::SeeRuns,
        Self::ManageRuns,
        Self::SeeSamples,
        Self::SeeRecords,
        Self::CreateTransactions,
        Self::WriteSupplierOrders,
        Self::WriteMembers,
        Self::WriteReservations,
        Self::SeeWebhooks,
        Self::ManageWebhooks,
        Self::ManageUsers,
        Self::ManageTokens,
        Self::SeeAudit,
        Self::ReleaseWebhooks,
    ];

    /// The roles that have it.
    #[must_use]
    pub const fn roles(self) -> &'static [Role] {
        match self {
            Self::UseSession
            | Self::SeeSystems
            | Self::SeeRuns
            | Self::SeeRecords
            | Self::CreateTransactions
            | Self::SeeWebhooks => Role::ALL,
            Self::WriteSupplierOrders => &[Role::Admin, Role::StoreManager, Role::WarehouseManager],
            Self::WriteMembers => &[Role::Admin, Role::StoreManager, Role::CustomerManager],
            Self::WriteReservations => &[Role::Admin, Role::StoreManager, Role::CustomerManager, Role::Staff],
            Self::WriteSystems
            | Self::TestSystems
            | Self::ManageRuns
            | Self::SeeSamples
            | Self::ManageWebhooks => &[Role::Admin, Role::StoreManager],
            Self::ManageUsers
            | Self::ManageTokens
            | Self::SeeAudit
            | Self::DeleteSystems
            | Self::ReleaseWebhooks => &[Role::Admin],
        }
    }
}

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone.
    Public,
    /// Whoever is signed in with a role that has this permission.
    Needs(Permission),
}

/// Whether a role has a permission.
#[must_use]
pub fn allows(role: Role, permission: Permission) -> bool {
    permission.roles().contains(&role)
}

/// Whether someone confined to `scope` may see what belongs to `store_id`.
#[must_use]
pub fn in_scope(scope: Option<&str>, store_id: Option<&str>) -> bool {
    scope.is_none() || scope == store_id
}

/// The line of the table for a request. `None` is a path outside the API, which the router knows.
pub fn find(method: &Method, path: &str) -> Result<Option<&'static Route>, Problem> {
    let Some(path) = path.strip_prefix(BASE).filter(|path| path.starts_with('/')) else {
        return Ok(None);
    };
    if path == "/openapi.json" {
        return Ok(None);
    }
    // The method first: it is the cheaper question.
    let mine = ROUTES.iter().filter(|route| route.method == *method && matches(route.path, path));
    let best = mine.min_by_key(|route| placeholders(route));
    let closest = || ROUTES.iter().filter(|route| matches(route.path, path)).map(placeholders).min();
    // A fixed segment goes before a placeholder, as in the router, whatever the method: a word is no id.
    if let Some(route) = best.filter(|route| Some(placeholders(route)) == closest()) {
        return Ok(Some(route));
    }
    let closest = closest();
    let matching =
        ROUTES.iter().filter(|route| Some(placeholders(route)) == closest && matches(route.path, path));
    let mut allowed: Vec<&str> = matching.map(|route| route.method.as_str()).collect();
    if allowed.is_empty() {
        return Err(problem::no_such_route());
    }
    allowed.sort_unstable();
    let allowed = allowed.join(", ");
    let detail = format!("this path does not take `{method}`; it takes {allowed}");
    let problem = Problem::new(poem::http::StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail);
    Err(problem.allowing(allowed))
}

fn placeholders(route: &Route) -> usize {
    route.path.matches('{').count()
}

fn matches(pattern: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    let fits = pattern.split('/').all(|part| {
        segments.next().is_some_and(|segment| part == segment || part.starts_with('{') && !segment.is_empty())
    });
    fits && segments.next().is_none()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn the_table_of_roles_is_the_one_that_was_agreed() {
        let mut table = String::new();
        for permission in Permission::ALL {
            let roles: Vec<&str> = permission.roles().iter().map(|role| role.as_str()).collect();
            writeln!(table, "{permission:?}: {}", roles.join(" ")).unwrap();
        }
        insta::assert_snapshot!(table, @r#"
        UseSession: admin store_manager warehouse_manager customer_manager staff
        SeeSystems: admin store_manager warehouse_manager customer_manager staff
        WriteSystems: admin store_manager
        DeleteSystems: admin
        TestSystems: admin store_manager
        SeeRuns: admin store_manager warehouse_manager customer_manager staff
        ManageRuns: admin store_manager
        SeeSamples: admin store_manager
        SeeRecords: admin store_manager warehouse_manager customer_manager staff
        CreateTransactions: admin store_manager warehouse_manager customer_manager staff
        WriteSupplierOrders: admin store_manager warehouse_manager
        WriteMembers: admin store_manager customer_manager
        WriteReservations: admin store_manager customer_manager staff
        SeeWebhooks: admin store_manager warehouse_manager customer_manager staff
        ManageWebhooks: admin store_manager
        ManageUsers: admin
        ManageTokens: admin
        SeeAudit: admin
        ReleaseWebhooks: admin
        "#);
    }

    #[test]
    fn a_request_finds_its_line() {
        let operation =
            |method: Method, path: &str| find(&method, path).unwrap().map(|route| route.operation);
        let id = "018f0000-0000-7000-8000-000000000000";
        assert_eq!(operation(Method::GET, "/api/v1/integrations/systems"), Some("list_systems"));
        assert_eq!(
            operation(Method::GET, &format!("/api/v1/integrations/systems/{id}")),
            Some("show_system")
        );
        assert_eq!(
            operation(Method::GET, "/api/v1/integrations/pos/transactions"),
            Some("list_transactions")
        );
        assert_eq!(operation(Method::GET, "/docs"), None);
        assert_eq!(operation(Method::GET, "/api/v10/x"), None);
    }

    #[test]
    fn an_unknown_path_is_nothing_and_an_unknown_method_is_told_the_known_ones() {
        let nothing = find(&Method::GET, "/api/v1/integrations/nothing").unwrap_err();
        assert_eq!(nothing.status_code(), 404);
        let wrong = find(&Method::PATCH, "/api/v1/integrations/systems").unwrap_err();
        assert_eq!(wrong.status_code(), 405);
        assert_eq!(wrong.into_response_with("r").headers()["allow"], "GET, POST");
        assert!(find(&Method::GET, "/api/v1/integrations/systems/").is_err());
        // A word where other paths have an id is a path of its own.
        let word = find(&Method::GET, "/api/v1/integrations/webhook-events/replay").unwrap_err();
        assert_eq!(word.into_response_with("r").headers()["allow"], "POST");
    }

    #[test]
    fn the_chain_is_out_of_sight_of_one_store() {
        assert!(in_scope(None, None) && in_scope(None, Some("s1")) && in_scope(Some("s1"), Some("s1")));
        assert!(!in_scope(Some("s1"), Some("s2")) && !in_scope(Some("s1"), None));
    }
}
