//! On the model of an e1000, which has nothing of the driver in it.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use e1000::{E1000, E1000Config};
use hw_sim::model::e1000::E1000Model;

use super::*;

const TIME: Duration = Duration::from_millis(20);

fn session(config: E1000Config) -> (E1000Model, Session) {
    let model = E1000Model::new("52:54:00:00:00:01".parse().unwrap());
    model.set_synchronous(true);
    let nic = E1000::start(model.device(), config).unwrap();
    (model, Session::new(vec![Box::new(nic)], 1).unwrap())
}

fn load(segments: &[u32]) -> Load {
    Load { segments: segments.to_vec(), duration: TIME, ..Load::default() }
}

fn transmit(load: &Load, prebuilt: bool) -> Result<Figures, BenchError> {
    let (model, mut session) = session(E1000Config::default());
    let figures = session.transmit(load, prebuilt, &AtomicBool::new(false))?;
    assert_eq!(model.violations(), Vec::<String>::new());
    let frames = model.step();
    assert_eq!(frames.len() as u64, figures.frames);
    assert!(frames.iter().all(|frame| frame.len() as u64 == load.bytes() && frame[..42] == load::HEADER));
    Ok(figures)
}

#[test]
fn every_frame_that_was_posted_is_counted_and_has_its_header() {
    for prebuilt in [false, true] {
        let one = transmit(&load(&[64]), prebuilt).unwrap();
        assert!(one.frames > 0 && one.frames == one.descriptors && one.prebuilt == prebuilt, "{one:?}");
        let two = transmit(&load(&[64, 1400]), prebuilt).unwrap();
        assert_eq!(two.descriptors, 2 * two.frames);
        assert!(two.pps > 0.0 && two.cycles_per_packet > 0.0 && two.busy_ns_per_frame > 0.0 && two.doorbells > 0, "{two:?}");
        assert_eq!(transmit(&load(&[64, 10, 500]), prebuilt).map(|three| three.descriptors / three.frames).unwrap(), 3);
    }
}

#[test]
fn a_load_that_cannot_be_is_refused() {
    for segments in [&[][..], &[41], &[2049], &[64, 0], &[64, 2000], &[64; 300]] {
        assert!(matches!(transmit(&load(segments), false), Err(BenchError::Load(_))), "{segments:?}");
    }
    for burst in [0, 257] {
        assert!(matches!(transmit(&Load { burst, ..load(&[64]) }, false), Err(BenchError::Load(_))));
    }
    let unknown = Load { cpus: vec![1 << 30], ..load(&[64]) };
    assert!(matches!(transmit(&unknown, false), Err(BenchError::Cpu { cpu: 0x4000_0000, .. })));
    let (_, mut plain) = session(E1000Config { gather: false, ..E1000Config::default() });
    let refused = plain.transmit(&load(&[64, 1400]), false, &AtomicBool::new(false)).unwrap_err();
    assert!(refused.to_string().contains("gathers 1"), "{refused}");
}
