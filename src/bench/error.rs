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
    /// A thread could not be pinned.
    #[error("processor {cpu} cannot be used: {error}; name processors that this machine has and this process may use")]
    Cpu {
        /// the processor's number
        cpu: usize,
        /// what the system said
        error: std::io::Error,
    },
    /// Nothing comes back.
    #[error(
        "no packet came back within {0:?}: something at the other end must send each one back, such as `pagewire bench forward`, and the link must be up"
    )]
    Silent(std::time::Duration),
}
