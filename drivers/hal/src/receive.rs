//! Packets that arrived, in bursts.

use std::mem::ManuallyDrop;

use bitflags::bitflags;

use crate::frame::{Burst, FrameHead};
use crate::offload::{Offload, OffloadFlags};
use crate::pool::Buffer;

bitflags! {
    /// What the NIC found out about a packet.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct RxFlags: u8 {
        /// The IPv4 header checksum was checked and is right.
        const IPV4_CHECKSUM_GOOD = 1 << 0;
        /// The UDP or TCP checksum was checked and is right; or the packet was never on a wire, and [`Packet::offload`] says what is missing.
        const L4_CHECKSUM_GOOD = 1 << 1;
        /// A VLAN tag was taken out; see [`Packet::vlan_tag`].
        const VLAN_STRIPPED = 1 << 2;
        /// The NIC computed a hash of the packet's flow; see [`Packet::hash`].
        const HASH = 1 << 3;
    }
}

/// Received packets, each over one or several buffers. Its memory is used again.
#[derive(Debug, Default)]
pub struct RxBurst {
    /// The first packets lie in one buffer each, and there is nothing to say about them. Nearly all are so, and are kept as the frames that they become
    /// when they are sent on.
    plain: Vec<FrameHead>,
    /// Those behind them.
    heads: Vec<Head>,
    buffers: Vec<Buffer>,
    /// Nobody looks into the packets.
    unread: bool,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    buffers: u16,
    bytes: u32,
    about: About,
}

/// What a NIC says of a packet besides its bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct About {
    /// What it found out.
    pub flags: RxFlags,
    /// The tag control information, with [`RxFlags::VLAN_STRIPPED`].
    pub vlan_tag: u16,
    /// The hash of the packet's flow, with [`RxFlags::HASH`].
    pub hash: u32,
    /// What has to be asked for when the packet is sent on.
    pub offload: Offload,
}

/// One received packet, without the frame check sequence.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'b> {
    /// The buffers, in order.
    pub buffers: &'b [Buffer],
    /// The sum of their lengths.
    pub bytes: u32,
    /// What the NIC found out.
    pub flags: RxFlags,
    /// The tag control information, with [`RxFlags::VLAN_STRIPPED`].
    pub vlan_tag: u16,
    /// The hash of the packet's flow, with [`RxFlags::HASH`].
    pub hash: u32,
    /// What has to be asked for when the packet is sent on: a checksum that was left out, since the packet was never on a wire, and the cutting
    /// of what the NIC has joined. Headers are [whole](crate::Capabilities::whole_headers). Mostly nothing.
    pub offload: Offload,
}

impl Packet<'_> {
    /// Copies the first bytes into `bytes`; returns how many there were.
    pub fn copy_to(&self, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        for buffer in self.buffers {
            let len = buffer.len().min(bytes.len() - done);
            buffer.read(0, &mut bytes[done..done + len]);
            done += len;
        }
        done
    }
}

impl RxBurst {
    /// A burst with room for `packets` packets of one buffer before it has to allocate. When they are [sent on](Self::forward) their memory goes with them, and
    /// that of frames sent before comes in its place: soon all that goes around has room enough.
    pub fn with_capacity(packets: usize) -> Self {
        Self { plain: Vec::with_capacity(packets), heads: Vec::with_capacity(packets), buffers: Vec::with_capacity(packets), unread: false }
    }

    /// The same for packets that nobody looks into: they are only counted, or sent on as they are. Queues then need not fetch their first bytes,
    /// which may lie in another processor's cache and can stay there.
    pub fn unread(packets: usize) -> Self {
        Self { unread: true, ..Self::with_capacity(packets) }
    }

    /// For a queue: whether somebody will look into the packets soon.
    #[inline(always)]
    pub fn is_read(&self) -> bool {
        !self.unread
    }

