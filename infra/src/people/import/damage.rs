//! What a spreadsheet does to a number that it takes for one to reckon with: it writes a long one
//! as `4.01E+12`, drops leading zeros, adds decimals, or shows an error in its place. What was
//! there before can't be known, so such a cell is never taken for a badge or an id.

/// What is wrong with a cell that can't be what somebody typed; none if nothing is.
pub(super) fn of_number(cell: &str) -> Option<&'static str> {
    if is_scientific(cell) {
        return Some(
            "is a number as a spreadsheet shortens it, so its digits are lost; format the column \
             as text and enter them again",
        );
    }
    if has_empty_decimals(cell) {
        return Some(
            "has decimals, as a spreadsheet or a program adds them to a number; format the column \
             as text",
        );
    }
    of_text(cell)
}

/// The same for a cell that needn't be a number.
pub(super) fn of_text(cell: &str) -> Option<&'static str> {
    let error = cell.starts_with('#')
        && (cell.bytes().all(|byte| byte == b'#')
            || ["#N/A", "#REF!", "#NAME?", "#VALUE!", "#DIV/0!", "#NUM!", "#NULL!"]
                .contains(&cell.to_ascii_uppercase().as_str()));
    error.then_some("is what a spreadsheet shows in place of something it couldn't work out")
}

/// Digits and an exponent with a sign or a decimal mark: `4.01E+12`, `4,01e12`, `1E-05`.
fn is_scientific(cell: &str) -> bool {
    let Some((mantissa, exponent)) = cell.split_once(['e', 'E']) else { return false };
    let mantissa = mantissa.strip_prefix(['-', '+']).unwrap_or(mantissa);
    let unsigned = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    let (whole, decimals) = mantissa.split_once(['.', ',']).unwrap_or((mantissa, "0"));
    let marked = unsigned.len() < exponent.len() || mantissa.contains(['.', ',']);
    marked && [whole, decimals, unsigned].into_iter().all(is_digits)
}

/// Whether it may be one without such a mark, `4E12`: or somebody's number with a letter.
pub(super) fn may_be_scientific(cell: &str) -> bool {
    cell.split_once(['e', 'E']).is_some_and(|(whole, power)| is_digits(whole) && is_digits(power))
}

fn has_empty_decimals(cell: &str) -> bool {
    let parts = cell.split_once(['.', ',']);
    parts.is_some_and(|(whole, decimals)| {
        is_digits(whole) && is_digits(decimals) && decimals.bytes().all(|byte| byte == b'0')
    })
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A number as it is once its leading zeros are lost.
pub(super) fn without_zeros(badge: &str) -> &str {
    badge.trim_start_matches('0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_number_is_told_from_one_with_letters() {
        for damaged in
            ["4.01E+12", "4,01E+12", "4.01e+012", "1E-05", "4.01E12", "-4E+3", "4711.0", "17,00"]
        {
            assert!(of_number(damaged).is_some(), "{damaged}");
        }
        for error in ["#N/A", "#REF!", "########", "#div/0!"] {
            assert!(of_number(error).is_some() && of_text(error).is_some(), "{error}");
        }
        for right in ["4711", "E-1", "04AE12F9", "B-1042", "12.5", "#17", "1E", "E+12", "4E12"] {
            assert!(of_number(right).is_none(), "{right}");
        }
        assert!(may_be_scientific("4E12") && !may_be_scientific("4EA2"));
    }
}
