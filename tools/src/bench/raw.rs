//! Fixed-size requests and replies without meaning: the baseline that shows what moving the same
//! bytes costs at least. The server answers each request of so many bytes with so many bytes.

use std::net::TcpStream;

use super::driver::{BenchError, Driver, Outcome, Parsed};
use super::server_side::Counters;

/// Speaks to a responder of fixed-size frames.
pub struct RawDriver {
    addr: String,
    request: Vec<u8>,
    reply: usize,
    value: usize,
}

impl RawDriver {
    /// A driver for the responder at `addr`. A reply counts as a value of `value` bytes at its end.
    pub fn new(addr: &str, request: usize, reply: usize, value: usize) -> Result<Self, BenchError> {
        if request == 0 || reply < value.max(1) {
            let message = format!("replies of {reply} bytes cannot hold values of {value} bytes");
            return Err(BenchError::Refused(message));
        }
        Ok(RawDriver { addr: addr.to_owned(), request: vec![0x5A; request], reply, value })
    }
}

impl Driver for RawDriver {
    fn connect(&mut self, _index: usize) -> Result<(TcpStream, usize), BenchError> {
        let stream = TcpStream::connect(&self.addr)
            .map_err(|e| BenchError::io(format!("connecting to {}", self.addr), e))?;
        Ok((stream, 0))
    }

    fn cores(&self) -> usize {
        1
    }

    fn owner(&self, _key: &[u8]) -> usize {
        0
    }

    fn get(&mut self, out: &mut Vec<u8>, _id: u64, _key: &[u8]) {
        out.extend_from_slice(&self.request);
    }

    fn put(&mut self, out: &mut Vec<u8>, _id: u64, _key: &[u8], _value: &[u8]) {
        out.extend_from_slice(&self.request);
    }

    fn parse<'a>(&mut self, input: &'a [u8]) -> Result<Parsed<'a>, BenchError> {
        match input.get(..self.reply) {
            None => Ok(Parsed::Incomplete(self.reply)),
            Some(reply) => {
                let outcome = Outcome::Value(&reply[self.reply - self.value..]);
                Ok(Parsed::Reply { consumed: self.reply, id: None, outcome })
            }
        }
    }

    fn counters(&mut self) -> Result<Option<Counters>, BenchError> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_cut_by_size() {
        let mut driver = RawDriver::new("unused", 10, 8, 3).unwrap();
        let mut out = Vec::new();
        driver.get(&mut out, 0, b"any");
        assert_eq!(out.len(), 10);
        assert_eq!(driver.parse(b"1234567").unwrap(), Parsed::Incomplete(8));
        let whole = Parsed::Reply { consumed: 8, id: None, outcome: Outcome::Value(b"678") };
        assert_eq!(driver.parse(b"12345678more").unwrap(), whole);
        assert!(RawDriver::new("unused", 10, 2, 3).is_err());
    }
}
