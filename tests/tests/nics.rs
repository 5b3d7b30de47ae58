//! `pagewire nics`: what there is, and what an opened NIC says of itself.

use pagewire_tests::command::{pagewire, run, send};
use serde_json::Value;

fn details(address: &str) -> Value {
    let ended = run(pagewire(["nics", "-v", "--json", address])).with_code(0);
    let mut all = ended.json();
    assert_eq!(all.as_array().map(Vec::len), Some(1), "{all}");
    all[0].take()
}

/// Whether a feature is offered and accepted, and what is said of it.
fn feature(details: &Value, name: &str) -> (bool, bool, String) {
    let features = details["features"].as_array().unwrap_or_else(|| panic!("no features in {details}"));
    let found = features.iter().find(|feature| feature["name"] == name).unwrap_or_else(|| panic!("no {name} in {details}"));
    let flag = |key: &str| found[key].as_bool().unwrap_or_else(|| panic!("no {key} in {found}"));
    (flag("offered"), flag("accepted"), found["note"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn both_simulated_nics_are_listed() {
    let listed = run(pagewire(["nics", "--json"])).with_code(0).json();
    for address in ["sim:e1000", "sim:virtio-net"] {
        let row = listed.as_array().and_then(|rows| rows.iter().find(|row| row["address"] == address));
        assert_eq!(row.map(|row| &row["usable"]), Some(&Value::Bool(true)), "{address} in {listed}");
    }
}

#[test]
fn a_virtio_card_tells_what_was_negotiated_and_why_not() {
    let split = details("sim:virtio-net,packed=off,mac=52:54:00:00:00:09");
    assert_eq!((split["mac"].as_str(), split["link_up"].as_bool()), (Some("52:54:00:00:00:09"), Some(true)));
    assert_eq!(split["offloads"], serde_json::json!([]), "this wire has none");
    assert!(split["max_segments"].as_u64() > Some(1), "{split}");
    for name in ["VIRTIO_F_VERSION_1", "VIRTIO_F_EVENT_IDX", "VIRTIO_F_INDIRECT_DESC", "VIRTIO_NET_F_MAC"] {
        let (offered, accepted, note) = feature(&split, name);
        assert!(offered && accepted && !note.is_empty(), "{name} in {split}");
    }
    for name in ["VIRTIO_F_RING_PACKED", "VIRTIO_NET_F_CSUM"] {
        assert!(matches!(feature(&split, name), (false, false, _)), "{name} in {split}");
    }

    let packed = details("sim:virtio-net,packed=on,event_idx=off,iommu_platform=on,host_mtu=1500,gather=off");
    assert!(matches!(feature(&packed, "VIRTIO_F_RING_PACKED"), (true, true, _)), "{packed}");
    assert!(matches!(feature(&packed, "VIRTIO_F_EVENT_IDX"), (false, false, _)), "{packed}");
    assert!(matches!(feature(&packed, "VIRTIO_F_ACCESS_PLATFORM"), (true, true, _)), "{packed}");
    assert!(matches!(feature(&packed, "VIRTIO_NET_F_MTU"), (true, true, _)), "{packed}");
    assert_eq!(packed["max_segments"], 1);
    // Offered, and not wanted: the note is the reason.
    let (offered, accepted, why) = feature(&packed, "VIRTIO_NET_F_CTRL_VLAN");
    assert!(offered && !accepted && why.contains("VLAN"), "{why}");
}

#[test]
fn people_get_a_table_of_features_and_nothing_is_negotiated_with_an_e1000() {
    let ended = run(pagewire(["nics", "-v", "sim:virtio-net", "sim:e1000"])).with_code(0);
    for text in
        ["BIT  FEATURE", "OFFERED  ACCEPTED  NOTE", "VIRTIO_F_VERSION_1", "nothing is negotiated", "up, 1,000 Mbit/s", "tcp4-segmentation"]
    {
        assert!(ended.stdout.contains(text), "{text:?} in {}", ended.all());
    }
}

#[test]
fn what_cannot_be_opened_is_refused() {
    run(pagewire(["nics", "-v"])).with_code(2).complains_of(&["ADDRESS"]);
    run(pagewire(["nics", "sim:virtio-net"])).with_code(2).complains_of(&["--verbose"]);
    let legacy = "sim:virtio-net,disable-modern=on,disable-legacy=off";
    run(pagewire(["nics", "-v", legacy])).with_code(1).complains_of(&["legacy", "VIRTIO 1.0", "disable-legacy=on"]);
    run(pagewire(["nics", "-v", "sim:virtio-net,colour=red"])).with_code(2).complains_of(&["no option \"colour\"", "event_idx", "queues"]);
}

#[test]
fn a_network_of_a_smaller_mtu_is_told_and_refuses_what_is_larger() {
    let nic = "sim:virtio-net,host_mtu=1400";
    assert_eq!(details(nic)["max_frame"], 1418);
    let refused = run(send("/dev/null", nic, "udp://10.0.2.2:9000", "--ip 10.0.2.15/24")).with_code(1);
    refused.complains_of(&["an MTU of 1500", "takes 1400"]);
}
