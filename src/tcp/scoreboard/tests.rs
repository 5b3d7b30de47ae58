//! The records, against a list of what became of every single byte.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Byte {
    fate: Fate,
    sent_at: u64,
    resent: bool,
}

/// The bytes from `una` on, one by one.
#[derive(Debug, Default)]
struct Model {
    una: u64,
    bytes: Vec<Byte>,
}

impl Model {
    fn range(&mut self, range: Range<u64>) -> &mut [Byte] {
        let (start, end) = (range.start.max(self.una) - self.una, range.end.max(self.una) - self.una);
        let len = self.bytes.len();
        &mut self.bytes[(start as usize).min(len)..(end as usize).min(len)]
    }

    fn count(&self, fate: Fate) -> u64 {
        self.bytes.iter().filter(|byte| byte.fate == fate).count() as u64
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push(u64),
    Acknowledge(u64),
    Sack(u64, u64),
    /// What was sent before this step is lost.
    LoseBefore(u64),
    LoseFirst(u64),
    LoseAll(bool),
    Resend(u64),
    /// The last bytes again: a probe.
    ResendLast(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..60u64).prop_map(Step::Push),
        2 => (0..80u64).prop_map(Step::Acknowledge),
        4 => (0..200u64, 1..60u64).prop_map(|(at, len)| Step::Sack(at, len)),
        2 => (0..10u64).prop_map(Step::LoseBefore),
        1 => (1..30u64).prop_map(Step::LoseFirst),
        1 => any::<bool>().prop_map(Step::LoseAll),
        4 => (1..40u64).prop_map(Step::Resend),
        1 => (1..40u64).prop_map(Step::ResendLast),
    ];
    proptest::collection::vec(step, 1..60)
}

fn at(step: u64) -> Nanos {
    Nanos::from_millis(step)
}

/// Asserts that both say the same, and that the records are in order.
fn compare(board: &Scoreboard, model: &Model) {
    let mut position = model.una;
    let mut before: Option<&Record> = None;
    for record in &board.records {
        assert_eq!(record.start, position);
        assert!(record.end > record.start);
        for byte in &model.bytes[(record.start - model.una) as usize..(record.end - model.una) as usize] {
            assert_eq!(byte.fate, record.fate);
            if byte.fate != Fate::Sacked {
                assert_eq!((at(byte.sent_at), byte.resent), (record.sent_at, record.resent));
            }
        }
        let apart = before.is_none_or(|before| before.fate != Fate::Sacked || record.fate != Fate::Sacked);
        assert!(apart, "neighbours that have arrived are one record");
        if record.fate != Fate::Sacked {
            assert!(!record.resent || record.end <= board.resent_below);
            assert!(record.fate != Fate::Lost || record.start >= board.lost_from);
        }
        position = record.end;
        before = Some(record);
    }
    assert_eq!(position, model.una + model.bytes.len() as u64);
    assert_eq!(board.in_flight(), model.count(Fate::InFlight));
    assert_eq!(board.sacked(), model.count(Fate::Sacked));
    assert_eq!(board.lost(), model.count(Fate::Lost));
}

