//! The guides work as pasted: their commands, and those of the README, are typed into a shell beside a
//! running service, with no change but the port, and everything they promise is then there. And the
//! integration guide leaves nothing out: each line of the route table is named and has its command.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

use std::fmt::Write as _;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use zhilian_sync::api::ROUTES;

const PASSWORD: &str = "a password of our own";
/// What the documents write.
const ADDRESS: &str = "http://127.0.0.1:8000";
/// Everything is there within this time.
const PATIENCE: Duration = Duration::from_mins(1);

/// Ends with the test, however that ends.
struct Service {
    child: Child,
    address: String,
    _directory: tempfile::TempDir,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Service {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(env!("CARGO_BIN_EXE_zhilian-sync"))
            .arg("serve")
            .env("DATABASE_URL", format!("sqlite:{}", directory.path().join("zhilian.db").display()))
            .env("ZHILIAN_ADMIN_PASSWORD", PASSWORD)
            .env("PORT", port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let service = Self { child, address: format!("http://127.0.0.1:{port}"), _directory: directory };
        let ready = "curl -s $api/health/ready";
        service.until("it is ready", || service.shell(ready).is_ok());
        service
    }

    /// What a script prints. A command that fails, or an answer that is none of success, ends it.
    fn shell(&self, script: &str) -> Result<String, String> {
        let script =
            script.replace(ADDRESS, &self.address).replace("curl -s", "curl -sS --fail-with-body -w '\\n'");
        let whole = format!("set -eu -o pipefail\napi={}/api/v1\n{script}", self.address);
        let mut bash = Command::new("bash");
        let done = bash.arg("-c").arg(whole).env("ZHILIAN_ADMIN_PASSWORD", PASSWORD).output().unwrap();
        let (out, error) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        if done.status.success() { Ok(out.into_owned()) } else { Err(format!("{out}{error}")) }
    }

    #[expect(clippy::disallowed_methods, reason = "another process is looked at until it is so far")]
    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let since = Instant::now();
        while !holds() {
            assert!(since.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}; see {}", self.address);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Whether what the documents use is there; they name it, so its absence is told loudly.
#[expect(clippy::disallowed_methods, reason = "tests are told whether everything must be there")]
fn has_tools() -> bool {
    let has = |tool: &str| Command::new(tool).arg("version").output().is_ok();
    let all = ["bash", "curl", "openssl", "sed"].into_iter().all(has);
    if !all {
        assert!(std::env::var_os("ZHILIAN_REQUIRE_BACKENDS").is_none(), "needs bash, curl, openssl and sed");
        eprintln!("SKIPPED: needs bash, curl, openssl and sed");
    }
    all
}

/// The commands of a document, from a heading on.
fn commands(path: &str, heading: &str) -> String {
    let text = std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let from = text.find(heading).unwrap_or_else(|| panic!("{path} has no heading `{heading}`"));
    let mut commands = String::new();
    for block in text[from..].split("```sh\n").skip(1) {
        writeln!(commands, "{}", block.split("```").next().unwrap()).unwrap();
    }
    commands
}

/// The lines that are answers.
fn answers(printed: &str) -> Vec<Value> {
    printed.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn the_integration_guide_works_as_pasted() {
    if !has_tools() {
        return;
    }
    let service = Service::start();
    let guide = commands("docs/INTEGRATION.md", "## First steps");
    let printed = service.shell(&guide).unwrap_or_else(|error| panic!("{error}"));
    let answers = answers(&printed);
    let any = |what: &str, holds: &dyn Fn(&Value) -> bool| {
        assert!(answers.iter().any(holds), "{what} is not among the answers: {printed}");
    };
    let exact = |value: &Value, text: &str| value.as_number().is_some_and(|number| number.as_str() == text);
    any("who is signed in", &|answer| answer["username"] == "admin" && answer["role"] == "admin");
    any("a list of the one sale", &|answer| {
        answer[0]["pos_transaction_id"] == "TXN-0001" && exact(&answer[0]["total"], "296.80")
    });
    any("a batch that is partly good", &|answer| answer["created"] == 2 && answer["failed"] == 1);
    any("the order as it was last", &|answer| {
        answer["order_number"] == "PO-0001" && answer["status"] == "shipped"
    });
    any("the member as it was last", &|answer| answer["member_id"] == "M-0001" && answer["points"] == 1200);
    any("the reservation", &|answer| answer[0]["reservation_number"] == "0215-3");
    any("the webhook's answer", &|answer| answer["event_type"] == "transaction.created");
    any("the event that was posted", &|answer| answer["payload"].to_string().contains("TXN-1001"));
    let resumed = |entry: &Value| entry["action"] == "system.resume" && entry["entity"] == "system";
    any("the audit", &|answer| answer.as_array().is_some_and(|entries| entries.iter().any(resumed)));
    let look = format!(
        "{}\ncurl -s $api/integrations/systems -H \"$auth\"\n\
         curl -s \"$api/integrations/pos/transactions?order_number=A-17\" -H \"$auth\"",
        guide.split("curl -s $api/auth/me").next().unwrap()
    );
    let left = self::answers(&service.shell(&look).unwrap());
    let [systems, sales] = left.as_slice() else { panic!("{left:?}") };
    assert!(systems.as_array().is_some_and(Vec::is_empty), "the guide tidies up after itself: {systems}");
    assert!(exact(&sales[0]["total"], "296.80"), "records stay when their system goes: {sales}");
}

/// Whether a path that the guide types, such as `$api/users/$user`, is of a route's form.
fn is_of(typed: &str, pattern: &str) -> bool {
    let (mut typed, mut pattern) = (typed.split('/'), pattern.split('/'));
    loop {
        match (typed.next(), pattern.next()) {
            (None, None) => return true,
            (Some(typed), Some(part)) if typed == part => {}
            (Some(typed), Some(part)) if part.starts_with('{') && !typed.is_empty() => {}
            _ => return false,
        }
    }
}

/// The method and the path below the base of every curl of a shell's script. As curl has it, whoever sends
/// something posts it.
fn calls(script: &str) -> Vec<(&str, &str)> {
    let pieces = script.lines().flat_map(|line| line.split("curl -s").skip(1));
    pieces
        .filter_map(|call| {
            let path = call.split("$api").nth(1)?.split([' ', '"', '?', ')', ';']).next()?;
            let method = match call.split_once("-X ") {
                Some((_, rest)) => rest.split(' ').next()?,
                None if call.contains(" --head ") => "HEAD",
                None if call.contains(" -d ") || call.contains(" --data-binary ") => "POST",
                None => "GET",
            };
            Some((method, path))
        })
        .collect()
}

#[test]
fn both_integration_guides_have_every_operation() {
    for path in ["docs/INTEGRATION.md", "docs/INTEGRATION.zh-CN.md"] {
        let text = std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let script = commands(path, "\n## ");
        let typed = calls(&script);
        for route in ROUTES {
            let name = format!("`{} {}`", route.method, route.path);
            assert!(text.contains(&name), "{path} does not name {name}");
            let is_typed = typed.iter().any(|(method, path)| {
                // A fixed path is no example of one with a placeholder.
                let fixed = ROUTES.iter().any(|other| other.path == *path && other.path != route.path);
                *method == route.method.as_str() && !fixed && is_of(path, route.path)
            });
            assert!(is_typed, "{path} has no command that calls {name}");
        }
        let unknown_call = |(method, path): &&(&str, &str)| {
            !ROUTES.iter().any(|route| route.method.as_str() == *method && is_of(path, route.path))
        };
        let unknown: Vec<_> = typed.iter().filter(unknown_call).collect();
        assert!(unknown.is_empty(), "{path} calls what is not in the route table: {unknown:?}");
    }
}

#[test]
fn the_guide_to_webhooks_works_as_pasted() {
    if !has_tools() {
        return;
    }
    let service = Service::start();
    let guide = commands("docs/webhooks.md", "## Try it without a vendor");
    let printed = service.shell(&guide).unwrap_or_else(|error| panic!("{error}"));
    let answers = answers(&printed);
    assert_eq!(answers[0]["success"], true, "{printed}");
    assert_eq!(answers[0]["event_type"], "transaction.created", "{printed}");
    let made = answers.iter().find_map(|answer| answer["secret"].as_str());
    assert!(made.is_some_and(|secret| secret.len() >= 40), "{printed}");
    let run = answers.last().unwrap()["id"].as_str().unwrap().to_owned();
    let look = format!(
        "{}\ncurl -s $api/integrations/sync-logs/{run} -H \"Authorization: Bearer $token\"\n\
         curl -s $api/integrations/webhook-events -H \"Authorization: Bearer $token\"\n\
         curl -s $api/integrations/pos/transactions -H \"Authorization: Bearer $token\"",
        sign_in(&guide)
    );
    service.until("what the guide promises", || {
        let shown = self::answers(&service.shell(&look).unwrap());
        let [run, events, sales] = shown.as_slice() else { panic!("{shown:?}") };
        run["run"]["status"] == "success"
            && events[0]["state"] == "applied"
            && sales[0]["pos_transaction_id"] == "T-1001"
            && sales[0]["total"].as_number().is_some_and(|total| total.as_str() == "58.50")
    });
}

#[test]
fn the_readme_works_as_pasted() {
    if !has_tools() {
        return;
    }
    let service = Service::start();
    let guide = commands("docs/webhooks.md", "## Try it without a vendor");
    let readme = commands("README.md", "## Webhooks");
    let readme = readme.split("export DATABASE_URL").next().unwrap();
    let printed =
        service.shell(&format!("{}\n{readme}", sign_in(&guide))).unwrap_or_else(|error| panic!("{error}"));
    let answers = answers(&printed);
    assert_eq!(answers[0]["success"], true, "{printed}");
    assert_eq!(answers[1][0]["accepted_by"], "verification", "{printed}");
}

/// The line that signs in, which both documents have.
fn sign_in(guide: &str) -> &str {
    guide.lines().find(|line| line.starts_with("token=")).unwrap()
}
