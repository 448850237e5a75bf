//! How the server's seats are divided while levels lend and borrow.
//!
//! Each level has bounds and a target; every level gets the same fraction of its target, within its bounds, such
//! that all seats are given out. The rule is that of KEP-1040 ("dispatching by borrowing").

/// A target is never less, so that nothing is divided by zero.
const TARGET_MIN: f64 = 0.001;
/// How often the fraction is halved in on; enough for the precision of a double.
const STEPS: usize = 200;

/// One level's part of the problem.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Claim {
    pub lower: f64,
    pub upper: f64,
    pub target: f64,
}

/// What each gets, and the fraction of its target that an unbounded one gets; `None` when the bounds leave no
/// division that sums to `total`.
pub fn allocate(total: f64, claims: &[Claim]) -> Option<(Vec<f64>, f64)> {
    let claims: Vec<Claim> =
        claims.iter().map(|claim| Claim { target: claim.target.max(TARGET_MIN), ..*claim }).collect();
    let possible = claims.iter().all(|c| c.lower >= 0.0 && c.upper >= c.lower);
    let lower: f64 = claims.iter().map(|c| c.lower).sum();
    let upper: f64 = claims.iter().map(|c| c.upper).sum();
    if !possible || claims.is_empty() || total < lower - 1e-7 || total > upper + 1e-7 {
        return None;
    }
    let at = |fraction: f64| -> Vec<f64> {
        claims.iter().map(|c| (c.target * fraction).clamp(c.lower, c.upper)).collect()
    };
    // The sum grows with the fraction, so it is found by halving.
    let mut low = 0.0;
    let mut high = claims.iter().map(|c| c.upper / c.target).fold(0.0, f64::max);
    for _ in 0..STEPS {
        let middle = f64::midpoint(low, high);
        if at(middle).iter().sum::<f64>() < total {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some((at(high), high))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(total: f64, claims: &[(f64, f64, f64)], expected: &[f64]) {
        let claims: Vec<Claim> =
            claims.iter().map(|&(lower, upper, target)| Claim { lower, upper, target }).collect();
        let (got, _) = allocate(total, &claims).expect("possible");
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-6, "{got} is not {expected}");
        }
    }

    #[test]
    fn seats_follow_targets_within_bounds() {
        check(100.0, &[(0.0, 100.0, 1.0), (0.0, 100.0, 3.0)], &[25.0, 75.0]);
        check(100.0, &[(40.0, 100.0, 40.0), (0.0, 100.0, 300.0)], &[40.0, 60.0]);
        check(100.0, &[(0.0, 10.0, 50.0), (0.0, 100.0, 50.0)], &[10.0, 90.0]);
        check(30.0, &[(10.0, 50.0, 10.0), (20.0, 50.0, 20.0)], &[10.0, 20.0]);
        check(100.0, &[(10.0, 50.0, 10.0), (20.0, 50.0, 20.0)], &[50.0, 50.0]);
        check(10.0, &[(0.0, 20.0, 0.0), (0.0, 20.0, 0.0)], &[5.0, 5.0]);
    }

    #[test]
    fn what_cannot_be_divided_is_none() {
        assert!(allocate(5.0, &[Claim { lower: 6.0, upper: 9.0, target: 6.0 }]).is_none());
        assert!(allocate(10.0, &[Claim { lower: 6.0, upper: 9.0, target: 6.0 }]).is_none());
        assert!(allocate(1.0, &[]).is_none());
    }
}
