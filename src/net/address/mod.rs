//! Addresses and quantities as a user writes them.

mod cidr;
mod quantity;
mod rate;
mod size;
mod target;

pub(super) use cidr::unusable;
pub use cidr::{Cidr, Family};
pub use rate::Rate;
pub use size::Size;
pub use target::{Host, Scheme, Target};
