//! Files that change while they are sent.

use std::fs::File;
use std::time::Duration;

use super::bench::{Bench, file, shared};
use crate::send::{CopyReason, Stability};
use crate::tcp::{Event, Piece, SharedFile, Socket, SocketError, Stack};

/// Sends the file to one client, and calls `disturb` when half a megabyte has arrived. Returns what arrived until the connection ended, the error
/// that the program is told, and the bench.
fn disturbed(file: SharedFile, len: u64, mut disturb: impl FnMut()) -> (Vec<u8>, SocketError, Bench) {
    let mut bench = Bench::new();
    let client = bench.open(65_536);
    let mut sockets: Vec<Socket> = Vec::new();
    let mut own = Some(file);
    let mut program = |stack: &mut Stack, event: Event| {
        if let Event::Incoming(listener) = event
            && let Some(socket) = listener.accept(stack)
            && let Some(file) = own.take()
        {
            socket.sendfilev(stack, &[Piece::File(&file, 0..len), Piece::Bytes(b"tail")]).unwrap();
            socket.shutdown(stack).unwrap();
            sockets.push(socket);
        }
    };
    bench.run_until(Duration::from_secs(10), &mut program, |bench| bench.received(client).len() > 500_000);
    // What is on its way now is lost, and has to be repeated.
    bench.loses = Box::new(|segment| !segment.payload.is_empty());
    for _ in 0..20 {
        bench.step(&mut program, true);
    }
    disturb();
    bench.step(&mut program, true);
    bench.loses = Box::new(|_| false);
    bench.run_until(Duration::from_secs(10), &mut program, |bench| !bench.peer_socket(client).is_open());
    assert!(bench.segments().last().unwrap().tcp.unwrap().rst, "the end is no end of a file");
    let error = sockets[0].error(&bench.stack).unwrap();
    (bench.received(client).to_vec(), error, bench)
}

