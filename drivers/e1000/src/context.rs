//! From a frame's request to context and data descriptors.
//!
//! The device keeps one context for checksums and one for segmentation (manual 3.3.6); a context descriptor is written only when the
//! kept one does not fit the next frame.

use hal::frame::Lengths;
use hal::{NicError, Offload, OffloadFlags};

use crate::descriptor::{self, Command, Context, PacketOptions};

/// The checksum's place in a header, from the header's start.
const IPV4_CHECKSUM: u8 = 10;
const UDP_CHECKSUM: u8 = 6;
const TCP_CHECKSUM: u8 = 16;

/// The shortest frame on Ethernet, without its check sequence. The device pads with TCTL.PSP, but only what has 48 bytes (3.3.3), so the
/// driver pads itself, with zeros, which change no checksum.
pub const SHORTEST: u32 = 60;

/// What the device keeps; and the last frame's request with what came of it, since neighbouring frames mostly ask for the same.
#[derive(Default)]
pub struct Contexts {
    checksum: Option<Context>,
    segmentation: Option<Context>,
    usual: Option<Usual>,
}

/// A request that needs no context any more.
#[derive(Clone, Copy)]
pub struct Usual {
    offload: Offload,
    /// The shortest frame holds the request's offsets and needs no padding.
    lengths: Lengths,
    template: u64,
}

/// What a frame's data descriptors carry, and the context that has to be written before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The high half of every data descriptor, but for its length: the device takes some of it from the first and some from the last,
    /// and differently for segmentation (3.3.7.1); QEMU's models differ too.
    pub template: u64,
    /// The context to write first.
    pub context: Option<Context>,
}

impl Usual {
    /// The template for frames with the same request.
    #[inline(always)]
    pub fn template(&self, offload: &Offload) -> Option<u64> {
        (self.offload == *offload).then_some(self.template)
    }

    /// The command of such a frame's last descriptor.
    #[inline(always)]
    pub fn command(&self) -> Command {
        descriptor::last_command(self.template)
    }

    /// Whether such a frame may have so many bytes.
    #[inline(always)]
    pub fn fits(&self, bytes: u64) -> bool {
        self.lengths.fit(bytes)
    }
}

impl Contexts {
    /// Forgets everything: the device was reset.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// The last request, if the next frame with the same one needs no context; for frames of at most `most` bytes.
    #[inline(always)]
    pub fn usual(&self, most: u32) -> Option<Usual> {
        let usual = self.usual.filter(|usual| usual.lengths.least <= most)?;
        Some(Usual { lengths: Lengths { most, ..usual.lengths }, ..usual })
    }

    /// What a frame of `bytes` bytes with this request needs. A context in the answer counts as written.
    pub fn prepare(&mut self, offload: &Offload, bytes: u32) -> Result<Prepared, NicError> {
        self.usual = None;
        if offload.flags.contains(OffloadFlags::UDP_SEGMENTATION) {
            return Err(unsupported("segmentation of UDP"));
        }
        let mut command = Command::DEXT | Command::IFCS;
        command.set(Command::VLE, offload.flags.contains(OffloadFlags::VLAN_TAG));
        let vlan_tag = if command.contains(Command::VLE) { offload.vlan_tag } else { 0 };
        if offload.flags.intersects(OffloadFlags::SEGMENTATION) {
            // Its context has the frame's own length in it, so the request alone does not say that it fits.
            let wanted = segmentation_context(offload, bytes)?;
            let context = (self.segmentation.replace(wanted) != Some(wanted)).then_some(wanted);
            let options = PacketOptions::IXSM | PacketOptions::TXSM;
            return Ok(Prepared { template: descriptor::template(command | Command::TSE, options, vlan_tag), context });
        }
        let (mut context, mut options, mut least) = (None, PacketOptions::empty(), SHORTEST);
        if offload.flags.intersects(OffloadFlags::IPV4_CHECKSUM | OffloadFlags::UDP_CHECKSUM | OffloadFlags::TCP_CHECKSUM) {
            let wanted;
            (wanted, options) = checksum_context(offload, bytes)?;
            context = (self.checksum.replace(wanted) != Some(wanted)).then_some(wanted);
            least = least.max(u32::from(offload.l4_start) + u32::from(TCP_CHECKSUM) + 2);
        }
        let template = descriptor::template(command, options, vlan_tag);
        self.usual = Some(Usual { offload: *offload, lengths: Lengths { least, most: u32::MAX }, template });
        Ok(Prepared { template, context })
    }
}

