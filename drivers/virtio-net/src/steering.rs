//! How packets are spread over the receive queues, and how their interrupts are moderated (5.1.6.5.5 to 5.1.6.5.8).

use hal::NicError;

use crate::config::{Coalescing, Rss, VirtioNetConfig};
use crate::control::{Command, Commands};
use crate::device::SharedDevice;
use crate::features::Features;

/// The key that Microsoft's specification of RSS verifies with, which most drivers start with.
const USUAL_KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b,
    0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// Sets everything that the configuration asks for, and the device has commands for.
pub(crate) fn apply(
    control: &mut dyn Commands,
    device: &SharedDevice,
    features: Features,
    config: &VirtioNetConfig,
    pairs: u16,
) -> Result<(), NicError> {
    if features.contains(Features::RSS)
        && let Some(rss) = &config.rss
    {
        control.send(Command::RSS, &rss_command(rss, device, pairs)?)?;
    } else if features.contains(Features::MQ) {
        if config.rss.is_some() {
            tracing::warn!("the device has no VIRTIO_NET_F_RSS: it spreads packets over the queue pairs as it likes");
        }
        control.send(Command::QUEUE_PAIRS, &pairs.to_le_bytes())?;
    }
    if features.contains(Features::HASH_REPORT) && !features.contains(Features::RSS) {
        control.send(Command::HASH, &hash_command(config.rss.as_ref(), device)?)?;
    }
    if features.contains(Features::NOTF_COAL) {
        for (command, coalescing) in [(Command::TX_COALESCING, config.tx_coalescing), (Command::RX_COALESCING, config.rx_coalescing)] {
            if let Some(Coalescing { usecs, packets }) = coalescing {
                control.send(command, &[packets.to_le_bytes(), usecs.to_le_bytes()].concat())?;
            }
        }
    } else if config.tx_coalescing.is_some() || config.rx_coalescing.is_some() {
        tracing::warn!("the device has no VIRTIO_NET_F_NOTF_COAL: interrupts are not moderated");
    }
    Ok(())
}

/// Hash types, table mask, queue of what is not hashed, table, transmit queues, key.
fn rss_command(rss: &Rss, device: &SharedDevice, pairs: u16) -> Result<Vec<u8>, NicError> {
    let limits = device.rss_limits()?;
    if rss.table.len() > usize::from(limits.table) || rss.key.len() > usize::from(limits.key) {
        return Err(NicError::Config(format!(
            "an RSS table of {} entries and a key of {} bytes; this device takes {} and {}",
            rss.table.len(),
            rss.key.len(),
            limits.table,
            limits.key
        )));
    }
    if let Some(pair) = rss.table.iter().find(|pair| **pair >= pairs) {
        return Err(NicError::Config(format!("the RSS table names queue pair {pair}; this device has {pairs}")));
    }
    let mut bytes = limits.hash_types.to_le_bytes().to_vec();
    bytes.extend((rss.table.len() as u16 - 1).to_le_bytes());
    bytes.extend(0_u16.to_le_bytes());
    rss.table.iter().for_each(|pair| bytes.extend(pair.to_le_bytes()));
    bytes.extend(pairs.to_le_bytes());
    bytes.push(rss.key.len() as u8);
    bytes.extend(&rss.key);
    Ok(bytes)
}

/// Hash types, four reserved words, key.
fn hash_command(rss: Option<&Rss>, device: &SharedDevice) -> Result<Vec<u8>, NicError> {
    let limits = device.rss_limits()?;
    let key = rss.map_or(&USUAL_KEY[..], |rss| &rss.key);
    let key = &key[..key.len().min(limits.key.into())];
    let mut bytes = limits.hash_types.to_le_bytes().to_vec();
    bytes.extend([0; 8]);
    bytes.push(key.len() as u8);
    bytes.extend(key);
    Ok(bytes)
}
