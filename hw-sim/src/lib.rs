//! What pagewire is tested on, without hardware.
//!
//! | room | holds |
//! |---|---|
//! | [`rig`] | one NIC model of QEMU, driven from this process with no guest |
//! | [`vm`] | a guest kernel with an IOMMU and VFIO, for one command |
//! | [`model`] | devices in this process, that misbehave on demand |
//! | [`wire`] | the other end of the rig's cable, and an independent checker of frames |
//! | [`install`] | finds the programs that the rig starts, and installs a missing one |

#![deny(unsafe_code)]

pub mod install;
pub mod model;
pub mod rig;
pub mod vm;
pub mod wire;
