//! Windows, against the formulas of the RFCs.

use super::*;

const MSS: u64 = 1000;

fn ms(milliseconds: u64) -> Nanos {
    Nanos::from_millis(milliseconds)
}

/// Lets `rounds` round trips of 100 ms pass, in which whole windows arrive. Returns the windows in segments.
fn rounds(controller: &mut Controller, rounds: u64, from: Nanos) -> Vec<f64> {
    (0..rounds)
        .map(|round| {
            let window = controller.window();
            let mut arrived = 0;
            while arrived < window {
                controller.arrived(MSS, false, ms(100), from + ms(100) * round);
                arrived += MSS;
            }
            controller.window() as f64 / MSS as f64
        })
        .collect()
}

#[test]
fn the_initial_window_is_that_of_rfc_6928() {
    for (mss, window) in [(536, 5360), (1460, 14600), (2000, 14600), (8960, 17920)] {
        assert_eq!(Controller::new(Congestion::Cubic, mss, false).window(), window);
    }
    assert_eq!(Controller::new(Congestion::Cubic, 1460, true).window(), 1460);
}

#[test]
fn slow_start_doubles_in_a_round_trip() {
    let mut controller = Controller::new(Congestion::Cubic, MSS, false);
    assert_eq!(rounds(&mut controller, 3, ms(0)), [20.0, 40.0, 80.0]);
    // After a time-out an ACK counts for a segment at most.
    let mut controller = Controller::new(Congestion::Cubic, MSS, true);
    controller.arrived(5 * MSS, true, ms(100), ms(0));
    assert_eq!(controller.window(), 2 * MSS);
}

#[test]
fn reno_halves_and_adds_a_segment_in_a_round_trip() {
    let mut controller = Controller::new(Congestion::Reno, MSS, false);
    rounds(&mut controller, 3, ms(0));
    controller.reduce();
    assert_eq!(controller.threshold(), 40 * MSS);
    controller.set_window(controller.threshold());
    let windows = rounds(&mut controller, 10, ms(1000));
    assert!((windows[9] - 50.0).abs() <= 1.0, "{windows:?}");
    controller.set_window(0);
    controller.reduce();
    assert_eq!((controller.window(), controller.threshold()), (MSS, 2 * MSS));
}

#[test]
fn cubic_follows_its_curve() {
    // A window of 1000 segments and a round trip of 100 ms: far from what Reno does.
    let mut controller = Controller::new(Congestion::Cubic, MSS, false);
    controller.set_window(1000 * MSS);
    controller.reduce();
    assert_eq!(controller.threshold(), 700 * MSS);
    controller.set_window(controller.threshold());
    let windows = rounds(&mut controller, 130, ms(0));
    // RFC 9438 4.2: K is the cubic root of 300 / 0.4, 9.09 s.
    for round in [10usize, 50, 90, 129] {
        let time = (round + 1) as f64 / 10.0;
        let curve = 0.4 * (time - 9.086f64).powi(3) + 1000.0;
        assert!((windows[round] - curve).abs() < 0.01 * curve, "{} at {time} s, {curve}", windows[round]);
    }
}

#[test]
fn cubic_is_no_slower_than_reno_on_short_paths() {
    let mut controller = Controller::new(Congestion::Cubic, MSS, false);
    controller.set_window(20 * MSS);
    controller.reduce();
    controller.set_window(controller.threshold());
    let before = controller.window() as f64 / MSS as f64;
    // 10 ms: the curve moves little in 20 of these.
    for round in 0..20u64 {
        let window = controller.window();
        for _ in 0..window / MSS {
            controller.arrived(MSS, false, ms(10), ms(10) * round);
        }
    }
    let grown = controller.window() as f64 / MSS as f64 - before;
    // RFC 9438 4.3: 0.53 segments in a round trip until the window is back where it was, which takes 11 of them, then one.
    assert!((13.0..=16.0).contains(&grown), "{grown} segments");
}

#[test]
fn cubic_gives_room_to_others_when_it_loses_twice() {
    let mut controller = Controller::new(Congestion::Cubic, MSS, false);
    controller.set_window(1000 * MSS);
    controller.reduce();
    controller.set_window(controller.threshold());
    controller.reduce();
    assert_eq!(controller.threshold(), 490 * MSS);
    controller.set_window(controller.threshold());
    // Fast convergence: the plateau is at 700 * 0.85 (RFC 9438 4.7), K the cubic root of 105 / 0.4, 6.4 s.
    let windows = rounds(&mut controller, 64, ms(0));
    assert!((590.0..=600.0).contains(&windows[63]), "{}", windows[63]);
}

#[test]
fn the_rate_of_a_recovery_is_the_share_that_the_window_keeps() {
    // RFC 6937: 20 segments under way, a threshold of 14; the first is lost, 19 arrive.
    let mut prr = Prr::new(20 * MSS);
    let mut in_flight = 20 * MSS - MSS;
    let mut sent = 0;
    for _ in 0..19 {
        in_flight -= MSS;
        let allowed = prr.arrived(MSS, in_flight, 14 * MSS, MSS);
        let now = allowed - allowed % MSS;
        prr.sent(now);
        (sent, in_flight) = (sent + now, in_flight + now);
    }
    assert_eq!((sent, in_flight), (14 * MSS, 14 * MSS));
}

#[test]
fn a_recovery_that_lost_nearly_all_starts_slowly() {
    let mut prr = Prr::new(20 * MSS);
    // One arrives of 20, the others are lost: two may go out (the slow-start reduction bound).
    assert_eq!(prr.arrived(MSS, 0, 10 * MSS, MSS), 2 * MSS);
    prr.sent(2 * MSS);
    assert_eq!(prr.arrived(MSS, MSS, 10 * MSS, MSS), 2 * MSS);
    prr.sent(2 * MSS);
    // Duplicates that bring nothing let nothing out, but for the one segment of the bound.
    assert_eq!(prr.arrived(0, 10 * MSS, 10 * MSS, MSS), 0);
}

#[test]
fn a_pause_ends_with_the_initial_window() {
    let mut controller = Controller::new(Congestion::Cubic, MSS, false);
    controller.set_window(1000 * MSS);
    controller.restart();
    assert_eq!(controller.window(), 10 * MSS);
    controller.set_window(3 * MSS);
    controller.restart();
    assert_eq!(controller.window(), 3 * MSS);
}
