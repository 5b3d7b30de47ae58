//! The driver on the model of a virtio network device, whatever that offers.

use hal::{MacAddress, NicError, Offload, OffloadFlags};
use hw_sim::model::virtio::{Features, ModelConfig, VirtioNetModel};
use virtio_net::{VirtioNet, VirtioNetConfig};

use crate::headers::{STATION, sum};
pub use crate::shared::{BUFFERS, LONG, Window, bytes_of};

pub type Bench = crate::shared::Bench<VirtioNetModel, VirtioNet>;

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
        let nic = start(&model, config).unwrap();
        Self::of(model, nic)
    }

    /// Does something that takes commands to the device.
    pub fn command<T>(&mut self, work: impl FnOnce(&mut VirtioNet) -> T) -> T {
        self.model.set_synchronous(true);
        let outcome = work(&mut self.nic);
        self.model.set_synchronous(false);
        outcome
    }
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
