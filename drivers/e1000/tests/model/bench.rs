//! The driver of the 82540EM on its model.

use hal::MacAddress;
use hw_sim::model::e1000::E1000Model;
use pagewire_e1000::{E1000, E1000Config};

use crate::headers::STATION;
pub use crate::shared::{BUFFERS, LONG, Window, bytes_of};

pub type Bench = crate::shared::Bench<E1000Model, E1000>;

/// How often the start writes TDT.
const DOORBELLS_AT_START: u64 = 1;

impl Bench {
    /// With rings of 256 descriptors and an MTU of 1500.
    pub fn new() -> Self {
        Self::with(E1000Config::default())
    }

    pub fn with(config: E1000Config) -> Self {
        let model = E1000Model::new(MacAddress(STATION));
        let nic = E1000::start(model.device(), config).unwrap();
        assert_eq!(model.doorbells(), DOORBELLS_AT_START);
        Self::of(model, nic)
    }

    /// How often the doorbell was rung, without a reset.
    pub fn doorbells(&self) -> u64 {
        self.model.doorbells() - DOORBELLS_AT_START
    }
}

/// Bytes cut into pieces at these lengths; the last piece is what is left.
pub fn cut<'b>(bytes: &'b [u8], lengths: &[usize]) -> Vec<&'b [u8]> {
    let mut rest = bytes;
    let mut pieces = Vec::new();
    for len in lengths {
        let (piece, left) = rest.split_at((*len).min(rest.len()));
        pieces.push(piece);
        rest = left;
    }
    pieces.push(rest);
    pieces.retain(|piece| !piece.is_empty());
    pieces
}