proptest! {
    #[test]
    fn the_records_say_what_became_of_every_byte(steps in steps()) {
        let (mut board, mut model) = (Scoreboard::default(), Model::default());
        for (now, step) in steps.into_iter().enumerate() {
            let now = now as u64;
            let end = model.una + model.bytes.len() as u64;
            let mut arrived = Vec::new();
            match step {
                Step::Push(len) => {
                    board.push(end..end + len, at(now));
                    model.bytes.extend((0..len).map(|_| Byte { fate: Fate::InFlight, sent_at: now, resent: false }));
                }
                Step::Acknowledge(len) => {
                    let upto = (model.una + len).min(end);
                    let news = board.acknowledge(upto, |record| arrived.extend((record.start..record.end).map(|at| (at, record.resent))));
                    let expected: Vec<_> = (model.una..upto)
                        .zip(model.range(model.una..upto).iter())
                        .filter(|(_, byte)| byte.fate != Fate::Sacked)
                        .map(|(at, byte)| (at, byte.resent))
                        .collect();
                    prop_assert_eq!(news, expected.len() as u64);
                    prop_assert_eq!(&arrived, &expected);
                    model.bytes.drain(..(upto - model.una) as usize);
                    model.una = upto;
                }
                Step::Sack(from, len) => {
                    let range = model.una + from..model.una + from + len;
                    let mut told = 0;
                    let news = board.sack(range.clone(), |record| told += record.len());
                    let mut fresh = 0;
                    for byte in model.range(range) {
                        fresh += u64::from(byte.fate != Fate::Sacked);
                        byte.fate = Fate::Sacked;
                    }
                    prop_assert_eq!(news, fresh);
                    prop_assert_eq!(told, fresh);
                }
                Step::LoseBefore(ago) => {
                    let bound = now.saturating_sub(ago);
                    let total = board.lose(|record| if record.sent_at < at(bound) { Verdict::Lost } else { Verdict::Later });
                    let mut expected = 0;
                    for byte in &mut model.bytes {
                        if byte.fate == Fate::InFlight && byte.sent_at < bound {
                            byte.fate = Fate::Lost;
                            expected += 1;
                        }
                    }
                    prop_assert_eq!(total, expected);
                }
                Step::LoseFirst(len) => {
                    // As far as the first record goes, which is an affair of the implementation.
                    let reach = board.first().map_or(0, |first| first.len().min(len));
                    let flies = board.first().is_some_and(|first| first.fate == Fate::InFlight);
                    board.lose_first(len);
                    let una = model.una;
                    if flies {
                        model.range(una..una + reach).iter_mut().for_each(|byte| byte.fate = Fate::Lost);
                    }
                }
                Step::LoseAll(reneged) => {
                    board.lose_all(reneged);
                    for byte in &mut model.bytes {
                        if reneged || byte.fate == Fate::InFlight {
                            byte.fate = Fate::Lost;
                        }
                    }
                    // When it was sent is not known any more of bytes that were reported as arrived: take what the records say.
                    for record in &board.records {
                        for byte in model.range(record.start..record.end) {
                            (byte.sent_at, byte.resent) = (record.sent_at.as_millis(), record.resent);
                        }
                    }
                }
                Step::Resend(most) => {
                    let first = model.bytes.iter().position(|byte| byte.fate == Fate::Lost);
                    let range = board.next_lost(most);
                    prop_assert_eq!(range.as_ref().map(|range| range.start), first.map(|at| model.una + at as u64));
                    if let Some(range) = range {
                        prop_assert!(range.end > range.start && range.end - range.start <= most);
                        let run = model.range(range.start..end).iter().take_while(|byte| byte.fate == Fate::Lost).count() as u64;
                        prop_assert_eq!(range.end - range.start, run.min(most), "the hole and nothing else");
                        board.resend(range.clone(), at(now));
                        model.range(range).fill(Byte { fate: Fate::InFlight, sent_at: now, resent: true });
                    }
                }
                Step::ResendLast(len) => {
                    let from = end.saturating_sub(len).max(model.una);
                    if from < end {
                        board.resend(from..end, at(now));
                        for byte in model.range(from..end) {
                            if byte.fate != Fate::Sacked {
                                *byte = Byte { fate: Fate::InFlight, sent_at: now, resent: true };
                            }
                        }
                    }
                }
            }
            compare(&board, &model);
        }
    }
}

#[test]
fn the_work_of_an_ack_depends_on_the_holes_and_not_on_the_window() {
    let mut board = Scoreboard::default();
    for at in 0..10_000 {
        board.push(at * 10..at * 10 + 10, Nanos::from_millis(at));
    }
    for at in 1..9_999 {
        board.sack(at * 10..at * 10 + 10, |_| {});
    }
    assert_eq!(board.records.len(), 3);
    // Records that were sent later are not asked for one by one.
    for at in 10_000..20_000 {
        board.push(at * 10..at * 10 + 10, Nanos::from_millis(at));
    }
    let mut asked = 0;
    board.lose(|_| {
        asked += 1;
        Verdict::Later
    });
    assert_eq!(asked, 1);
}

#[test]
fn an_empty_board_gives_its_memory_back() {
    let mut board = Scoreboard::default();
    for at in 0..1000 {
        board.push(at..at + 1, Nanos::ZERO);
    }
    assert!(board.heap_bytes() > 10_000);
    board.acknowledge(1000, |_| {});
    assert_eq!((board.heap_bytes(), board.is_empty(), board.is_plain()), (0, true, true));
}
