//! A program in place of the service: `stand_in KIND [NOTE]`; NOTE is a file to write to.

use std::io::{Read, Write};
use std::process::{exit, id, Command};
use std::time::Duration;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let note = |text: String| {
        let path = std::path::Path::new(&words[2]);
        let before = std::fs::read_to_string(path).unwrap_or_default();
        let new = path.with_extension("new");
        std::fs::write(&new, before + &text).unwrap();
        std::fs::rename(new, path).unwrap();
    };
    match words[1].as_str() {
        "waits" => note(id().to_string()),
        "has a child" => {
            std::thread::sleep(Duration::from_millis(500)); // as the service, which is bound by then
            let mut child = Command::new(&words[0]).arg("sleeps").spawn().unwrap();
            note(child.id().to_string());
            child.wait().unwrap();
        }
        "ends" => {
            note("start\n".into());
            exit(1)
        }
        "cannot start" => {
            println!(r#"{{"event":"fatal","code":"port_in_use","message":"","hint":""}}"#);
            std::io::stdout().flush().unwrap();
            sleep();
        }
        "sleeps" => sleep(),
        other => panic!("no kind {other}"),
    }
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

fn sleep() {
    std::thread::sleep(Duration::from_secs(3600));
}
