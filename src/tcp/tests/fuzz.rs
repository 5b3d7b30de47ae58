//! Segments that no peer would send.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// Numbers are relative to what is expected: of data, and of ACKs.
    Receive {
        flags: u8,
        seq: i64,
        ack: i64,
        window: u16,
        len: usize,
        sack: Vec<(i64, i64)>,
        stamps: Option<(u32, u32)>,
        syn: (u16, u8),
    },
    Offer(u64),
    Read(usize),
    Wait(u64),
    UntilDue,
    Shutdown,
    Abort,
    Withdraw,
    PathMtu(u16),
}

fn numbers() -> impl Strategy<Value = i64> {
    prop_oneof![4 => Just(0i64), 3 => -3000..70_000i64, 1 => (-1i64 << 31)..1 << 31]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let flags = prop_oneof![6 => Just(0x10u8), 2 => Just(0x18), 1 => Just(0x11), 1 => Just(0x12), 1 => Just(0x02), 1 => 0..32u8];
    let window = prop_oneof![4 => Just(60_000u16), 1 => Just(0), 1 => any::<u16>()];
    let len = prop_oneof![3 => Just(0usize), 2 => 1..1500usize, 1 => 0..60_000usize];
    let sack = proptest::collection::vec((numbers(), numbers()), 0..=3);
    let stamps = proptest::option::of((prop_oneof![0..100u32, any::<u32>()], prop_oneof![1000..3000u32, any::<u32>()]));
    let receive = (flags, numbers(), numbers(), window, len, sack, stamps, (any::<u16>(), 0..15u8))
        .prop_map(|(flags, seq, ack, window, len, sack, stamps, syn)| Step::Receive { flags, seq, ack, window, len, sack, stamps, syn });
    let step = prop_oneof![
        20 => receive,
        4 => (1..200_000u64).prop_map(Step::Offer),
        2 => (0..70_000usize).prop_map(Step::Read),
        4 => (0..400u64).prop_map(Step::Wait),
        3 => Just(Step::UntilDue),
        1 => Just(Step::Shutdown),
        1 => (0..2000u16).prop_map(Step::PathMtu),
    ];
    let rare = prop_oneof![Just(Step::Abort), Just(Step::Withdraw)];
    proptest::collection::vec(prop_oneof![60 => step, 1 => rare], 1..120)
}

fn config() -> impl Strategy<Value = TcpConfig> {
    (any::<[bool; 4]>(), prop_oneof![Just(65_160u32), 0..3000u32], prop_oneof![Just(65_535u32), 1..100u32, 1..300_000u32], any::<u16>())
        .prop_map(|([timestamps, sack, pacing, reno], max_burst, window, mss)| TcpConfig {
            timestamps,
            sack,
            pacing,
            congestion: if reno { Congestion::Reno } else { Congestion::Cubic },
            max_burst,
            window,
            mss,
            keep_alive: Some(KeepAlive { idle: ms(500), interval: ms(100), probes: 2 }),
            ..TcpConfig::default()
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_arrives_the_engine_keeps_its_rules(config in config(), active: bool, isns: [u32; 2], steps in steps()) {
        let (own, peer) = (Seq(isns[0]), Seq(isns[1]));
        let mut now = ms(1000);
        let syn = TcpHeader {
            source_port: 1,
            destination_port: 2,
            seq: peer,
            ack: Seq(0),
            flags: Flags::SYN,
            window: 60_000,
            options: TcpOptions { mss: Some(1000), sack_permitted: true, window_scale: Some(3), ..TcpOptions::default() },
        };
        let isn = Isn { seq: own, timestamp: 1000 };
        let mut connection = if active {
            Connection::connect(config, 2, 1, isn, now)
        } else {
            Connection::accept(config, &Segment { header: syn, payload: &[] }, isn, now)
        };
        // What the peer would send next, and acknowledge: as the engine says it.
        let (mut expected, mut sent, mut acknowledged) = (peer + 1, own + 1, 0);
        for step in steps {
            match step {
                Step::Receive { flags, seq, ack, window, len, sack, stamps, syn: (mss, scale) } => {
                    let flags = Flags::from_bits_truncate(flags);
                    let number = |from: Seq, by: i64| Seq(from.0.wrapping_add(by as u32));
                    let mut options = TcpOptions { timestamps: stamps.map(|(value, echo)| Timestamps { value, echo }), ..TcpOptions::default() };
                    if flags.contains(Flags::SYN) {
                        options = TcpOptions { mss: Some(mss), window_scale: Some(scale), sack_permitted: true, ..options };
                    }
                    for (from, to) in sack {
                        options.sack.push(number(sent, -from.abs()), number(sent, -to.abs()));
                    }
                    let seq = if flags.contains(Flags::SYN) && seq == 0 { peer } else { number(expected, seq) };
                    let header = TcpHeader { seq, ack: number(sent, -ack.abs()), flags, window, options, ..syn };
                    connection.receive(&Segment { header, payload: content(0, len) }, now);
                }
                Step::Offer(bytes) => {
                    let _ = connection.offer(bytes);
                }
                Step::Read(len) => {
                    connection.read(&mut vec![0; len]);
                }
                Step::Wait(wait) => now += ms(wait),
                Step::UntilDue => now = connection.deadline().map_or(now, |at| at.max(now)),
                Step::Shutdown => connection.shutdown(),
                Step::Abort => connection.abort(),
                Step::Withdraw => {
                    connection.withdraw();
                }
                Step::PathMtu(mss) => connection.set_path_mtu(mss, now),
            }
            let mut count = 0;
            while let Some(out) = connection.poll(now) {
                let len = out.payload.end - out.payload.start;
                prop_assert!(out.mss > 0 && out.payload.end <= connection.offered());
                let bits = out.header.flags & (Flags::FIN | Flags::SYN | Flags::RST);
                prop_assert!(len <= u64::from(out.mss) || bits.is_empty());
                prop_assert!(out.header.len() <= MAX_TCP_HEADER_LEN);
                if out.header.flags.contains(Flags::ACK) && !bits.contains(Flags::RST) {
                    expected = out.header.ack;
                }
                let end = out.header.seq + len + u64::from(bits.contains(Flags::FIN)) + u64::from(bits.contains(Flags::SYN));
                if !bits.contains(Flags::RST) && end.since(sent) > 0 {
                    sent = end;
                }
                count += 1;
                prop_assert!(count < 3000, "{:?} does not stop", connection);
            }
            prop_assert!(connection.acknowledged() <= connection.offered());
            prop_assert!(connection.acknowledged() >= acknowledged);
            acknowledged = connection.acknowledged();
            prop_assert!(connection.deadline().is_none_or(|at| at > now), "{:?} at {:?}", connection, now);
            prop_assert!(connection.is_closed() || connection.deadline().is_some(), "{:?} would wait for ever", connection);
            prop_assert!(connection.error().is_none() || connection.is_closed());
        }
    }
}
