//! What the measured servers do with bytes: echo them, or answer frames of fixed sizes.

/// Answers of one server.
#[derive(Clone)]
pub enum Answers {
    /// Every byte comes back.
    Echo,
    /// Every `request` bytes are answered with `reply`.
    Fixed {
        /// Size of a request.
        request: usize,
        /// The answer.
        reply: Vec<u8>,
    },
}

impl Answers {
    /// Echoes when `request` is zero, otherwise answers that many bytes with `reply` bytes.
    pub fn of(request: usize, reply: usize) -> Self {
        match request {
            0 => Answers::Echo,
            request => Answers::Fixed { request, reply: vec![7; reply] },
        }
    }

    /// Answers `bytes`; `partial` remembers, per connection, how much of a request has arrived.
    pub fn answer(&self, partial: &mut usize, bytes: &[u8], output: &mut Vec<u8>) {
        match self {
            Answers::Echo => output.extend_from_slice(bytes),
            Answers::Fixed { request, reply } => {
                *partial += bytes.len();
                while *partial >= *request {
                    *partial -= request;
                    output.extend_from_slice(reply);
                }
            }
        }
    }
}

/// The n-th argument as a number, or a default.
pub fn argument(n: usize, default: usize) -> usize {
    std::env::args().nth(n).and_then(|text| text.parse().ok()).unwrap_or(default)
}