    /// For a queue: takes packets out of `slots`, each in one buffer, and with nothing else to say of it, as long as there are some and `is_plain` finds
    /// them so, which sets their lengths: of a byte at least, or they cannot be sent on. There is room for all of `slots` then. Returns how many.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub fn take_plain(&mut self, slots: &mut [Option<Buffer>], mut is_plain: impl FnMut(&mut Buffer) -> bool) -> usize {
        let before = self.plain.len();
        self.plain.reserve(slots.len());
        let mut count = 0;
        for (slot, place) in slots.iter_mut().zip(self.plain.spare_capacity_mut()) {
            // The device may have it yet: should `is_plain` panic, it does not return to its pool.
            let Some(mut buffer) = slot.take().map(ManuallyDrop::new) else { break };
            if !is_plain(&mut buffer) {
                *slot = Some(ManuallyDrop::into_inner(buffer));
                break;
            }
            debug_assert!(!buffer.is_empty(), "a packet of no bytes");
            place.write(FrameHead::of_received(ManuallyDrop::into_inner(buffer)));
            count += 1;
        }
        // SAFETY: so many were written behind those that there were, into room that the vector has.
        unsafe { self.plain.set_len(before + count) };
        if !self.heads.is_empty() {
            self.add_heads(before);
        }
        count
    }

    /// Behind packets that have a head, others have one, too.
    #[cold]
    fn add_heads(&mut self, first: usize) {
        let about = About::default();
        for FrameHead { header, .. } in self.plain.drain(first..) {
            self.heads.push(Head { buffers: 1, bytes: header.len() as u32, about });
            self.buffers.push(header);
        }
    }

    /// For a queue: adds a packet in one buffer, whose length is set.
    #[inline(always)]
    pub fn push_buffer(&mut self, buffer: Buffer, about: About) {
        self.heads.push(Head { buffers: 1, bytes: buffer.len() as u32, about });
        self.buffers.push(buffer);
    }

    /// For a queue: adds a packet over `buffers`, whose lengths are set.
    pub fn push(&mut self, buffers: impl IntoIterator<Item = Buffer>, about: About) {
        let first = self.buffers.len();
        self.buffers.extend(buffers);
        let own = &self.buffers[first..];
        let head = Head { buffers: own.len() as u16, bytes: own.iter().map(|buffer| buffer.len() as u32).sum(), about };
        self.heads.push(head);
    }

    /// How many packets there are.
    pub fn len(&self) -> usize {
        self.plain.len() + self.heads.len()
    }

    /// Whether there is no packet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The packets in order.
    pub fn packets(&self) -> impl Iterator<Item = Packet<'_>> {
        let packet = |buffers, bytes, About { flags, vlan_tag, hash, offload }| Packet { buffers, bytes, flags, vlan_tag, hash, offload };
        let plain = self
            .plain
            .iter()
            .map(move |FrameHead { header, .. }| packet(std::slice::from_ref(header), header.len() as u32, About::default()));
        let mut buffers = &*self.buffers;
        plain.chain(self.heads.iter().map(move |head| {
            let (own, rest) = buffers.split_at(usize::from(head.buffers));
            buffers = rest;
            packet(own, head.bytes, head.about)
        }))
    }

    /// Takes all buffers out, packet by packet, to send them on (`forward`).
    pub fn drain(&mut self) -> impl Iterator<Item = Buffer> {
        self.heads.clear();
        self.plain.drain(..).map(|frame| frame.header).chain(self.buffers.drain(..))
    }

    /// Moves all packets, in order and each over its own buffers, into `burst`. A VLAN tag that the NIC took out is asked for again.
    #[inline]
    pub fn forward(&mut self, burst: &mut Burst<'_>) {
        burst.append(&mut self.plain);
        if !self.heads.is_empty() {
            self.forward_others(burst, |_| ());
        }
    }

    /// The same after `edit` has seen the first buffer of each.
    ///
    /// # Panics
    /// When `edit` left nothing of one, as [`Burst::push`].
    pub fn forward_edited(&mut self, burst: &mut Burst<'_>, mut edit: impl FnMut(&mut Buffer)) {
        for FrameHead { header, .. } in &mut self.plain {
            edit(header);
            header.expect_bytes();
        }
        burst.append(&mut self.plain);
        self.forward_others(burst, edit);
    }

    #[inline(never)]
    fn forward_others(&mut self, burst: &mut Burst<'_>, mut edit: impl FnMut(&mut Buffer)) {
        let mut buffers = self.buffers.drain(..);
        for head in self.heads.drain(..) {
            let Some(mut first) = buffers.next() else { break };
            edit(&mut first);
            let About { mut offload, flags, vlan_tag, .. } = head.about;
            if flags.contains(RxFlags::VLAN_STRIPPED) {
                offload = Offload { flags: offload.flags | OffloadFlags::VLAN_TAG, vlan_tag, ..offload };
            }
            burst.push(first, offload);
            for _ in 1..head.buffers {
                buffers.next().into_iter().for_each(|buffer| burst.gather_buffer(buffer));
            }
        }
    }

    /// Forgets the packets; their buffers return to the pool, mostly all by one atomic operation.
    #[inline]
    pub fn clear(&mut self) {
        self.heads.clear();
        Buffer::give_back::<_, false>(&mut self.plain, |frame| &frame.header);
        Buffer::give_back::<_, false>(&mut self.buffers, |buffer| buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{Pool, PoolConfig};

    /// Receives packets of these lengths, of which there is nothing to say.
    fn receive(arrived: &mut RxBurst, pool: &mut Pool, lengths: &[usize]) {
        let mut slots: Vec<Option<Buffer>> = lengths.iter().map(|_| pool.take()).collect();
        let mut left = lengths.iter();
        let count = arrived.take_plain(&mut slots, |buffer| left.next().map(|len| buffer.set_len(*len)).is_some());
        assert_eq!(count, lengths.len());
        assert!(slots.iter().all(Option::is_none));
    }

    fn lengths(arrived: &RxBurst) -> Vec<u32> {
        arrived.packets().map(|packet| packet.bytes).collect()
    }

    #[test]
    fn packets_are_in_order_whatever_there_is_to_say_of_them() {
        let mut pool = Pool::new(PoolConfig { buffers: 8, buffer_size: 64 }).unwrap();
        let mut arrived = RxBurst::default();
        let mut burst = Burst::default();
        for _ in 0..3 {
            receive(&mut arrived, &mut pool, &[1, 2]);
            let mut buffer = pool.take().unwrap();
            buffer.set_len(3);
            arrived.push_buffer(buffer, About { flags: RxFlags::IPV4_CHECKSUM_GOOD, ..About::default() });
            receive(&mut arrived, &mut pool, &[4]);
            assert_eq!((arrived.len(), lengths(&arrived)), (4, vec![1, 2, 3, 4]));
            // Behind a frame that is there.
            let mut first = pool.take().unwrap();
            first.set_len(9);
            burst.push(first, Offload::NONE);
            arrived.forward(&mut burst);
            assert!(arrived.is_empty());
            assert_eq!(burst.frames().map(|frame| frame.bytes()).collect::<Vec<_>>(), [9, 1, 2, 3, 4]);
            burst.clear();
        }
        receive(&mut arrived, &mut pool, &[5, 6]);
        let mut buffer = pool.take().unwrap();
        buffer.set_len(7);
        arrived.push_buffer(buffer, About::default());
        assert_eq!(arrived.drain().map(|buffer| buffer.len()).collect::<Vec<_>>(), [5, 6, 7]);
        receive(&mut arrived, &mut pool, &[7]);
        arrived.clear();
        assert_eq!(std::iter::from_fn(|| pool.take()).collect::<Vec<_>>().len(), 8);
    }

    #[test]
    fn packets_are_edited_on_their_way() {
        let mut pool = Pool::new(PoolConfig { buffers: 4, buffer_size: 64 }).unwrap();
        let (mut arrived, mut burst) = (RxBurst::default(), Burst::default());
        receive(&mut arrived, &mut pool, &[1, 2]);
        arrived.push_buffer(pool.take().unwrap(), About::default());
        arrived.forward_edited(&mut burst, |buffer| buffer.set_len(buffer.len() + 10));
        assert_eq!(burst.frames().map(|frame| frame.bytes()).collect::<Vec<_>>(), [11, 12, 10]);
    }

    #[test]
    #[should_panic(expected = "a frame's header has bytes")]
    fn nothing_is_not_sent_on() {
        let mut pool = Pool::new(PoolConfig { buffers: 4, buffer_size: 64 }).unwrap();
        let mut arrived = RxBurst::default();
        receive(&mut arrived, &mut pool, &[1, 2]);
        arrived.forward_edited(&mut Burst::default(), |buffer| buffer.set_len(0));
    }

    #[test]
    fn what_is_no_usual_packet_stays_where_it_is() {
        let mut pool = Pool::new(PoolConfig { buffers: 4, buffer_size: 64 }).unwrap();
        let mut slots = [pool.take(), pool.take(), None, pool.take()];
        let mut arrived = RxBurst::default();
        assert_eq!(arrived.take_plain(&mut slots[1..], |buffer| buffer.try_fill(10)), 1, "up to a slot that has none");
        assert_eq!(arrived.take_plain(&mut slots, |buffer| buffer.try_fill(65)), 0, "longer than a buffer");
        assert_eq!(arrived.take_plain(&mut slots, |buffer| buffer.try_fill(0)), 0, "empty");
        assert_eq!(slots.each_ref().map(Option::is_some), [true, false, false, true]);
        assert_eq!(lengths(&arrived), [10]);
    }
}
