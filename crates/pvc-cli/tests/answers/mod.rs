//! A server that answers as a test wants it: with what no real API would be made to answer, or not at all.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What is done with a request.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// The connection is closed, as by a daemon that dies.
    HangUp,
    /// Nothing comes, as from a daemon that hangs.
    Silence,
    /// This status, these headers and this body.
    Reply(u16, &'static str, String),
}

/// A server, and what it was asked.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers each request so: the first line and the headers of one, a line each, decide.
    pub(crate) fn start(answer: impl Fn(&str) -> Answer + Send + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let asked = seen.clone();
        std::thread::spawn(move || {
            let mut hanging = Vec::new();
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let Some(request) = read(&stream) else { continue };
                asked.lock().unwrap().push(request.clone());
                match answer(&request) {
                    Answer::HangUp => {}
                    Answer::Silence => hanging.push(stream),
                    Answer::Reply(status, headers, body) => reply(stream, status, headers, &body),
                }
            }
        });
        Server { url, seen }
    }

    /// The requests that came, each with its first line and its headers.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn read(stream: &TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head.push_str(line);
        head.push('\n');
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(head)
}

fn reply(mut stream: TcpStream, status: u16, headers: &str, body: &str) {
    let length = body.len();
    // Nobody may read it any more; that is not this server's fault.
    let _ = write!(
        stream,
        "HTTP/1.1 {status} Status\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
}