#[test]
fn a_writer_ends_the_connection_after_what_is_on_its_way_and_then_goes_on() {
    let (path, content) = file(3_000_000);
    let mut writer = None;
    let shared = shared(&path, Stability::Auto);
    assert_eq!(shared.stability(), "lease");
    let watch = shared.clone();
    let (received, error, bench) = disturbed(shared, 3_000_000, || {
        let path = path.to_path_buf();
        writer = Some(std::thread::spawn(move || File::options().write(true).open(path).unwrap()));
        // The kernel's message takes real time; virtual time waits for it.
        let start = std::time::Instant::now();
        while watch.disturbed().is_none() {
            assert!(start.elapsed() < Duration::from_secs(30), "the lease is not broken");
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let SocketError::FileChanged { delivered, how, .. } = error else { panic!("{error}") };
    assert!(how.contains("wants to change"), "{how}");
    assert_eq!(received.len() as u64, delivered, "all that was sent has arrived");
    assert!(received == content[..received.len()] && received.len() < 3_000_000);
    // Though the program still has the file: nothing of it is mapped, and the lease is given up.
    writer.unwrap().join().unwrap();
    let report = { bench }.stack.report();
    assert!(report.copy_reasons[&CopyReason::FileChanging] > 0);
    drop(watch);
}

#[test]
fn without_a_lease_a_change_is_found_before_the_last_byte_goes_out() {
    let (path, content) = file(3_000_000);
    let shared = shared(&path, Stability::Trust);
    let (received, error, _) = disturbed(shared, 3_000_000, || {
        let now = std::time::SystemTime::now() + Duration::from_secs(5);
        File::options().append(true).open(&path).unwrap().set_modified(now).unwrap();
    });
    let SocketError::FileChanged { delivered, name, .. } = error else { panic!("{error}") };
    assert_eq!(received.len() as u64, delivered);
    assert!(received.len() < 3_000_000 && received == content[..received.len()]);
    assert!(name.contains(path.file_name().unwrap().to_str().unwrap()));
}

#[test]
fn a_file_that_nobody_sends_any_more_gives_its_lease_up_when_it_is_wanted() {
    let (path, content) = file(10_000);
    let file = shared(&path, Stability::Auto);
    let mut bench = Bench::new();
    let (received, _) = bench.download(&mut super::serve(|stack, socket| {
        socket.sendfile(stack, &file, 0..10_000).unwrap();
    }));
    assert!(received == content);
    let writer = std::thread::spawn({
        let path = path.to_path_buf();
        move || File::options().write(true).open(path).map(drop)
    });
    let start = std::time::Instant::now();
    while !writer.is_finished() {
        assert!(start.elapsed() < Duration::from_secs(30), "the writer waits for a lease");
        bench.step(&mut |_, _| (), true);
        std::thread::sleep(Duration::from_millis(1));
    }
    writer.join().unwrap().unwrap();
    let client = bench.open(4096);
    let mut refused = None;
    bench.run_until(
        Duration::from_secs(5),
        &mut |stack, event| {
            if let Event::Incoming(listener) = event
                && let Some(socket) = listener.accept(stack)
            {
                refused = socket.sendfile(stack, &file, 0..10_000).err();
                socket.abort(stack).unwrap();
            }
        },
        |bench| !bench.peer_socket(client).is_open(),
    );
    assert!(matches!(refused, Some(SocketError::FileChanged { .. })), "{refused:?}");
}

#[test]
fn who_asks_for_a_file_that_is_wanted_does_not_keep_its_writer_waiting() {
    const LEN: u64 = 3_000_000;
    let (path, _) = file(LEN as usize);
    let leased = shared(&path, Stability::Auto);
    let mut bench = Bench::new();
    bench.open(65_536);
    bench.open(65_536);
    let mut sockets: Vec<Socket> = Vec::new();
    let mut program = |stack: &mut Stack, event: Event| {
        if let Event::Incoming(listener) = event {
            sockets.extend(std::iter::from_fn(|| listener.accept(stack)));
        }
    };
    bench.run_until(Duration::from_secs(5), &mut program, |bench| bench.stack.report().accepted == 2);
    sockets[0].sendfile(&mut bench.stack, &leased, 0..LEN).unwrap();
    for _ in 0..10 {
        bench.step(&mut |_, _| (), true);
    }
    // Frames of it are on their way, and the NIC is not done with them.
    bench.stack.poll(bench.now).unwrap();
    assert!(bench.stack.outstanding() > 0);
    let writer = std::thread::spawn({
        let path = path.to_path_buf();
        move || File::options().write(true).open(path).map(drop)
    });
    let start = std::time::Instant::now();
    while leased.disturbed().is_none() {
        assert!(start.elapsed() < Duration::from_secs(30), "the lease is not broken");
        std::thread::sleep(Duration::from_millis(1));
    }
    // The next client gets it as it is, and without a lease, since there is none to be had.
    let trusted = shared(&path, Stability::Auto);
    assert_ne!(trusted.stability(), "lease");
    sockets[1].sendfile(&mut bench.stack, &trusted, 0..LEN).unwrap();
    let before = bench.stack.report().windows.mapped;
    bench.stack.poll(bench.now).unwrap();
    assert!(bench.stack.report().windows.mapped > before && !writer.is_finished());
    for _ in 0..10 {
        bench.step(&mut |_, _| (), true);
    }
    assert!(bench.stack.leaving.is_empty(), "it keeps the lease of a file that is not mapped any more");
    writer.join().unwrap().unwrap();
}

#[test]
fn a_range_outside_the_file_queues_nothing() {
    let (path, _) = file(100);
    let file = shared(&path, Stability::Auto);
    let mut bench = Bench::new();
    let socket = bench.stack.connect("192.0.2.2:9".parse().unwrap(), bench.now).unwrap();
    let error = socket.sendfilev(&mut bench.stack, &[Piece::Bytes(b"head"), Piece::File(&file, 50..101)]).unwrap_err();
    assert!(matches!(&error, SocketError::Range { start: 50, end: 101, size: 100, .. }), "{error}");
    assert_eq!(socket.queued(&bench.stack), Ok(0));
}
