// HTTP/1.1 by rustls and webpki: a GET for each target through a proxy's tunnel, each answer a line.
// usage: rustlsclient PROXY_ADDRESS CREDENTIAL CA_DER HOST/PATH...
use std::convert::TryFrom;
use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::{Certificate, ClientConfig, ClientConnection, RootCertStore, ServerName, StreamOwned};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn config(ca: &str) -> Outcome<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(&Certificate(std::fs::read(ca)?))?;
    let mut config = ClientConfig::builder().with_safe_defaults().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn read_head(s: &mut impl Read) -> Outcome<String> {
    let (mut head, mut byte) = (Vec::new(), [0u8]);
    while !head.ends_with(b"\r\n\r\n") {
        if s.read(&mut byte)? == 0 {
            return Err("ended within a head".into());
        }
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn first_line(head: &str) -> &str {
    head.lines().next().unwrap_or("")
}

fn get(proxy: &str, credential: &str, config: &Arc<ClientConfig>, host: &str, path: &str) -> Outcome<String> {
    let mut tcp = TcpStream::connect(proxy)?;
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(Duration::from_secs(20)))?;
    tcp.write_all(format!("CONNECT {0}:443 HTTP/1.1\r\nHost: {0}:443\r\nProxy-Authorization: {1}\r\n\r\n", host, credential).as_bytes())?;
    let head = read_head(&mut tcp)?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Ok(format!("refused: {}", first_line(&head)));
    }
    let session = ClientConnection::new(config.clone(), ServerName::try_from(host)?)?;
    let mut tls = StreamOwned::new(session, tcp);
    tls.write_all(format!("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", path, host).as_bytes())?;
    let head = read_head(&mut tls)?;
    let mut body = Vec::new();
    tls.read_to_end(&mut body)?;
    let alpn = tls.conn.alpn_protocol().map(String::from_utf8_lossy).unwrap_or_default();
    Ok(format!("{} | {:?} | {} | {}", first_line(&head), tls.conn.protocol_version(), alpn, String::from_utf8_lossy(&body)))
}

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().collect();
    let config = Arc::new(config(&args[3])?);
    for target in &args[4..] {
        let (host, path) = target.split_at(target.find('/').unwrap_or(target.len()));
        match get(&args[1], &args[2], &config, host, path) {
            Ok(answer) => println!("{}", answer.trim_end()),
            Err(e) => println!("error: {}", e),
        }
    }
    Ok(())
}
