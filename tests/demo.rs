//! The demo as a person runs it: the built program, from its start to its verdict.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

/// The program, with nothing of this process's environment that could configure it.
fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zhilian-sync"));
    for name in ["DATABASE_URL", "REDIS_URL", "PORT", "ZHILIAN_MASTER_KEY", "ZHILIAN_ADMIN_PASSWORD"] {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A demo that is not left behind when its test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn demo_once_proves_that_nothing_is_lost_or_doubled() {
    let done = program(&["demo", "--once"]).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    let said = format!("--- stdout\n{out}\n--- stderr\n{err}");
    assert_eq!(done.status.code(), Some(0), "{said}");

    let header = "system sold stored lost doubled wrong";
    let mut lines = out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert!(lines.any(|line| line.join(" ") == header), "there is no table: {said}");
    let rows: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
    let names: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(names, ["noodles", "hotpot", "pantry", "guests/customers", "guests/receipts"], "{said}");
    for row in &rows {
        let sold: u64 = row[1].parse().unwrap();
        assert!(sold >= 200, "{said}");
        assert_eq!(row[2..], [row[1], "0", "0", "0"], "{said}");
        let system = row[0].split('/').next().unwrap();
        let proof = out.lines().find(|line| line.starts_with(&format!("{system}: "))).unwrap();
        assert!(proof.contains("× 429") && !proof.contains(" 0 "), "nothing was injected: {proof}");
        // A run that a fault interrupted says so, and ended well all the same.
        let interrupted = |line: &&str| line.contains(&format!("  {system} ")) && line.contains("429");
        assert!(out.lines().any(|line| interrupted(&line) && line.contains("success")), "{said}");
    }
    webhooks_are_proven(&out, &said);
}

/// Two of the vendors post webhooks: each event applied once, repetitions counted, and of the till, which is unruly,
/// forgeries kept apart.
fn webhooks_are_proven(out: &str, said: &str) {
    let mut lines = out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let header = "webhooks posted applied duplicate quarantined dead out of order";
    assert!(lines.any(|line| line.join(" ") == header), "there is no table of webhooks: {said}");
    let rows: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
    assert_eq!(rows.len(), 2, "{said}");
    for row in rows {
        let number = |column: usize| row[column].parse::<u64>().unwrap();
        let (posted, applied, duplicate, quarantined, dead, late) =
            (number(1), number(2), number(3), number(4), number(5), number(6));
        assert!(posted >= 20 && applied == posted, "{said}");
        assert!(duplicate > 0, "{said}");
        assert_eq!(quarantined > 1 && late > 0, row[0] == "noodles", "{said}");
        assert_eq!(dead, 0, "{said}");
    }
}

#[test]
fn demo_answers_the_api_and_ends_when_told() {
    let mut demo = Running(program(&["demo", "--port", "0"]).spawn().unwrap());
    let mut lines = BufReader::new(demo.0.stdout.take().unwrap()).lines();
    let address = lines.next().unwrap().unwrap();
    let address =
        address.split_whitespace().find_map(|word| word.strip_prefix("http://")).unwrap().to_owned();
    let first_pull = lines.by_ref().map(Result::unwrap).find(|line| line.contains("pull")).unwrap();
    assert!(first_pull.contains("success"), "{first_pull}");

    let mut stream = std::net::TcpStream::connect(&address).unwrap();
    let request =
        format!("GET /api/v1/health/ready HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let terminated = Command::new("kill").args(["-TERM", &demo.0.id().to_string()]).status().unwrap();
    assert!(terminated.success());
    // Read on, so that the demo is never stopped by a full pipe.
    for line in lines {
        line.unwrap();
    }
    assert_eq!(demo.0.wait().unwrap().code(), Some(0));
}
