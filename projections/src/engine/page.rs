//! Pages of rows: at most so many, in the order of a key, and whether more follow.

/// The most rows a page may have.
pub const PAGE_ROWS_MAX: u32 = 1_000;

/// Some rows in the order of their key, and whether more follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    pub rows: Vec<T>,
    /// Whether more follow the last.
    pub more: bool,
}

impl<T> Page<T> {
    /// How many rows to ask for, so as to tell whether more follow a page of `limit`.
    pub(crate) fn to_ask(limit: u32) -> i64 {
        i64::from(limit.clamp(1, PAGE_ROWS_MAX)) + 1
    }

    /// The page of `limit`, made from what [`Page::to_ask`] asked for.
    pub(crate) fn cut(mut rows: Vec<T>, limit: u32) -> Self {
        let most = limit.clamp(1, PAGE_ROWS_MAX) as usize;
        let more = rows.len() > most;
        rows.truncate(most);
        Self { rows, more }
    }
}

/// In which order of time a list goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    #[default]
    NewestFirst,
    OldestFirst,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_row_beyond_the_limit_tells_that_more_follow() {
        assert_eq!(Page::<u8>::to_ask(2), 3);
        assert_eq!(Page::cut(vec![1, 2, 3], 2), Page { rows: vec![1, 2], more: true });
        assert_eq!(Page::cut(vec![1, 2], 2), Page { rows: vec![1, 2], more: false });
    }

    #[test]
    fn a_limit_out_of_range_is_taken_as_the_nearest() {
        assert_eq!(Page::<u8>::to_ask(0), 2);
        assert_eq!(Page::<u8>::to_ask(u32::MAX), 1_001);
    }
}
