//! Which packets are received (5.1.6.5.1 to 5.1.6.5.3).

use hal::{MacAddress, NicError, RxFilter};

use crate::control::{Command, Commands};
use crate::features::Features;

/// Addresses of a command, which are more than any device keeps apart.
const MOST_ADDRESSES: usize = 1000;

/// What the device was told, so that only changes are told.
#[derive(Default)]
pub(crate) struct Filtering {
    /// The VLANs that the device lets through; all of them are a filter that filters nothing.
    vlans: Vec<u16>,
}

/// Whether a device with these features can do what the filter asks for.
pub(crate) fn check(filter: &RxFilter, features: Features) -> Result<(), NicError> {
    filter.check()?;
    if filter.unicast.len() > MOST_ADDRESSES || filter.multicast.len() > MOST_ADDRESSES {
        return Err(NicError::Config(format!(
            "a filter of more than {MOST_ADDRESSES} addresses; use promiscuous or all_multicast instead"
        )));
    }
    if filter.no_broadcast && !features.contains(Features::CTRL_RX_EXTRA) {
        return Err(NicError::Config("this device cannot leave broadcast out: it has no VIRTIO_NET_F_CTRL_RX_EXTRA".to_owned()));
    }
    if !filter.vlans.is_empty() && !features.contains(Features::CTRL_VLAN) {
        return Err(NicError::Config(
            "VLANs are not filtered: the device has no VIRTIO_NET_F_CTRL_VLAN, or the NIC was started without a filter of VLANs".to_owned(),
        ));
    }
    Ok(())
}

impl Filtering {
    /// The device was reset.
    pub fn forget(&mut self) {
        self.vlans.clear();
    }

    /// Tells the device. One without these commands gives what it gives, mostly everything.
    pub fn apply(&mut self, control: &mut dyn Commands, features: Features, filter: &RxFilter) -> Result<(), NicError> {
        if features.contains(Features::CTRL_RX) {
            // The table first: a mode that ends would otherwise let the addresses of the table wait for it.
            control.send(Command::MAC_TABLE, &table(&filter.unicast, &filter.multicast))?;
            control.send(Command::PROMISCUOUS, &[filter.promiscuous.into()])?;
            control.send(Command::ALL_MULTICAST, &[filter.all_multicast.into()])?;
        }
        if features.contains(Features::CTRL_RX_EXTRA) {
            control.send(Command::NO_BROADCAST, &[filter.no_broadcast.into()])?;
        }
        if features.contains(Features::CTRL_VLAN) {
            self.apply_vlans(control, filter)?;
        }
        Ok(())
    }

    fn apply_vlans(&mut self, control: &mut dyn Commands, filter: &RxFilter) -> Result<(), NicError> {
        // The device lets nothing through but what it was told.
        let mut wanted: Vec<u16> = if filter.vlans.is_empty() { (0..4096).collect() } else { filter.vlans.clone() };
        wanted.sort_unstable();
        wanted.dedup();
        for vlan in wanted.iter().filter(|vlan| self.vlans.binary_search(vlan).is_err()) {
            control.send(Command::VLAN_ADD, &vlan.to_le_bytes())?;
        }
        for vlan in self.vlans.iter().filter(|vlan| wanted.binary_search(vlan).is_err()) {
            control.send(Command::VLAN_DELETE, &vlan.to_le_bytes())?;
        }
        self.vlans = wanted;
        Ok(())
    }
}

/// Two lists, each with its length in front.
fn table(unicast: &[MacAddress], multicast: &[MacAddress]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for list in [unicast, multicast] {
        bytes.extend((list.len() as u32).to_le_bytes());
        list.iter().for_each(|address| bytes.extend(address.0));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes down what it is told.
    #[derive(Default)]
    struct Notebook(Vec<(Command, Vec<u8>)>);

    impl Commands for Notebook {
        fn layout(&self) -> hal::virtio::QueueLayout {
            hal::virtio::QueueLayout { size: 2, descriptors: 0, driver: 0, device: 0 }
        }
        fn enabled(&mut self, _: hal::Doorbell) {}
        fn settle(&mut self) {}
        fn send(&mut self, command: Command, data: &[u8]) -> Result<(), NicError> {
            self.0.push((command, data.to_vec()));
            Ok(())
        }
    }

    fn apply(filtering: &mut Filtering, features: Features, filter: RxFilter) -> Vec<(Command, Vec<u8>)> {
        let mut notebook = Notebook::default();
        filtering.apply(&mut notebook, features, &filter).unwrap();
        notebook.0
    }

    #[test]
    fn the_device_is_told_what_it_has_commands_for() {
        let filter = RxFilter { promiscuous: true, unicast: vec!["52:54:00:00:00:01".parse().unwrap()], ..RxFilter::default() };
        let table = vec![1, 0, 0, 0, 0x52, 0x54, 0, 0, 0, 1, 0, 0, 0, 0];
        let told = apply(&mut Filtering::default(), Features::CTRL_RX, filter.clone());
        assert_eq!(told, [(Command::MAC_TABLE, table), (Command::PROMISCUOUS, vec![1]), (Command::ALL_MULTICAST, vec![0])]);
        assert_eq!(apply(&mut Filtering::default(), Features::empty(), filter), []);
    }

    #[test]
    fn of_vlans_only_changes_are_told() {
        let mut filtering = Filtering::default();
        let vlans = |vlans: &[u16]| RxFilter { vlans: vlans.to_vec(), ..RxFilter::default() };
        assert_eq!(apply(&mut filtering, Features::CTRL_VLAN, vlans(&[7, 5, 7])).len(), 2);
        let told = apply(&mut filtering, Features::CTRL_VLAN, vlans(&[7, 258]));
        assert_eq!(told, [(Command::VLAN_ADD, vec![2, 1]), (Command::VLAN_DELETE, vec![5, 0])]);
        assert_eq!(apply(&mut filtering, Features::CTRL_VLAN, vlans(&[])).len(), 4094, "a filter of none lets all through");
    }

    #[test]
    fn what_the_device_cannot_do_is_refused() {
        let all = Features::all();
        assert!(check(&RxFilter { no_broadcast: true, vlans: vec![1], ..RxFilter::default() }, all).is_ok());
        assert!(check(&RxFilter { no_broadcast: true, ..RxFilter::default() }, all - Features::CTRL_RX_EXTRA).is_err());
        assert!(check(&RxFilter { vlans: vec![1], ..RxFilter::default() }, all - Features::CTRL_VLAN).is_err());
        assert!(check(&RxFilter { unicast: vec![MacAddress([2, 0, 0, 0, 0, 1]); 1001], ..RxFilter::default() }, all).is_err());
    }
}
