//! RESP (Redis) as a load generator's protocol: GET and SET, replies in order.

use std::borrow::Cow;
use std::io::Write;
use std::net::TcpStream;

use super::driver::{BenchError, Driver, Outcome, Parsed};
use super::server_side::Counters;

/// Speaks RESP2 to a Redis-like server.
pub struct RespDriver {
    addr: String,
}

/// The longest line before a payload that a sane server sends.
const MAX_LINE: usize = 64 * 1024;
/// The longest bulk string: Redis' own limit.
const MAX_BULK: usize = 512 << 20;

impl RespDriver {
    /// A driver for the server at `addr`.
    pub fn new(addr: &str) -> RespDriver {
        RespDriver { addr: addr.to_owned() }
    }
}

fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'$');
    number(out, bytes.len());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Decimal digits without the formatting machinery, which would show in the profile.
fn number(out: &mut Vec<u8>, value: usize) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// The line that starts `input`, without its end, and its length with it.
fn line(input: &[u8]) -> Result<Option<(&[u8], usize)>, BenchError> {
    let window = &input[..input.len().min(MAX_LINE)];
    match window.iter().position(|&byte| byte == b'\n') {
        Some(end) if end > 0 && window[end - 1] == b'\r' => Ok(Some((&window[..end - 1], end + 1))),
        Some(_) => Err(BenchError::Protocol("a line without carriage return".into())),
        None if input.len() >= MAX_LINE => Err(BenchError::Protocol("an endless line".into())),
        None => Ok(None),
    }
}

fn bulk_length(digits: &[u8]) -> Result<Option<usize>, BenchError> {
    if digits == b"-1" {
        return Ok(None);
    }
    let text = std::str::from_utf8(digits).unwrap_or_default();
    match text.parse::<usize>() {
        Ok(length) if length <= MAX_BULK => Ok(Some(length)),
        _ => Err(BenchError::Protocol(format!("bulk length {text:?}"))),
    }
}

impl Driver for RespDriver {
    fn connect(&mut self, _index: usize) -> Result<(TcpStream, usize), BenchError> {
        let stream = TcpStream::connect(&self.addr)
            .map_err(|e| BenchError::io(format!("connecting to {}", self.addr), e))?;
        // Fails early, and with a clear message, when the other side speaks something else.
        (&stream).write_all(b"PING\r\n").map_err(|e| BenchError::io("greeting", e))?;
        let mut reply = [0u8; 7];
        std::io::Read::read_exact(&mut (&stream), &mut reply)
            .map_err(|e| BenchError::io("waiting for the answer to PING", e))?;
        if &reply != b"+PONG\r\n" {
            return Err(BenchError::Refused(format!(
                "{} does not answer PING like a RESP server without password: {:?}",
                self.addr,
                String::from_utf8_lossy(&reply)
            )));
        }
        Ok((stream, 0))
    }

    fn cores(&self) -> usize {
        1
    }

    fn owner(&self, _key: &[u8]) -> usize {
        0
    }

    fn get(&mut self, out: &mut Vec<u8>, _id: u64, key: &[u8]) {
        out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n");
        bulk(out, key);
    }

    fn put(&mut self, out: &mut Vec<u8>, _id: u64, key: &[u8], value: &[u8]) {
        out.extend_from_slice(b"*3\r\n$3\r\nSET\r\n");
        bulk(out, key);
        bulk(out, value);
    }

    fn parse<'a>(&mut self, input: &'a [u8]) -> Result<Parsed<'a>, BenchError> {
        let Some((head, head_length)) = line(input)? else {
            return Ok(Parsed::Incomplete(input.len() + 1));
        };
        let (kind, rest) = match head.split_first() {
            Some((kind, rest)) => (*kind, rest),
            None => return Err(BenchError::Protocol("an empty line".into())),
        };
        let (consumed, outcome) = match kind {
            b'+' => (head_length, Outcome::Stored),
            b'_' => (head_length, Outcome::Missing),
            b'-' => {
                let text = String::from_utf8_lossy(rest);
                let word = text.split(' ').next().unwrap_or_default().to_owned();
                (head_length, Outcome::Failed(Cow::Owned(word)))
            }
            b'$' => match bulk_length(rest)? {
                None => (head_length, Outcome::Missing),
                Some(length) => {
                    let whole = head_length + length + 2;
                    if input.len() < whole {
                        return Ok(Parsed::Incomplete(whole));
                    }
                    if &input[whole - 2..whole] != b"\r\n" {
                        return Err(BenchError::Protocol("a bulk string without its end".into()));
                    }
                    (whole, Outcome::Value(&input[head_length..head_length + length]))
                }
            },
            other => {
                return Err(BenchError::Protocol(format!("reply type {:?}", char::from(other))));
            }
        };
        Ok(Parsed::Reply { consumed, id: None, outcome })
    }

    fn counters(&mut self) -> Result<Option<Counters>, BenchError> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(consumed: usize, outcome: Outcome<'_>) -> Parsed<'_> {
        Parsed::Reply { consumed, id: None, outcome }
    }

    #[test]
    fn requests_are_resp_arrays() {
        let mut driver = RespDriver::new("unused");
        let mut out = Vec::new();
        driver.get(&mut out, 1, b"key");
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n");
        out.clear();
        driver.put(&mut out, 1, b"k", b"0123456789");
        assert_eq!(out, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$10\r\n0123456789\r\n");
    }

    #[test]
    fn replies_are_recognised() {
        let mut driver = RespDriver::new("unused");
        assert_eq!(driver.parse(b"+OK\r\n+OK\r\n").unwrap(), reply(5, Outcome::Stored));
        assert_eq!(driver.parse(b"$-1\r\n").unwrap(), reply(5, Outcome::Missing));
        assert_eq!(driver.parse(b"$3\r\nabc\r\nrest").unwrap(), reply(9, Outcome::Value(b"abc")));
        assert_eq!(
            driver.parse(b"-OOM command not allowed\r\n").unwrap(),
            reply(26, Outcome::Failed("OOM".into()))
        );
    }

    #[test]
    fn every_cut_of_a_reply_is_incomplete() {
        let mut driver = RespDriver::new("unused");
        let whole = b"$5\r\nhello\r\n";
        for cut in 0..whole.len() {
            match driver.parse(&whole[..cut]).unwrap() {
                Parsed::Incomplete(need) => assert!(need > cut && need <= whole.len()),
                other => panic!("{cut} bytes gave {other:?}"),
            }
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        let mut driver = RespDriver::new("unused");
        for bad in [&b"$9999999999999\r\n"[..], b"$x\r\n", b"\r\n", b"!what\r\n", b"+OK\n"] {
            assert!(driver.parse(bad).is_err(), "{bad:?}");
        }
        assert!(driver.parse(&[b'+'; MAX_LINE]).is_err());
        assert!(driver.parse(b"$1\r\nabc").is_err());
    }
}
