//! Two engines, back to back.

use super::*;

/// Hands everything that `from` sends to `to`, with the payload; each segment through its bytes. Returns how many segments that were.
fn carry(from: &mut Connection, to: &mut Connection, now: Duration) -> usize {
    let mut count = 0;
    while let Some(out) = from.poll(now) {
        let mut at = out.payload.start;
        loop {
            let end = out.payload.end.min(at + u64::from(out.mss));
            let mut bytes = [0; MAX_TCP_HEADER_LEN].to_vec();
            let header = TcpHeader { seq: out.header.seq + (at - out.payload.start), ..out.header };
            let len = header.emit(&mut bytes);
            bytes.truncate(len);
            bytes.extend((at..end).map(content));
            to.receive(&Segment::parse(&bytes).unwrap(), now);
            count += 1;
            at = end;
            if at == out.payload.end {
                break;
            }
        }
    }
    count
}

#[test]
fn two_engines_shake_hands_and_data_arrives_in_order() {
    let mut client = Connection::connect(TcpConfig::default(), 51000, 80, isn(u32::MAX - 5), Duration::ZERO);
    let syn = client.poll(Duration::ZERO).unwrap();
    assert_eq!((syn.header.flags, syn.header.options.mss), (Flags::SYN, Some(1460)));
    let mut server = Connection::accept(TcpConfig::default(), &Segment { header: syn.header, payload: &[] }, isn(77), Duration::ZERO);
    carry(&mut server, &mut client, ms(1));
    carry(&mut client, &mut server, ms(1));
    assert_eq!((client.state(), server.state()), (State::Established, State::Established));

    server.offer(1_000_000).unwrap();
    server.shutdown();
    let (mut now, mut got) = (ms(2), Vec::new());
    while !client.is_finished() {
        carry(&mut server, &mut client, now);
        let mut some = [0; 4096];
        loop {
            let len = client.read(&mut some);
            got.extend_from_slice(&some[..len]);
            if len == 0 {
                break;
            }
        }
        now += ms(1);
        carry(&mut client, &mut server, now);
        assert!(now < ms(2000), "{server:?}");
    }
    assert_eq!(got, (0..1_000_000).map(content).collect::<Vec<_>>());
    assert_eq!((server.acknowledged(), server.state(), client.state()), (1_000_000, State::FinWait2, State::CloseWait));
    client.shutdown();
    carry(&mut client, &mut server, now);
    carry(&mut server, &mut client, now);
    assert_eq!((server.state(), client.state(), client.error()), (State::TimeWait, State::Closed, None));
}
