//! What can go wrong.

/// A way in which the device misbehaves. Unless said otherwise a fault lasts until it is cleared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The device behaves.
    #[default]
    None,
    /// Unplugged: what is read is all ones, what is written is lost, nothing is transmitted or received.
    Vanished,
    /// As [`Vanished`](Self::Vanished), after so many more calls of the transport and doorbells.
    VanishedAfter(u64),
    /// Whoever holds the device is gone: every call of the transport, every doorbell and every wait fails with this reason.
    Unreachable(String),
    /// As [`Unreachable`](Self::Unreachable), after so many more calls of the transport and doorbells.
    UnreachableAfter(u64, String),
    /// A reset of the device does not end: the transport gives up.
    ResetNeverEnds,
    /// A reset of a queue does not end.
    QueueResetNeverEnds,
    /// The device does not take the features: FEATURES_OK does not stay set.
    FeaturesRefused,
    /// No queue can be enabled.
    QueueRefused,
    /// The configuration changes during every read.
    ConfigNeverStable,
    /// The device takes nothing from its transmit queues any more. A reset ends it.
    TransmitHang,
    /// As [`TransmitHang`](Self::TransmitHang), after so many more chains.
    TransmitHangAfter(u64),
    /// Frames leave, but no chain comes back.
    NoCompletion,
    /// After so many more chains of the transmit queues DEVICE_NEEDS_RESET appears, and the device stops until it is reset.
    NeedsResetAfter(u64),
    /// What comes back from transmit queues has an identifier beyond the queue.
    UsedIdOutOfRange,
    /// What comes back has the identifier of a chain that the device does not have.
    UsedIdNotInFlight,
    /// Every chain comes back twice.
    UsedTwice,
    /// The used index jumps by more than the queue holds; with a packed ring every descriptor is marked used.
    UsedJumps,
    /// Received buffers tell more bytes than they have.
    RxLengthTooLong,
    /// Received buffers tell fewer bytes than the header has.
    RxLengthTooShort,
    /// Received buffers come back with an identifier beyond the queue.
    RxIdOutOfRange,
    /// `num_buffers` is 0.
    RxBuffersZero,
    /// `num_buffers` is larger than what the device used.
    RxBuffersTooMany,
    /// NEEDS_CSUM with a `csum_start` beyond the frame.
    RxChecksumBeyond,
    /// NEEDS_CSUM with a `csum_offset` beyond the frame.
    RxChecksumOffsetBeyond,
    /// Every bit of the header but `num_buffers` is set.
    RxGarbageHeader,
    /// Commands are never answered.
    ControlSilent,
    /// Every command is answered with VIRTIO_NET_ERR and does nothing.
    ControlError,
    /// Every command is answered with a value that is not defined, and does nothing.
    ControlGarbage,
    /// Interrupts come all the time.
    InterruptStorm,
    /// No interrupt ever comes.
    InterruptLost,
}
