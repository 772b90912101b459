//! `vendors simulate` as a process, and `vendors try` against it as another: what the one prints is what the
//! other needs.

use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// A running simulator and the folder that it has written to.
struct Simulated {
    folder: TempDir,
    process: Child,
    printed: Lines<BufReader<ChildStdout>>,
    url: String,
    /// How it is to be tried, where it has something to be asked for.
    to_try: Option<String>,
}

impl Simulated {
    async fn start(vendor: &str, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_zhilian-sync"))
            .args(["vendors", "simulate", vendor, "--write", "."])
            .args(more)
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let printed = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut simulated = Self { folder, process, printed, url: String::new(), to_try: None };
        let first = simulated.line_with(" at http://").await;
        first.split_once(" at ").unwrap().1.clone_into(&mut simulated.url);
        loop {
            let line = simulated.line_with("").await;
            if line == "listening; Ctrl-C ends" {
                return simulated;
            }
            let asked = line.strip_prefix("  zhilian-sync ").map(str::to_owned);
            simulated.to_try = simulated.to_try.or(asked);
        }
    }

    /// The next line that it prints with this in it.
    async fn line_with(&mut self, part: &str) -> String {
        loop {
            let line = self.printed.next_line().await.unwrap();
            let line = line.unwrap_or_else(|| panic!("it ended before it printed `{part}`"));
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Asks it for one page; what was printed.
    async fn attempt(&self, vendor: &str, stream: &str) -> String {
        let files = "--credentials credentials.json --system-config config.json";
        let asked = format!("vendors try {vendor} --stream {stream} --endpoint {} {files}", self.url);
        self.run(&format!("{asked} --limit 100")).await
    }

    /// Runs the program in its folder, with loopback allowed; what was printed.
    async fn run(&self, arguments: &str) -> String {
        let settings = self.folder.path().join("settings.toml");
        std::fs::write(&settings, "[vendors]\nallow_networks = [\"127.0.0.1\"]").unwrap();
        let done = Command::new(env!("CARGO_BIN_EXE_zhilian-sync"))
            .args(arguments.split_whitespace())
            .arg("--config")
            .arg(&settings)
            .current_dir(self.folder.path())
            .output()
            .await
            .unwrap();
        let printed = [done.stdout, done.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        assert!(done.status.success(), "{arguments}: {printed}");
        printed
    }

    /// Ends it as Ctrl-C does; its last line.
    async fn interrupt(mut self) -> String {
        let id = self.process.id().unwrap().to_string();
        let signalled = Command::new("kill").args(["-INT", &id]).status().await.unwrap();
        assert!(signalled.success());
        let last = self.line_with(" requests, ").await;
        assert!(self.process.wait().await.unwrap().success());
        last
    }
}

fn is_file(folder: &Path, name: &str) -> bool {
    folder.join(name).is_file()
}

#[tokio::test]
async fn every_stream_of_a_simulated_vendor_can_be_tried() {
    for (vendor, streams) in [
        ("loyverse", ["receipts", "customers"].as_slice()),
        ("shopify", &["orders", "customers"]),
        ("square", &["orders", "payments", "refunds", "customers"]),
    ] {
        let mut simulated = Simulated::start(vendor, &["--history", "12"]).await;
        assert!(is_file(simulated.folder.path(), "credentials.json"));
        for stream in streams {
            let printed = simulated.attempt(vendor, stream).await;
            let found = "12 records on this page: 0 left out, 0 cannot be mapped";
            assert!(printed.contains(found), "{vendor} {stream}: {printed}");
            simulated.line_with("200 ").await;
        }
        let last = simulated.interrupt().await;
        let expected = format!("{} requests", streams.len());
        assert!(last.starts_with(&expected) && last.contains("0 refused, 0 not understood"), "{last}");
    }
}

#[tokio::test]
async fn what_a_simulator_says_of_itself_can_be_typed() {
    for vendor in zhilian_sync_simulator::names() {
        let simulated = Simulated::start(vendor, &[]).await;
        match &simulated.to_try {
            // Orders are only pushed.
            None => assert_eq!(vendor, "meituan-waimai"),
            Some(asked) => {
                let printed = simulated.run(asked).await;
                assert!(printed.contains(", 0 cannot be mapped"), "{asked}: {printed}");
            }
        }
        simulated.interrupt().await;
    }
}

#[tokio::test]
async fn an_unknown_vendor_is_told_which_there_are() {
    let done = Command::new(env!("CARGO_BIN_EXE_zhilian-sync"))
        .args(["vendors", "simulate", "acme"])
        .output()
        .await
        .unwrap();
    let printed = String::from_utf8(done.stderr).unwrap();
    assert!(!done.status.success() && printed.contains("no simulator for vendor `acme`"), "{printed}");
}
