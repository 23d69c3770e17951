use serde_json::{json, Value};
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::{sleep, spawn};
use std::time::Duration;

/// The body of an answer; of an error of the service, its text.
fn answer(outcome: Result<ureq::Response, ureq::Error>) -> Result<Value, Box<dyn Error>> {
    match outcome {
        Ok(response) => Ok(response.into_json()?),
        Err(ureq::Error::Status(_, response)) => Err(text(&response.into_json()?).into()),
        Err(error) => Err(error.into()),
    }
}

/// An error for developers; decide by its `code`, and show users a text of your own.
fn text(problem: &Value) -> String {
    let word = |name: &str| problem[name].as_str().unwrap_or_default().to_string();
    format!("{} {} ({})", word("detail"), word("hint"), word("code"))
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().collect();
    if words.len() < 3 {
        return Err("usage: host RECORDING COMMAND…, such as vibevoice-asr".into());
    }
    let enter = Arc::new(AtomicBool::new(false));
    let pressed = enter.clone();
    spawn(move || {
        let read = std::io::stdin().read_line(&mut String::new());
        pressed.store(read.is_ok_and(|bytes| bytes > 0), Ordering::Relaxed);
    });
    let path = std::env::current_dir()?.join(&words[1]); // the service takes no relative path
    let mut child = Command::new(&words[2])
        .args(&words[3..])
        .args(["--port", "0", "--generate-token", "--exit-with-stdin"])
        .stdin(Stdio::piped()) // held open by `child` until we let go
        .stdout(Stdio::piped())
        .spawn()?;

    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line)?;
    let ready: Value = serde_json::from_str(&line)?;
    if ready["event"] != "ready" || ready["contract"] != 1 {
        return Err(format!("{} ({})", ready["message"], child.wait()?).into());
    }

    let token = format!("Bearer {}", ready["token"].as_str().unwrap_or_default());
    let call = |method: &str, path: &str| {
        let url = format!("{}{path}", ready["url"].as_str().unwrap_or_default());
        ureq::request(method, &url).set("Authorization", &token)
    };
    let mut job = answer(
        call("POST", "/transcribe")
            .set("Prefer", "respond-async")
            .send_json(json!({ "audio_path": path })),
    )?;
    while job["state"] == "queued" || job["state"] == "running" {
        println!("progress {}", job["progress"]["fraction"]);
        sleep(Duration::from_millis(100));
        let address = format!("/v1/jobs/{}", job["id"].as_str().unwrap());
        job = answer(if enter.load(Ordering::Relaxed) {
            call("DELETE", &format!("{address}?keep=true")).call()
        } else {
            call("GET", &address).call()
        })?;
    }
    let address = format!("/v1/jobs/{}/transcript", job["id"].as_str().unwrap());
    let result = answer(call("GET", &address).call())?; // else why there is none
    for segment in result["segments"].as_array().unwrap() {
        println!("{:8.2} {}: {}", segment["start_time"].as_f64().unwrap(),
            segment["speaker"].as_str().unwrap(), segment["text"].as_str().unwrap());
    }

    drop(child.stdin.take());
    println!("exit code {}", child.wait()?.code().unwrap_or(-1));
    Ok(())
}
