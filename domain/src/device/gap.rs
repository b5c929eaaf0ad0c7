//! Runs of a device's numbers that never came, and what is left of them once some did.

use serde::{Deserialize, Serialize};

/// A run of sequence numbers that never came: from and to, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Gap {
    /// The first missing number.
    pub from: u64,
    pub to: u64,
}

/// A run cut by another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Its numbers before the other's.
    pub before: Option<Gap>,
    /// Its numbers that are the other's, too.
    pub within: Option<Gap>,
    /// Its numbers after the other's.
    pub after: Option<Gap>,
}

impl Gap {
    /// Cuts it where the numbers of `by` begin and end.
    pub fn cut(self, by: Self) -> Cut {
        let Self { from, to } = self;
        let (first, last) = (from.max(by.from), to.min(by.to));
        Cut {
            before: (from < by.from).then(|| Self { from, to: to.min(by.from - 1) }),
            within: (first <= last).then_some(Self { from: first, to: last }),
            after: (by.to < to).then(|| Self { from: from.max(by.to + 1), to }),
        }
    }
}

/// The open gaps once the numbers of `closed` have come.
pub fn without(open: &[Gap], closed: Gap) -> Vec<Gap> {
    let left = |gap: &Gap| {
        let Cut { before, after, .. } = gap.cut(closed);
        before.into_iter().chain(after)
    };
    open.iter().flat_map(left).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_gap_closes_from_the_middle_and_from_the_ends() {
        let open = [Gap { from: 3, to: 9 }];
        assert_eq!(
            without(&open, Gap { from: 5, to: 6 }),
            [Gap { from: 3, to: 4 }, Gap { from: 7, to: 9 }]
        );
        assert_eq!(without(&open, Gap { from: 3, to: 3 }), [Gap { from: 4, to: 9 }]);
        assert_eq!(without(&open, Gap { from: 1, to: 20 }), []);
        assert_eq!(without(&open, Gap { from: 10, to: 20 }), open);
    }

    fn run() -> impl Strategy<Value = Gap> {
        (0u64..20, 0u64..20).prop_map(|(a, b)| Gap { from: a.min(b), to: a.max(b) })
    }

    proptest! {
        #[test]
        fn a_cut_loses_no_number_and_keeps_their_order(gap in run(), by in run()) {
            let Cut { before, within, after } = gap.cut(by);
            let numbers: Vec<u64> =
                [before, within, after].into_iter().flatten().flat_map(|g| g.from..=g.to).collect();
            prop_assert_eq!(numbers, (gap.from..=gap.to).collect::<Vec<_>>());
            prop_assert!(before.is_none_or(|g| g.to < by.from));
            prop_assert!(within.is_none_or(|g| by.from <= g.from && g.to <= by.to));
            prop_assert!(after.is_none_or(|g| by.to < g.from));
        }
    }
}
