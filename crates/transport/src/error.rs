//! Why there is no answer, by how far the exchange came.

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    #[error("could not connect to the host")]
    Connect,
    #[error("no secure connection to the host: its certificate or its encryption is not accepted")]
    Tls,
    #[error("the host's answer is malformed or ended early")]
    BadAnswer,
    #[error("the answer has more than {0} bytes, which is the limit")]
    TooManyBytes(usize),
}