fn unsupported(what: &str) -> NicError {
    NicError::UnsupportedOffload(what.to_owned())
}

/// Without offsets that fit the frame, the device would write a checksum anywhere. Returns where the checksum behind the IP header goes; a
/// frame without one may end there, as the last fragment of a datagram does.
fn check_offsets(offload: &Offload, bytes: u32, checksum_at: Option<u8>) -> Result<u8, NicError> {
    let Offload { ip_start, l4_start, .. } = *offload;
    let needed = u32::from(l4_start) + checksum_at.map_or(0, |at| u32::from(at) + 2);
    // 239 + 16 is the last place that the 8-bit fields can name.
    if ip_start < 14 || l4_start > 239 || l4_start - ip_start.min(l4_start) < 20 || needed > bytes {
        return Err(unsupported("a checksum outside the frame's headers, or beyond byte 255"));
    }
    Ok(l4_start + checksum_at.unwrap_or(0))
}

fn ip_context(offload: &Offload) -> Context {
    // For IPv6 there is no IP checksum: IPCSE stays 0, and IXSM clear (3.5.6).
    Context { ipcss: offload.ip_start, ipcso: offload.ip_start + IPV4_CHECKSUM, tucss: offload.l4_start, ..Context::default() }
}

fn checksum_context(offload: &Offload, bytes: u32) -> Result<(Context, PacketOptions), NicError> {
    let tcp = offload.flags.contains(OffloadFlags::TCP_CHECKSUM);
    if tcp && offload.flags.contains(OffloadFlags::UDP_CHECKSUM) {
        return Err(unsupported("a UDP and a TCP checksum at once"));
    }
    let l4 = tcp || offload.flags.contains(OffloadFlags::UDP_CHECKSUM);
    let tucso = check_offsets(offload, bytes, l4.then_some(if tcp { TCP_CHECKSUM } else { UDP_CHECKSUM }))?;
    let mut options = if l4 { PacketOptions::TXSM } else { PacketOptions::empty() };
    let mut context = Context { tucso, ..ip_context(offload) };
    if offload.flags.contains(OffloadFlags::IPV4_CHECKSUM) {
        options |= PacketOptions::IXSM;
        context.ipcse = u16::from(offload.l4_start) - 1;
        context.command |= Command::IP.bits();
    }
    if tcp {
        context.command |= Command::TCP.bits();
    }
    Ok((context, options))
}

