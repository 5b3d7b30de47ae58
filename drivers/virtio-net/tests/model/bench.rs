//! The driver on the model, with a pool; and what has to be true at the end of every test.

use std::sync::Arc;
use std::time::Duration;

use hal::{Buffer, Burst, DmaSpace, MacAddress, Mapping, Nic, NicError, Offload, OffloadFlags, Pool, PoolConfig, RxBurst};
use hw_sim::model::Received;
use hw_sim::model::virtio::{Features, ModelConfig, VirtioNetModel};
use virtio_net::{VirtioNet, VirtioNetConfig};

use crate::headers::{STATION, content, sum};

/// Buffers of the pool.
pub const BUFFERS: u32 = 1024;
/// Time enough for a queue to count as hung.
pub const LONG: Duration = Duration::from_secs(6);

/// What the device offers: both layouts, in any order and in order, with all that spares notifications and descriptors and without.
pub fn variants() -> Vec<Features> {
    let plain = Features::USUAL - Features::INDIRECT_DESC - Features::EVENT_IDX - Features::ORDER_PLATFORM;
    let orders = [Features::USUAL, Features::USUAL | Features::IN_ORDER, plain, plain | Features::IN_ORDER];
    orders.into_iter().flat_map(|features| [features, features | Features::RING_PACKED]).collect()
}

/// Runs a test on each of the [`variants`].
pub fn each(test: impl Fn(Features)) {
    for features in variants() {
        println!("with {features:?}");
        test(features);
    }
}

pub struct Bench {
    pub model: VirtioNetModel,
    pub nic: VirtioNet,
    pub pool: Pool,
}

/// A driver on a model that answers commands at once, since nobody steps it meanwhile.
pub fn start(model: &VirtioNetModel, config: VirtioNetConfig) -> Result<VirtioNet, NicError> {
    model.set_synchronous(true);
    let nic = VirtioNet::start(model.transport(), config);
    model.set_synchronous(false);
    nic
}

impl Bench {
    /// With rings of 256 descriptors and an MTU of 1500.
    pub fn new(features: Features) -> Self {
        Self::with(features, VirtioNetConfig::default())
    }

    pub fn with(features: Features, config: VirtioNetConfig) -> Self {
        Self::on(ModelConfig { features, ..ModelConfig::default() }, config)
    }

    pub fn on(device: ModelConfig, config: VirtioNetConfig) -> Self {
        let model = VirtioNetModel::with(ModelConfig { mac: MacAddress(STATION), ..device });
        let mut nic = start(&model, config).unwrap();
        let pool = Pool::new(PoolConfig { buffers: BUFFERS, buffer_size: 2048 }).unwrap();
        nic.attach_pool(pool.attach(&nic.space()).unwrap()).unwrap();
        Self { model, nic, pool }
    }

    /// Does something that takes commands to the device.
    pub fn command<T>(&mut self, work: impl FnOnce(&mut VirtioNet) -> T) -> T {
        self.model.set_synchronous(true);
        let outcome = work(&mut self.nic);
        self.model.set_synchronous(false);
        outcome
    }

    /// A pool buffer with these bytes.
    #[track_caller]
    pub fn buffer(&mut self, bytes: &[u8]) -> Buffer {
        let mut buffer = self.pool.take().expect("a free buffer");
        buffer.set(bytes);
        buffer
    }

