//! Asking a daemon on another node for its metrics: one plain GET, with a deadline and a bound.
//!
//! HTTP/1.0, so that the answer is its bytes until the end of the connection and nothing else.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest answer that is taken, in bytes. Ceph's metrics have some hundred bytes for each OSD, pool and image.
const LARGEST: u64 = 16 * 1024 * 1024;

/// The body at `path` of the server at `address`. The caller sets the deadline.
///
/// # Errors
/// When the server can not be reached, or what it says is no answer of 200 within the bound.
pub(crate) async fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request =
        format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: text/plain\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LARGEST + 1).read_to_end(&mut answer).await?;
    if u64::try_from(answer.len()).is_ok_and(|length| length > LARGEST) {
        return Err(io::Error::other(format!(
            "the answer is larger than {LARGEST} bytes"
        )));
    }
    body(&answer).map_err(io::Error::other)
}

fn body(answer: &[u8]) -> Result<String, String> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or_else(|| "the answer is not HTTP".to_owned())?;
    let status_line = head.lines().next().unwrap_or_default();
    let status = status_line.split_ascii_whitespace().nth(1).unwrap_or_default();
    if !status_line.starts_with("HTTP/1.") || status != "200" {
        let shown: String = status_line.chars().take(100).collect();
        return Err(format!("the answer is {shown:?}"));
    }
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_of_200_has_a_body() {
        assert_eq!(
            body(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\nx 1\n"),
            Ok("x 1\n".to_owned())
        );
        assert_eq!(body(b"HTTP/1.1 200 OK\r\n\r\n"), Ok(String::new()));
        assert!(body(b"HTTP/1.1 503 No\r\n\r\nx").unwrap_err().contains("503"));
        assert!(body(b"SSH-2.0-OpenSSH\r\n\r\n").is_err());
        assert!(body(b"").is_err());
    }
}
