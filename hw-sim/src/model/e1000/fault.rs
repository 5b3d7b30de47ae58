//! What can go wrong.

/// A way in which the device misbehaves. Unless said otherwise a fault lasts until it is cleared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The device behaves.
    #[default]
    None,
    /// Unplugged or without power: every read, of registers and of configuration space, gives all ones, writes are lost, nothing is transmitted or
    /// received.
    Vanished,
    /// As [`Vanished`](Self::Vanished), after so many more register accesses: at any moment of the driver's start or stop.
    VanishedAfter(u64),
    /// Whoever holds the device is gone: register and configuration accesses and waits fail with this reason.
    Unreachable(String),
    /// As [`Unreachable`](Self::Unreachable), after so many more register accesses.
    UnreachableAfter(u64, String),
    /// CTRL.RST stays set after a reset.
    ResetNeverEnds,
    /// EERD.DONE is never set, and EECD.GNT is never given.
    EepromNeverDone,
    /// The words of the EEPROM do not add up to 0xbaba.
    EepromChecksumWrong,
    /// The EEPROM is blank: every word is 0xffff, and after the next reset so is the station address.
    EepromBlank,
    /// MDIC.R is never set.
    PhyNeverReady,
    /// The link changes its state at every step, each time with an interrupt; frames leave at every second step.
    LinkFlap,
    /// The transmit unit stands still: TDH does not move, nothing is written back. A reset (CTRL.RST) ends it.
    TransmitHang,
    /// As [`TransmitHang`](Self::TransmitHang), after so many more descriptors, also within a packet.
    TransmitHangAfter(u64),
    /// Frames leave and TDH moves, but no descriptor is written back.
    NoWriteBack,
    /// DD is written at the doorbell, before a byte of the frame is read; the frames follow at the next step.
    DoneTooEarly,
    /// At every step DD is set in every descriptor of the transmit ring, also where nothing was posted and RS was not set.
    DoneEverywhere,
    /// TDH and RDH read as 0xffff, outside any ring, although the rings work.
    HeadGarbage,
    /// Received descriptors tell a length beyond the buffer: 0xffff.
    RxLengthTooLong,
    /// Received descriptors tell a length of 0.
    RxLengthZero,
    /// No received descriptor has EOP: the packet never ends.
    RxNeverEnds,
    /// The next packet is delivered with CE, a CRC error, whatever RCTL.SBP says. Ends with that packet.
    RxError,
    /// The last descriptor of every packet has all bits of status, errors and special set, also the reserved ones.
    RxGarbageStatus,
    /// The next packet is written one descriptor too far: the first that the device owns stays untouched. Ends with that packet.
    RxSkipsDescriptor,
    /// At every packet DD and EOP are also set in the descriptor at RDT, which the driver owns.
    RxBeyondTail,
    /// Statistics registers read all ones, where they stick.
    StatisticsStuck,
    /// Reading ICR does not clear it.
    InterruptStorm,
    /// No cause is ever set in ICR.
    InterruptLost,
}