fn segmentation_context(offload: &Offload, bytes: u32) -> Result<Context, NicError> {
    if offload.flags.contains(OffloadFlags::TCP6_SEGMENTATION) {
        return Err(unsupported("segmentation over IPv6 (the 82540EM counts the IP header into the payload length)"));
    }
    let tucso = check_offsets(offload, bytes, Some(TCP_CHECKSUM))?;
    let headers = u32::from(offload.payload_start);
    // HDRLEN is at most 240 (3.5.9).
    if offload.payload_start < offload.l4_start.saturating_add(20) || headers > 240 || headers >= bytes || offload.mss == 0 {
        return Err(unsupported("segmentation without a payload, without a segment size, or with headers of more than 240 bytes"));
    }
    Ok(Context {
        ipcse: u16::from(offload.l4_start) - 1,
        tucso,
        command: (Command::TSE | Command::TCP | Command::IP).bits(),
        payload_len: bytes - headers,
        header_len: offload.payload_start,
        mss: offload.mss,
        ..ip_context(offload)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp() -> Offload {
        Offload { flags: OffloadFlags::IPV4_CHECKSUM | OffloadFlags::UDP_CHECKSUM, ip_start: 14, l4_start: 34, ..Offload::NONE }
    }

    fn tso(mss: u16) -> Offload {
        Offload { flags: OffloadFlags::TCP4_SEGMENTATION, ip_start: 14, l4_start: 34, payload_start: 54, mss, ..Offload::NONE }
    }

    #[test]
    fn a_context_is_written_once_for_frames_that_share_it() {
        let mut contexts = Contexts::default();
        let first = contexts.prepare(&udp(), 1514).unwrap();
        assert_eq!(
            first.context,
            Some(Context { ipcss: 14, ipcso: 24, ipcse: 33, tucss: 34, tucso: 40, command: 2, ..Context::default() })
        );
        assert_eq!(first.template.to_le_bytes()[5], (PacketOptions::IXSM | PacketOptions::TXSM).bits());
        assert_eq!(contexts.prepare(&udp(), 100).unwrap(), Prepared { context: None, ..first });
        assert!(contexts.usual(59).is_none(), "no frame is long enough");
        let usual = contexts.usual(1514).unwrap();
        assert_eq!(usual.template(&udp()), Some(first.template));
        assert_eq!(usual.template(&Offload::NONE), None);
        assert!(usual.fits(60) && usual.fits(1514));
        assert!(!usual.fits(59), "it needs padding");
        assert!(!usual.fits(1515), "it is too long");
    }

    #[test]
    fn checksum_and_segmentation_contexts_are_kept_apart() {
        let mut contexts = Contexts::default();
        assert!(contexts.prepare(&udp(), 1514).unwrap().context.is_some());
        assert!(contexts.prepare(&tso(1448), 10_000).unwrap().context.is_some());
        assert_eq!(contexts.prepare(&udp(), 1514).unwrap().context, None);
        assert_eq!(contexts.prepare(&tso(1448), 10_000).unwrap().context, None);
        assert!(contexts.prepare(&tso(1448), 10_001).unwrap().context.is_some(), "the length is part of the context");
    }

    #[test]
    fn a_frame_without_a_request_needs_no_context_and_spoils_none() {
        let mut contexts = Contexts::default();
        contexts.prepare(&udp(), 1514).unwrap();
        let plain = contexts.prepare(&Offload::NONE, 60).unwrap();
        assert_eq!((plain.context, plain.template.to_le_bytes()[5]), (None, 0));
        assert_eq!(contexts.prepare(&udp(), 1514).unwrap().context, None);
    }

    #[test]
    fn after_a_reset_the_context_is_written_again() {
        let mut contexts = Contexts::default();
        contexts.prepare(&udp(), 1514).unwrap();
        contexts.forget();
        assert!(contexts.prepare(&udp(), 1514).unwrap().context.is_some());
    }

    #[test]
    fn offsets_that_cannot_be_right_are_refused() {
        let mut contexts = Contexts::default();
        for wrong in [
            Offload { l4_start: 20, ..udp() },
            Offload { ip_start: 0, ..udp() },
            Offload { l4_start: 240, ..udp() },
            Offload { flags: OffloadFlags::UDP_CHECKSUM | OffloadFlags::TCP_CHECKSUM, ..udp() },
            tso(0),
            Offload { payload_start: 40, ..tso(1448) },
            Offload { flags: OffloadFlags::SEGMENTATION, ..tso(1448) },
        ] {
            assert!(contexts.prepare(&wrong, 1514).is_err(), "{wrong:?}");
        }
        contexts.prepare(&udp(), 42).unwrap();
        assert!(contexts.prepare(&udp(), 41).is_err(), "the frame ends before the checksum");
        let ip_only = Offload { flags: OffloadFlags::IPV4_CHECKSUM, ip_start: 250, l4_start: 255, ..Offload::NONE };
        assert!(contexts.prepare(&ip_only, 1514).is_err());
    }
}
