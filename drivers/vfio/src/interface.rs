//! The network interfaces of a NIC, and what this machine uses them for.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use crate::address::PciAddress;
use crate::sysfs::{Sysfs, link, names, text};

/// An address on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InterfaceAddress {
    pub interface: String,
    pub address: IpAddr,
}

impl Sysfs {
    /// The names of a NIC's interfaces. A virtio device is a bus of its own below the PCI device.
    pub(crate) fn interfaces(&self, address: PciAddress) -> Vec<String> {
        let device = self.device(address);
        let below = names(&device).filter(|name| name.starts_with("virtio")).map(|name| device.join(name).join("net"));
        let mut interfaces: Vec<String> = std::iter::once(device.join("net")).chain(below).flat_map(|path| names(&path)).collect();
        interfaces.sort();
        interfaces
    }

    /// What the machine does with an interface; empty when it can do without.
    pub(crate) fn uses(&self, interface: &str) -> io::Result<Vec<String>> {
        let mut uses = Vec::new();
        for InterfaceAddress { interface: carrier, address } in self.kernel.addresses()? {
            // Every interface that was ever up has a link-local address: it says nothing.
            let link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
            if carrier == interface && !link_local {
                uses.push(format!("{interface} has the address {address}"));
            }
        }
        let net = self.proc.join("net");
        if has_default_route(
            &net.join("route"),
            interface,
            |fields| fields.get(1) == Some(&"00000000") && fields.get(7) == Some(&"00000000"),
            0,
        ) {
            uses.push(format!("the default route goes through {interface}"));
        }
        let everything = "0".repeat(32);
        if has_default_route(
            &net.join("ipv6_route"),
            interface,
            |fields| fields.first() == Some(&everything.as_str()) && fields.get(1) == Some(&"00"),
            9,
        ) {
            uses.push(format!("the IPv6 default route goes through {interface}"));
        }
        let class = self.sys.join("class/net").join(interface);
        let master = link(&class.join("master"));
        uses.extend(master.iter().map(|master| format!("{interface} is a port of {master}")));
        // A bridge or bond lies on top of its ports too: once is enough.
        let above =
            names(&class).filter_map(|name| name.strip_prefix("upper_").map(str::to_owned)).filter(|name| Some(name) != master.as_ref());
        uses.extend(above.map(|above| format!("{above} is on top of {interface}")));
        Ok(uses)
    }
}

fn has_default_route(table: &Path, interface: &str, is_default: impl Fn(&[&str]) -> bool, column: usize) -> bool {
    text(table).is_some_and(|text| {
        text.lines().any(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            fields.get(column) == Some(&interface) && is_default(&fields)
        })
    })
}

/// All addresses of this machine's interfaces (getifaddrs(3)).
pub(crate) fn addresses() -> io::Result<Vec<InterfaceAddress>> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: `list` is a place for the pointer that the call stores.
    if unsafe { libc::getifaddrs(&mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut addresses = Vec::new();
    let mut next = list;
    while !next.is_null() {
        // SAFETY: an element of the list, which is freed below, after the last use.
        let element = unsafe { &*next };
        // SAFETY: the name of an element is a string that lives as long as the list.
        let name = unsafe { CStr::from_ptr(element.ifa_name) };
        // SAFETY: the address of an element is null or a socket address of its family's size.
        if let Some(address) = unsafe { ip_address(element.ifa_addr) } {
            addresses.push(InterfaceAddress { interface: name.to_string_lossy().into_owned(), address });
        }
        next = element.ifa_next;
    }
    // SAFETY: made by getifaddrs, freed once, and nothing refers to it any more.
    unsafe { libc::freeifaddrs(list) };
    Ok(addresses)
}

/// # Safety
/// `address` is null or points to a socket address that is as long as its family says.
unsafe fn ip_address(address: *const libc::sockaddr) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: not null, and every socket address starts with its family.
    match i32::from(unsafe { (*address).sa_family }) {
        libc::AF_INET => {
            // SAFETY: of this family, so as long as sockaddr_in; the copy makes no assumption about alignment.
            let address = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above, sockaddr_in6.
            let address = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machines_addresses_are_found() {
        // In a container without a network there may be none at all, but never garbage.
        for InterfaceAddress { interface, address } in addresses().unwrap() {
            assert!(!interface.is_empty() && !address.is_unspecified(), "{interface} {address}");
        }
    }
}
