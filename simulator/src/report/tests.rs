use super::*;

fn rows(acknowledged: &[u64]) -> Vec<Second> {
    acknowledged.iter().map(|&acknowledged| Second { acknowledged, ..Second::default() }).collect()
}

#[test]
fn rates_come_from_the_rows() {
    let told = rate(&rows(&[0, 10, 100, 100, 100, 100, 90, 0, 0]));
    assert_eq!(told.last_acknowledged_s, 7.0);
    assert_eq!(told.mean_per_s, 500.0 / 7.0);
    // A tenth (50) is reached in the third second, nine tenths (450) in the seventh.
    assert_eq!(told.middle_per_s, 490.0 / 5.0);
    assert_eq!(told.peak_per_s, 490.0 / 5.0);
}

#[test]
fn nothing_delivered_is_no_rate() {
    for none in [rows(&[]), rows(&[0, 0, 0])] {
        let told = rate(&none);
        assert_eq!((told.last_acknowledged_s, told.mean_per_s, told.peak_per_s), (0.0, 0.0, 0.0));
    }
}

#[test]
fn devices_that_are_not_drained_count_but_have_no_time() {
    let of = drained_of(vec![Some(4_000), None, Some(1_500), Some(2_000)]);
    assert_eq!((of.devices, of.drained), (4, 3));
    assert_eq!((of.p50_s, of.p99_s, of.last_s), (Some(2.0), Some(4.0), Some(4.0)));
    assert_eq!(drained_of(vec![None]), DrainedOf { devices: 1, ..DrainedOf::default() });
}

#[test]
fn a_file_that_disagrees_with_the_server_is_named() {
    let status = |text: &str, captures| (Some(text.to_owned()), captures);
    let mut checked = Checked::default();
    checked.device(1, &[status("applied", 7), status("duplicate", 3)], 10, 10);
    checked.device(2, &[status("applied", 4), (None, 6)], 4, 10);
    assert!(checked.discrepancies.is_empty(), "{checked:?}");
    assert_eq!((checked.waiting, checked.by_status["applied"]), (6, 11));
    checked.device(3, &[status("applied", 10)], 9, 10);
    checked.device(4, &[status("quarantined", 1)], 1, 1);
    assert_eq!(checked.discrepancies.len(), 2, "{checked:?}");
    assert!(checked.discrepancies[0].starts_with("device 00003"));
    assert!(checked.discrepancies[1].contains("quarantined"));
}

#[test]
fn thousands_are_told_apart() {
    let shown = [0, 12, 123, 1_234, 1_500_000].map(grouped);
    assert_eq!(shown, ["0", "12", "123", "1,234", "1,500,000"]);
}
