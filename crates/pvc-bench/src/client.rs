//! A client of HTTP/1.1 that keeps its connection and costs little: it reads a reply's end, not its content.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::daemon::TOKEN;

/// What a client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Identity,
    Gzip,
    /// Gzip, and nothing if it has not changed since the last time.
    Unchanged,
}

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) bytes: usize,
}

/// A client that asks for one path.
pub(crate) struct Client {
    address: SocketAddr,
    path: String,
    encoding: Encoding,
    tag: String,
    connection: Option<BufReader<TcpStream>>,
    body: Vec<u8>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr, path: &str, encoding: Encoding) -> Client {
        Client {
            address,
            path: path.to_owned(),
            encoding,
            tag: String::new(),
            connection: None,
            body: Vec::new(),
        }
    }

    /// Asks once.
    pub(crate) async fn ask(&mut self) -> Result<Answer> {
        let answer = self.exchange().await;
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }

    /// Asks once; answers with the reply's text.
    pub(crate) async fn text(&mut self) -> Result<String> {
        self.ask().await?;
        Ok(String::from_utf8_lossy(&self.body).into_owned())
    }

    async fn exchange(&mut self) -> Result<Answer> {
        if self.connection.is_none() {
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            self.connection = Some(BufReader::with_capacity(256 * 1024, stream));
        }
        let connection = self.connection.as_mut().context("not connected")?;
        let mut request = format!(
            "GET /api/v1{} HTTP/1.1\r\nHost: {}\r\nX-Api-Key: {TOKEN}\r\n",
            self.path, self.address
        );
        match self.encoding {
            Encoding::Identity => {}
            Encoding::Gzip => request.push_str("Accept-Encoding: gzip\r\n"),
            Encoding::Unchanged => {
                request.push_str("Accept-Encoding: gzip\r\n");
                if !self.tag.is_empty() {
                    request.push_str(&format!("If-None-Match: {}\r\n", self.tag));
                }
            }
        }
        request.push_str("\r\n");
        connection.get_mut().write_all(request.as_bytes()).await?;
        let head = read_head(connection).await?;
        self.body.clear();
        let bytes = match head.length {
            Length::Known(length) => {
                read_exactly(connection, length, &mut self.body).await?;
                length
            }
            Length::Chunked => read_chunks(connection, &mut self.body).await?,
        };
        if !head.tag.is_empty() {
            self.tag = head.tag;
        }
        Ok(Answer {
            status: head.status,
            bytes,
        })
    }
}

struct Head {
    status: u16,
    length: Length,
    tag: String,
}

enum Length {
    Known(usize),
    Chunked,
}

async fn read_head(connection: &mut BufReader<TcpStream>) -> Result<Head> {
    let mut line = String::new();
    if connection.read_line(&mut line).await? == 0 {
        bail!("the connection was closed");
    }
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .with_context(|| format!("no status in {line:?}"))?;
    let mut head = Head {
        status,
        length: Length::Known(0),
        tag: String::new(),
    };
    loop {
        line.clear();
        connection.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            return Ok(head);
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => head.length = Length::Known(value.parse()?),
            "transfer-encoding" => head.length = Length::Chunked,
            "etag" => head.tag = value.to_owned(),
            _ => {}
        }
    }
}

/// How much of a body is kept to be looked at.
const KEPT: usize = 16 * 1024;

async fn read_exactly(
    connection: &mut BufReader<TcpStream>,
    mut left: usize,
    kept: &mut Vec<u8>,
) -> Result<()> {
    while left > 0 {
        let part = connection.fill_buf().await?;
        if part.is_empty() {
            bail!("the connection was closed within a body");
        }
        let taken = part.len().min(left);
        let room = KEPT.saturating_sub(kept.len()).min(taken);
        kept.extend_from_slice(part.get(..room).unwrap_or_default());
        connection.consume(taken);
        left -= taken;
    }
    Ok(())
}

async fn read_chunks(connection: &mut BufReader<TcpStream>, kept: &mut Vec<u8>) -> Result<usize> {
    let mut bytes = 0;
    let mut line = String::new();
    loop {
        line.clear();
        connection.read_line(&mut line).await?;
        let length =
            usize::from_str_radix(line.trim(), 16).with_context(|| format!("no length in {line:?}"))?;
        read_exactly(connection, length, kept).await?;
        let mut end = [0; 2];
        connection.read_exact(&mut end).await?;
        if length == 0 {
            return Ok(bytes);
        }
        bytes += length;
    }
}
