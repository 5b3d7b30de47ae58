//! What an opened NIC says of itself.

use hal::{FeatureReport, Nic, NicError};
use pagewire::device::{self, DeviceAddress, OpenError, OpenOptions};
use serde::Serialize;

use super::table;

/// A NIC, opened and closed again.
#[derive(Serialize)]
pub struct Details {
    address: String,
    model: String,
    mac: String,
    link_up: bool,
    link_mbit_per_second: u32,
    transmit_queues: usize,
    receive_queues: usize,
    offloads: Vec<String>,
    max_segments: u16,
    max_frame: u32,
    max_segmentation: u32,
    features: Vec<Feature>,
}

/// A feature that was negotiated.
#[derive(Serialize)]
struct Feature {
    name: &'static str,
    bit: u8,
    offered: bool,
    accepted: bool,
    note: String,
}

impl From<FeatureReport> for Feature {
    fn from(report: FeatureReport) -> Self {
        let FeatureReport { name, bit, offered, accepted, note } = report;
        Self { name, bit, offered, accepted, note }
    }
}

impl Details {
    /// Opens the NIC at `address`, and closes it when it has been asked.
    pub fn of(address: &DeviceAddress) -> Result<Self, OpenError> {
        let mut device = device::open(address, OpenOptions::default())?;
        Ok(Self::ask(address.to_string(), &mut *device.nic)?)
    }

    fn ask(address: String, nic: &mut dyn Nic) -> Result<Self, NicError> {
        let (capabilities, link) = (nic.capabilities(), nic.link()?);
        let (transmit_queues, receive_queues) = nic.queues();
        Ok(Self {
            address,
            model: nic.model().to_owned(),
            mac: nic.mac().to_string(),
            link_up: link.up,
            link_mbit_per_second: link.speed,
            transmit_queues,
            receive_queues,
            offloads: capabilities.offloads.iter_names().map(|(name, _)| name.to_lowercase().replace('_', "-")).collect(),
            max_segments: capabilities.max_segments,
            max_frame: capabilities.max_frame,
            max_segmentation: capabilities.max_segmentation,
            features: nic.features().into_iter().map(Feature::from).collect(),
        })
    }

    /// For people.
    pub fn render(&self) -> String {
        let link = match (self.link_up, self.link_mbit_per_second) {
            (false, _) => "down".to_owned(),
            (true, 0) => "up".to_owned(),
            (true, speed) => format!("up, {} Mbit/s", table::grouped(speed.into())),
        };
        let none = |text: String| if text.is_empty() { "none".to_owned() } else { text };
        let segments = match self.max_segments {
            1 => "nothing: frames are copied together".to_owned(),
            most => format!("up to {most} pieces of a frame"),
        };
        let rows = [
            ("address", self.address.clone()),
            ("model", self.model.clone()),
            ("mac", self.mac.clone()),
            ("link", link),
            ("queues", format!("{} to transmit, {} to receive", self.transmit_queues, self.receive_queues)),
            ("offloads", none(self.offloads.join(", "))),
            ("gathers", segments),
            ("largest frame", table::bytes(self.max_frame.into())),
            ("largest to cut", if self.max_segmentation == 0 { "none".into() } else { table::bytes(self.max_segmentation.into()) }),
        ];
        let mut text = table::render(&rows);
        if self.features.is_empty() {
            text.push_str("features        nothing is negotiated with such a device\n");
            return text;
        }
        let width = self.features.iter().map(|feature| feature.name.len()).max().unwrap_or(0);
        text.push_str(&format!("\nBIT  {:<width$}  OFFERED  ACCEPTED  NOTE\n", "FEATURE"));
        for Feature { name, bit, offered, accepted, note } in &self.features {
            let word = |yes: &bool| if *yes { "yes" } else { "no" };
            text.push_str(&format!("{bit:<3}  {name:<width$}  {:<7}  {:<8}  {note}\n", word(offered), word(accepted)));
        }
        text
    }
}