    /// A burst of frames of one segment each.
    pub fn burst(&mut self, frames: &[(Vec<u8>, Offload)]) -> Burst<'static> {
        let mut burst = Burst::with_capacity(frames.len());
        for (bytes, offload) in frames {
            burst.push(self.buffer(bytes), *offload);
        }
        burst
    }

    /// Posts all of a burst, lets time pass, and reaps. Returns what left.
    #[track_caller]
    pub fn send(&mut self, mut burst: Burst<'_>) -> Vec<Vec<u8>> {
        let frames = burst.len();
        assert_eq!(self.nic.tx(0).post(&mut burst).unwrap(), frames);
        let sent = self.model.step();
        assert_eq!(self.nic.tx(0).reap().unwrap(), frames);
        sent
    }

    /// One frame of one segment.
    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8], offload: Offload) -> Vec<Vec<u8>> {
        let burst = self.burst(&[(bytes.to_vec(), offload)]);
        self.send(burst)
    }

    /// The device receives a frame, which must find buffers.
    #[track_caller]
    pub fn deliver(&mut self, frame: &[u8]) {
        self.nic.rx(0).refill(&mut self.pool).unwrap();
        assert_eq!(self.model.receive(frame), Received::Delivered);
    }

    /// What the driver has received.
    #[track_caller]
    pub fn received(&mut self) -> Vec<Vec<u8>> {
        let mut burst = RxBurst::default();
        self.nic.rx(0).receive(&mut burst, usize::MAX).unwrap();
        bytes_of(&burst)
    }

    /// Whether a frame gets through the filters to the driver.
    #[track_caller]
    pub fn hears(&mut self, frame: &[u8]) -> bool {
        self.nic.rx(0).refill(&mut self.pool).unwrap();
        let outcome = self.model.receive(frame);
        let received = self.received();
        assert_eq!(received.len(), usize::from(outcome == Received::Delivered), "{outcome:?}");
        outcome == Received::Delivered
    }

    /// How many buffers the pool has now.
    pub fn free_buffers(&mut self) -> usize {
        free(&mut self.pool)
    }

    /// The end of every test: the device was used as the specification says, it reached for nothing that is not mapped, the pool is whole, and
    /// nothing stays mapped.
    #[track_caller]
    pub fn finish(self) {
        let model = self.model.clone();
        assert_eq!(model.violations(), [""; 0]);
        assert_eq!(model.faulted_accesses(), []);
        self.finish_broken("a device that behaves");
        assert_eq!(model.violations(), [""; 0], "while it was closed");
    }

    /// The end of a test in which the device misbehaved: whatever it did, the NIC can be dropped, the pool is whole and nothing stays mapped.
    #[track_caller]
    pub fn finish_broken(self, what: &str) {
        let Self { model, nic, mut pool, .. } = self;
        drop(nic);
        assert_eq!(free(&mut pool), BUFFERS as usize, "{what}");
        assert_eq!(model.mappings(), 0, "{what}");
    }
}

fn free(pool: &mut Pool) -> usize {
    std::iter::from_fn(|| pool.take()).collect::<Vec<_>>().len()
}

/// The packets of a burst, put together.
pub fn bytes_of(burst: &RxBurst) -> Vec<Vec<u8>> {
    burst
        .packets()
        .map(|packet| {
            let mut bytes = vec![0; packet.bytes as usize];
            assert_eq!(packet.copy_to(&mut bytes), bytes.len());
            bytes
        })
        .collect()
}

/// Headers as a virtio device wants them for `payload` bytes: the IPv4 checksum is there, and what is to be cut has the headers of all of it.
pub fn whole((mut header, mut offload): (Vec<u8>, Offload), payload: usize) -> (Vec<u8>, Offload) {
    let (ip, l4) = (usize::from(offload.ip_start), usize::from(offload.l4_start));
    let len = header.len() + payload;
    let cutting = offload.flags.intersects(OffloadFlags::CUTTING);
    if header[12..14] == [0x08, 0] {
        if cutting {
            header[ip + 2..ip + 4].copy_from_slice(&((len - ip) as u16).to_be_bytes());
        }
        let checksum = !sum(&header[ip..l4]);
        header[ip + 10..ip + 12].copy_from_slice(&checksum.to_be_bytes());
        offload.flags -= OffloadFlags::IPV4_CHECKSUM;
    } else if cutting {
        header[ip + 4..ip + 6].copy_from_slice(&((len - ip - 40) as u16).to_be_bytes());
    }
    if offload.flags.intersects(OffloadFlags::SEGMENTATION) {
        let seed = sum(&[header[l4 + 16], header[l4 + 17], ((len - l4) >> 8) as u8, (len - l4) as u8]);
        header[l4 + 16..l4 + 18].copy_from_slice(&seed.to_be_bytes());
    }
    (header, offload)
}

/// A file of `len` bytes of [`content`] 0, mapped for the NIC; unmapped when dropped.
pub struct Window {
    pub content: Vec<u8>,
    pub mapping: Option<Mapping>,
    space: Arc<dyn DmaSpace>,
}

impl Window {
    pub fn new(space: Arc<dyn DmaSpace>, len: usize) -> Self {
        let content = content(0, len);
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &content).unwrap();
        let mapping = space.map_file(std::os::fd::AsFd::as_fd(&file), 0..len as u64).unwrap();
        Self { content, mapping: Some(mapping), space }
    }

    pub fn segment(&self, offset: usize, len: usize) -> hal::Segment<'_> {
        self.mapping.as_ref().and_then(|mapping| mapping.segment(offset as u64, len as u32)).expect("inside the window")
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        if let Some(mapping) = self.mapping.take() {
            self.space.unmap(mapping).unwrap();
        }
    }
}
