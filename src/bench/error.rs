//! What can go wrong with a measurement.

use hal::NicError;

/// A measurement that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The NIC.
    #[error("{0}")]
    Nic(#[from] NicError),
    /// A load outside what is possible.
    #[error("{0}")]
    Load(String),
    /// The file that is measured with.
    #[error("the file that is measured with: {0}")]
    File(std::io::Error),
    /// No memory.
    #[error("no memory for packets: {0}")]
    Memory(std::io::Error),
}
