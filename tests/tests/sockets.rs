//! Ordinary sockets on a NIC of ours: the example of an echo server.

use std::process::Command;

use pagewire_tests::command::{example, run, start};
use pagewire_tests::content;
use pagewire_tests::namespace::Namespace;

#[test]
fn the_echo_server_gives_back_what_a_kernel_socket_sends() {
    // In a network of its own, since the example listens at a fixed port.
    let network = Namespace::new(&[]);
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 300_001);
    let server = start(network.inside(&Command::new(example("echo"))));
    let mut client = Command::new("bash");
    // QEMU takes the connection at once, and hands it on when the server answers.
    client.args([
        "-ec",
        "until exec 3<>/dev/tcp/127.0.0.1/7007; do sleep 0.1; done 2>/dev/null; cat \"$0\" >&3 & head -c 300001 <&3 | sha256sum",
    ]);
    client.arg(&path);
    let ended = run(network.inside(&client)).with_code(0);
    assert_eq!(ended.stdout.split_whitespace().next(), Some(content::sha256(&sent).as_str()));
    drop(server);
}
