//! The text form of a set of job indexes: `1,3-5,7`.

/// How many indexes a text names, each below `completions`.
///
/// # Errors
/// What is wrong with the text, as upstream says it.
pub fn count(text: &str, completions: i64) -> Result<i64, String> {
    let (mut total, mut last) = (0, None);
    for interval in intervals(text) {
        let (start, end) = parse(interval, completions)?;
        if let Some(last) = last
            && last >= start
        {
            return Err(format!("non-increasing order, previous: {last}, current: {start}"));
        }
        total += end - start + 1;
        last = Some(end);
    }
    Ok(total)
}

/// The first index that both texts name. Intervals that cannot be read are passed over.
pub fn overlap(left: &str, right: &str, completions: i64) -> Option<i64> {
    let read = |text: &str| -> Vec<(i64, i64)> {
        intervals(text).filter_map(|interval| parse(interval, completions).ok()).collect()
    };
    let others = read(right);
    read(left).into_iter().find_map(|(start, end)| {
        others.iter().find(|(from, to)| start <= *to && *from <= end).map(|(from, _)| start.max(*from))
    })
}

fn intervals(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').filter(move |_| !text.is_empty())
}

fn parse(interval: &str, completions: i64) -> Result<(i64, i64), String> {
    let limits: Vec<&str> = interval.split('-').collect();
    let number = |text: &str| -> Result<i64, String> {
        let index = text
            .parse::<i64>()
            .map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
        if index >= completions { Err(format!("too large index: {text:?}")) } else { Ok(index) }
    };
    match limits.as_slice() {
        [one] => number(one).map(|index| (index, index)),
        [start, end] => {
            let (start, end) = (number(start)?, number(end)?);
            if start >= end {
                return Err(format!("non-increasing order, previous: {start}, current: {end}"));
            }
            Ok((start, end))
        }
        _ => Err(format!(
            "the fragment {interval:?} violates the requirement that an index interval can have at most two parts separated by '-'"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_counted_and_compared() {
        assert_eq!(count("", 5), Ok(0));
        assert_eq!(count("0,2-4", 5), Ok(4));
        assert_eq!(count("5", 5).unwrap_err(), "too large index: \"5\"");
        assert_eq!(count("a", 5).unwrap_err(), "cannot convert string to integer for index: \"a\"");
        assert_eq!(count("2,1", 5).unwrap_err(), "non-increasing order, previous: 2, current: 1");
        assert_eq!(overlap("0-2", "2,4", 5), Some(2));
        assert_eq!(overlap("0", "1-2", 5), None);
    }
}
