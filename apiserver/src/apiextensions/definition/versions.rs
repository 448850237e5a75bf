//! The order of versions: `v2 > v1 > v1beta2 > v1beta1 > v1alpha1 > anything else`, by name.

use std::cmp::Ordering;

/// Greater is newer and more stable (`version.CompareKubeAwareVersionStrings`).
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    match (parse(a), parse(b)) {
        (Some(x), Some(y)) => x.cmp(&y),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => b.cmp(a),
    }
}

/// The preferred first.
pub fn sorted_versions(names: &mut [String]) {
    names.sort_by(|a, b| compare_versions(b, a));
}

/// Stability, major, minor.
fn parse(version: &str) -> Option<(u8, u32, u32)> {
    let rest = version.strip_prefix('v')?;
    let (major, rest) = number(rest)?;
    if rest.is_empty() {
        return Some((2, major, 0));
    }
    for (name, stability) in [("alpha", 0), ("beta", 1)] {
        if let Some(minor) = rest.strip_prefix(name) {
            let (minor, rest) = number(minor)?;
            return rest.is_empty().then_some((stability, major, minor));
        }
    }
    None
}

fn number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let digits = &text[..end];
    (!digits.starts_with('0')).then_some(())?;
    Some((digits.parse().ok()?, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_before_beta_before_alpha_before_others() {
        let mut names =
            ["foo10", "v1alpha1", "v10", "v2", "v1beta1", "foo1", "v11beta2", "v12alpha1", "v3beta1"]
                .map(str::to_owned);
        sorted_versions(&mut names);
        let wanted =
            ["v10", "v2", "v11beta2", "v3beta1", "v1beta1", "v12alpha1", "v1alpha1", "foo1", "foo10"];
        assert_eq!(names, wanted);
    }
}
