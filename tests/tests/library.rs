//! The library's example, as its documentation shows it.

use std::process::Command;

use pagewire_tests::command::{example, pagewire, run, start};
use pagewire_tests::namespace::Namespace;
use pagewire_tests::{content, wait_for};

#[test]
fn the_example_of_twenty_lines_sends_a_file() {
    // In a network of its own, since the example sends to a fixed port.
    let network = Namespace::new(&[]);
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 200_001);
    let output = directory.path().join("received");
    let mut receiver = pagewire(["receive", "udp://127.0.0.1:9000", "--json", "--size", "200001", "--idle", "10", "-o"]);
    receiver.arg(&output);
    let receiver = start(network.inside(&receiver));
    wait_for("the receiver to listen", || receiver.complaints().contains("listening at").then_some(()));
    let mut command = Command::new(example("send_file"));
    command.arg(&path);
    let ended = run(network.inside(&command)).with_code(0);
    let gathered = sent.len() - sent.len() % 4096;
    assert_eq!(ended.stdout, format!("200001 bytes, of which the NIC gathered {gathered}: complete\n"));
    assert_eq!(receiver.wait().stopped(0).text("sha256"), content::sha256(&sent));
    content::assert_same(&std::fs::read(output).expect("the received file"), &sent);
}
