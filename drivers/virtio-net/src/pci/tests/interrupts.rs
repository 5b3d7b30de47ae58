//! Vectors, and a line that is shared.

use std::time::Duration;

use hal::virtio::VirtioTransport;

use super::device::{Fake, LAYOUT};

#[test]
fn vectors_are_shared_where_there_are_too_few() {
    let fake = Fake::new();
    {
        let mut device = fake.device();
        (device.msix, device.vectors, device.num_queues) = (true, 3, 5);
    }
    let mut transport = fake.open().unwrap();
    for index in 0..5 {
        transport.enable_queue(index, LAYOUT).unwrap();
    }
    let vectors = (0..5).map(|index| fake.device().queues[&index][&26]).collect::<Vec<_>>();
    assert_eq!(vectors, [1, 2, 2, 2, 2]);
    let mut all: Vec<_> = [None, Some(0), Some(1), Some(4)].map(|queue| transport.interrupt(queue).unwrap()).into();
    fake.raise(2);
    let came: Vec<bool> = all.iter_mut().map(|interrupt| interrupt.wait(Duration::ZERO).unwrap()).collect();
    assert_eq!(came, [false, false, true, true]);
    fake.raise(0);
    let came: Vec<bool> = all.iter_mut().map(|interrupt| interrupt.wait(Duration::ZERO).unwrap()).collect();
    assert_eq!(came, [true, false, false, false]);
}

#[test]
fn users_of_one_line_wake_each_other_whoever_takes_the_interrupt() {
    let fake = Fake::new();
    let mut transport = fake.open().unwrap();
    transport.enable_queue(0, LAYOUT).unwrap();
    assert_eq!(fake.device().config_vector, 0xffff, "no vectors without MSI-X");
    let mut interrupts: Vec<_> = [Some(0), Some(1), None].map(|queue| transport.interrupt(queue).unwrap()).into();
    std::thread::scope(|scope| {
        let waiting: Vec<_> =
            interrupts.iter_mut().map(|interrupt| scope.spawn(|| interrupt.wait(Duration::from_secs(20)).unwrap())).collect();
        fake.device().isr = 1;
        // The third one waits for a change of the configuration, which comes when the others have been woken.
        let mut waiting = waiting.into_iter();
        assert!(waiting.by_ref().take(2).all(|thread| thread.join().unwrap()));
        fake.device().isr = 2;
        assert!(waiting.all(|thread| thread.join().unwrap()));
    });
    assert!(interrupts.iter_mut().all(|interrupt| !interrupt.wait(Duration::ZERO).unwrap()));
    assert_eq!(fake.device().isr, 0);
}
