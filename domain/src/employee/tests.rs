//! Leaving, coming back, and the badges that go with it.

use uuid::Uuid;

use super::*;

const DAY_MS: i64 = 86_400_000;

fn day(n: i64) -> Time {
    Time::from_millis(n * DAY_MS)
}

fn badge(n: u8) -> Digest {
    Digest::of(&[n])
}

fn after(commands: impl IntoIterator<Item = EmployeeCommand>) -> Employee {
    let register = EmployeeCommand::Register { site: SiteId::NIL, fields: vec![] };
    let mut employee = Employee::default();
    for command in [register].into_iter().chain(commands) {
        for event in employee.decide(command).unwrap() {
            employee.evolve(event);
        }
    }
    employee
}

fn issue(n: u8, from: i64) -> EmployeeCommand {
    EmployeeCommand::IssueBadge { holding: badge(n), from: day(from) }
}

fn depart(at: i64) -> EmployeeCommand {
    EmployeeCommand::Depart { at: day(at) }
}

fn back(at: i64) -> EmployeeCommand {
    EmployeeCommand::Return { at: day(at) }
}

fn held_at(employee: &Employee, n: u8) -> Vec<i64> {
    let held = |at: &i64| employee.badges().get(badge(n)).is_some_and(|h| h.is_held_at(day(*at)));
    (0..12).filter(held).collect()
}

#[test]
fn leaving_ends_badges_and_a_correction_moves_both() {
    let left = after([issue(1, 1), issue(2, 4), depart(6)]);
    assert_eq!((held_at(&left, 1), held_at(&left, 2)), ((1..6).collect(), vec![4, 5]));
    let later = after([issue(1, 1), issue(2, 4), depart(6), depart(8)]);
    assert_eq!(held_at(&later, 1), (1..8).collect::<Vec<_>>());
    let earlier = after([issue(1, 1), issue(2, 4), depart(6), depart(3)]);
    assert_eq!(held_at(&earlier, 1), [1, 2]);
    assert_eq!(held_at(&earlier, 2), [] as [i64; 0], "it was issued after they had left");
    assert_eq!(left.decide(depart(6)), Ok(vec![]));
}

#[test]
fn a_departure_that_was_none_gives_back_the_badges_that_are_free() {
    let cancel = EmployeeCommand::CancelDeparture { free: vec![badge(1)] };
    let stays = after([issue(1, 1), issue(2, 1), depart(6), cancel.clone()]);
    assert_eq!(stays.employment().departed_at(), None);
    assert_eq!(held_at(&stays, 1), (1..12).collect::<Vec<_>>());
    assert_eq!(held_at(&stays, 2), (1..6).collect::<Vec<_>>());
    assert_eq!(stays.decide(cancel), Err(EmployeeError::NotDeparted));
}

#[test]
fn who_comes_back_was_away_in_between() {
    let gone = |employee: &Employee, at| employee.employment().departed_before(day(at)).is_some();
    let employee = after([depart(3), back(5), depart(8)]);
    let away: Vec<i64> = (0..12).filter(|at| gone(&employee, *at)).collect();
    assert_eq!(away, [4, 9, 10, 11], "on the day of leaving they are there");
    assert_eq!(employee.decide(depart(4)), Err(EmployeeError::DepartureBeforeReturn));
    assert_eq!(after([depart(3)]).decide(back(2)), Err(EmployeeError::ReturnBeforeDeparture));
    assert_eq!(after([]).decide(back(2)), Err(EmployeeError::NotDeparted));
}

#[test]
fn nothing_is_given_to_who_left_and_everything_to_who_is_back() {
    let assign = EmployeeCommand::AssignToSite { site: SiteId(Uuid::from_u128(1)), from: None };
    let left = after([depart(3)]);
    assert_eq!(left.decide(issue(1, 4)), Err(EmployeeError::Departed));
    assert_eq!(left.decide(assign.clone()), Err(EmployeeError::Departed));
    assert!(left.decide(issue(1, 2)).is_ok(), "for a time when they were there");
    let returned = after([depart(3), back(5), issue(1, 5), assign]);
    assert_eq!(held_at(&returned, 1), (5..12).collect::<Vec<_>>());
}

#[test]
fn assignments_are_several_and_each_ends_by_itself() {
    let site = |n| SiteId(Uuid::from_u128(n));
    let from =
        |n, at: Option<i64>| EmployeeCommand::AssignToSite { site: site(n), from: at.map(day) };
    let until = |n, at| EmployeeCommand::UnassignFromSite { site: site(n), until: day(at) };
    let employee = after([from(1, Some(3)), from(2, None), until(1, 6), from(1, Some(8))]);
    let at = |n, at| employee.assignments().holds_at(site(n), day(at));
    let worked: Vec<i64> = (0..12).filter(|day| at(1, *day)).collect();
    assert_eq!(worked, [3, 4, 5, 8, 9, 10, 11]);
    assert!(at(2, 0) && at(2, 11));
    assert_eq!(employee.decide(from(2, Some(4))), Ok(vec![]), "they work there already");
    let earlier = employee.decide(from(1, Some(7))).unwrap();
    assert!(matches!(earlier[..], [EmployeeEvent::AssignedToSite { .. }]), "it began earlier");
    let backwards = employee.decide(until(1, 7));
    assert_eq!(backwards, Err(EmployeeError::EndsBeforeItBegan));
}

#[test]
fn what_an_event_changes_is_known_from_its_earliest_bearing_on() {
    let employee = after([issue(1, 1), depart(6)]);
    let from = |event| employee.employment().changes_from(&event);
    assert_eq!(from(EmployeeEvent::Departed { at: day(8) }), Some(day(6)));
    assert_eq!(from(EmployeeEvent::Departed { at: day(2) }), Some(day(2)));
    assert_eq!(from(EmployeeEvent::Returned { at: day(7) }), Some(day(6)));
    let (holding, because) = (badge(1), BadgeEnd::Lost);
    let ended = EmployeeEvent::BadgeEnded { holding, until: day(9), because };
    assert_eq!(employee.badges().changes_from(&ended), Some(day(6)));
}
